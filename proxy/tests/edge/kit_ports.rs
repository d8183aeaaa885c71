//! Plain ports that are those of Kit services: by whatever name, they have the service's gate.

use std::{io::Read, net::SocketAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use gantry_model::{Phase, Scheme, Service, alias::AliasTarget};
use gantry_proxy::KitPort;
use gantry_store::AliasRecord;
use serde_json::{Value, json};

use crate::{
    bed::{Bed, CONTAINER, CUSTOM, Setup, host, kit},
    client::Reply,
    origin::{Origin, send},
};

/// Terminals have a port each, files have one for all.
fn usual(service: Service) -> KitPort {
    let at = |port, per_index| KitPort { port, per_index, ..kit(service) };
    if matches!(service, Service::Terminal | Service::Desktop) {
        at(20_000, true)
    } else if service == Service::Files {
        at(19_801, false)
    } else {
        kit(service)
    }
}

/// An operator's own terminal, which serves all indexes on one port.
pub(crate) fn operators(service: Service) -> KitPort {
    if service == Service::Terminal {
        KitPort { provided: false, scheme: Scheme::Http, port: 3000, per_index: false }
    } else {
        kit(service)
    }
}

fn bed(number: u8, kit: fn(Service) -> KitPort, ports: &[u16]) -> (Bed, Vec<Origin>) {
    let bed = Bed::with(number, Setup { kit, ..Setup::default() });
    bed.set(CONTAINER, Phase::Running, 1);
    let address = bed.container_address(2);
    let start = |port: &u16| Origin::simple(SocketAddr::new(address, *port));
    let origins = ports.iter().map(start).collect();
    (bed, origins)
}

fn get(bed: &Bed, service: &str, fields: &str) -> Reply {
    let fields = format!("Accept: application/json\r\n{fields}");
    bed.client().get(&host(CONTAINER, service), "/", &fields)
}

/// One group, whose token is `X-Key: k`.
fn keyed(cells: &Value, default: &str) -> Value {
    let groups = json!({"g": {"type": "token", "header": "X-Key", "value": "k"}});
    json!({"groups": groups, "permissions": {"g": cells}, "default": default})
}

#[test]
fn who_may_not_have_a_kit_service_does_not_get_it_by_its_port() {
    let (bed, origins) = bed(129, usual, &[20_001, 30_000, 19_801]);
    let alias = AliasRecord {
        label: "shell".to_owned(),
        hostnames: vec![CUSTOM.to_owned()],
        target: AliasTarget::Port { scheme: Scheme::Http, port: 20_001 },
        landing: None,
        enabled: true,
        expires_at_ms: None,
        clear_site_data: false,
    };
    bed.change(CONTAINER, |edge| edge.aliases = vec![alias]);
    let staff =
        json!({"type": "password", "username": "ann", "password": "right", "salt": "pepper"});
    bed.gate(
        CONTAINER,
        &json!({"groups": {"staff": staff}, "permissions": {"staff": {"terminal": true}},
                "default": "allow"}),
    );
    for service in ["terminal-1", "http-20001", "https-20001", "http-20000", "http-29999"] {
        let reply = get(&bed, service, "");
        assert_eq!(
            (reply.status, reply.code()),
            (401, Some("AUTHENTICATION_REQUIRED")),
            "{service}"
        );
    }
    let named = "shell.local.containers.gantry.localhost";
    assert_eq!(bed.client().get(named, "/", "").status, 401);
    assert_eq!(bed.custom_client(CUSTOM).get(CUSTOM, "/", "").status, 401);
    let page = bed.client().get(named, "/.gantry/sign-in", "Accept: text/html\r\n");
    assert!(page.text().contains("<form"), "people can sign in: {page:?}");
    assert!(origins[0].seen().is_empty());
    for service in ["http-30000", "http-19801", "files-1"] {
        assert_eq!(get(&bed, service, "").status, 200, "{service}");
    }
    let ann = format!("Authorization: Basic {}\r\n", STANDARD.encode("ann:right"));
    assert_eq!(get(&bed, "http-20001", &ann).status, 200);
    assert!(origins[0].last().values("authorization").is_empty(), "it stays at the edge");
}

#[test]
fn a_group_that_has_all_ports_has_the_kit_services_that_it_is_given() {
    let (bed, _origins) = bed(109, usual, &[20_001, 20_002, 30_000, 19_801]);
    let key = "X-Key: k\r\n";
    let all = ["http-20001", "http-20002", "http-19801", "http-30000"];
    for (cells, default, want) in [
        (json!({"http": "*", "terminal": false}), "allow", [403, 403, 200, 200]),
        (json!({"http": "*", "files": false}), "allow", [200, 200, 403, 200]),
        (json!({"http": "*"}), "deny", [403, 403, 403, 200]),
        (json!({"http": "*", "terminal": 2, "files": true}), "deny", [403, 200, 200, 200]),
        (json!({"terminal": true, "files": true}), "deny", [403; 4]),
    ] {
        bed.gate(CONTAINER, &keyed(&cells, default));
        assert_eq!(all.map(|service| get(&bed, service, key).status), want, "{cells} {default}");
    }
}

#[test]
fn a_port_that_all_indexes_have_is_for_those_who_may_have_all() {
    let (bed, _origins) = bed(123, operators, &[3000, 20_001]);
    let key = "X-Key: k\r\n";
    let all = ["terminal-1", "terminal-2", "http-3000", "http-20001"];
    for (cell, want) in [
        (json!(1), [200, 403, 403, 200]),
        (json!("1-9999"), [200, 200, 403, 200]),
        (json!("*"), [200; 4]),
        (json!(false), [403, 403, 403, 200]),
    ] {
        bed.gate(CONTAINER, &keyed(&json!({"http": "*", "terminal": cell}), "deny"));
        assert_eq!(all.map(|service| get(&bed, service, key).status), want, "{cell}");
    }
}

#[test]
fn a_desktop_wants_the_permission_for_its_session_of_the_terminal() {
    let (bed, origins) = bed(138, operators, &[3000]);
    let key = "X-Key: k\r\n";
    for (cells, want) in [
        (json!({"desktop": true}), [403, 403]),
        (json!({"terminal": "*"}), [403, 403]),
        (json!({"desktop": true, "terminal": 1}), [403, 403]),
        (json!({"desktop": true, "terminal": 1602}), [200, 403]),
        (json!({"desktop": 3, "terminal": "*"}), [403, 200]),
        (json!({"desktop": true, "terminal": true}), [200, 200]),
    ] {
        bed.gate(CONTAINER, &keyed(&cells, "deny"));
        let got = ["desktop-2", "desktop-3"].map(|service| get(&bed, service, key).status);
        assert_eq!(got, want, "{cells}");
    }
    assert_eq!(origins[0].seen().len(), 4);
}

#[test]
fn a_stream_by_the_port_of_a_kit_service_ends_when_the_service_is_closed() {
    let bed = Bed::with(124, Setup { kit: operators, ..Setup::default() });
    let _origin = bed.running_with(|_, stream| {
        send(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        drop(stream.read(&mut [0; 16]));
    });
    let open = keyed(&json!({"http": 3000, "terminal": true}), "deny");
    bed.gate(CONTAINER, &open);
    let mut client = bed.client();
    let name = host(CONTAINER, "http-3000");
    client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\nX-Key: k\r\n\r\n"));
    assert!(client.head().starts_with("HTTP/1.1 200"));
    assert_eq!(client.chunk().unwrap(), b"x");
    bed.gate(CONTAINER, &keyed(&json!({"http": 3000, "terminal": false}), "deny"));
    assert!(client.is_closed());
}
