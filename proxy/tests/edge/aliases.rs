//! Names that somebody has chosen.

use gantry_model::{
    Phase, Scheme, Service,
    alias::{AliasTarget, Landing},
};
use gantry_store::AliasRecord;
use serde_json::json;

use crate::bed::{Bed, CONTAINER, CUSTOM, host, now_ms};

fn alias(label: &str) -> AliasRecord {
    AliasRecord {
        label: label.to_owned(),
        hostnames: vec![CUSTOM.to_owned()],
        target: AliasTarget::Port { scheme: Scheme::Http, port: 3000 },
        landing: None,
        enabled: true,
        expires_at_ms: None,
        clear_site_data: false,
    }
}

fn named(label: &str) -> String {
    format!("{label}.local.containers.gantry.localhost")
}

fn landing(path: &str, may_override: bool) -> Landing {
    Landing::parse("target_path", path, !may_override).unwrap()
}

#[test]
fn an_alias_leads_to_its_service_and_the_container_sees_the_name() {
    let bed = Bed::new(220);
    let origin = bed.running();
    bed.change(CONTAINER, |edge| edge.aliases = vec![alias("shop")]);
    let name = named("shop");
    for _ in 0..2 {
        let reply = bed.client().get(&name, "/a?b=c", "");
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello\n"));
        let seen = origin.last();
        assert_eq!(
            (seen.line(), seen.values("host")),
            ("GET /a?b=c HTTP/1.1", vec![name.as_str()])
        );
    }
    let reply = bed.client().get(&named("SHOP"), "/", "");
    assert_eq!(reply.status, 200, "names have no case");
    let reply = bed.client().get("shop.other.containers.gantry.localhost", "/", "");
    assert_eq!(reply.status, 404, "a name belongs to one server");
    // Other targets.
    bed.change(CONTAINER, |edge| {
        edge.aliases[0].target = AliasTarget::Kit { service: Service::Files, index: 1 };
    });
    assert_eq!(bed.client().get(&name, "/", "").status, 200, "started on demand");
    bed.change(CONTAINER, |edge| edge.aliases[0].target = AliasTarget::Ssh);
    let reply = bed.client().get(&name, "/", "");
    assert_eq!((reply.status, reply.code()), (400, Some("SSH_ONLY")));
    assert!(reply.text().contains(&format!("ssh root@{name}")));
}

#[test]
fn a_name_that_leads_nowhere_is_the_same_404() {
    let bed = Bed::new(221);
    let _origin = bed.running();
    let name = named("shop");
    let unknown = bed.client().get(&named("unknown"), "/", "");
    assert_eq!((unknown.status, unknown.code()), (404, Some("NOT_FOUND")));
    let mut off = alias("shop");
    off.enabled = false;
    let mut over = alias("shop");
    // The clock of a worker may be one millisecond behind.
    over.expires_at_ms = Some(now_ms() - 1);
    for gone in [vec![off], vec![over], vec![]] {
        bed.change(CONTAINER, |edge| edge.aliases = gone.clone());
        let reply = bed.client().get(&name, "/", "");
        assert_eq!((reply.status, reply.code(), &reply.body), (404, unknown.code(), &unknown.body));
    }
    let mut later = alias("shop");
    later.expires_at_ms = Some(now_ms() + 600_000);
    bed.change(CONTAINER, |edge| edge.aliases = vec![later]);
    assert_eq!(bed.client().get(&name, "/", "").status, 200);
    bed.set_phase(CONTAINER, Phase::Stopped);
    assert_eq!(bed.client().get(&name, "/", "").code(), Some("CONTAINER_STOPPED"));
    bed.remove(CONTAINER);
    assert_eq!(bed.client().get(&name, "/", "").status, 404);
}

#[test]
fn a_landing_path_is_for_the_root_and_may_be_all_there_is() {
    let bed = Bed::new(222);
    let origin = bed.running();
    let name = named("shop");
    let mut shop = alias("shop");
    for (may_override, asked, want) in [
        (true, "/", Some("/app?a=1")),
        (true, "/?a=2&b=3", Some("/app?a=1&b=3")),
        (true, "/other?a=2", Some("/other?a=2")),
        (false, "/", Some("/app?a=1")),
        (false, "/app?a=2", Some("/app?a=1")),
        (false, "/other", None),
        (false, "/app/deeper", None),
    ] {
        shop.landing = Some(landing("/app?a=1", may_override));
        bed.change(CONTAINER, |edge| edge.aliases = vec![shop.clone()]);
        let reply = bed.client().get(&name, asked, "");
        match want {
            Some(want) => {
                assert_eq!(reply.status, 200, "{asked}");
                assert_eq!(origin.last().line(), format!("GET {want} HTTP/1.1"), "{asked}");
            }
            None => {
                assert_eq!(
                    (reply.status, reply.code()),
                    (404, Some("ALIAS_PATH_PINNED")),
                    "{asked}"
                );
            }
        }
    }
}

#[test]
fn an_alias_has_the_gate_of_its_container() {
    let bed = Bed::new(223);
    let origin = bed.running();
    let mut shop = alias("shop");
    shop.landing = Some(landing("/app", false));
    bed.change(CONTAINER, |edge| edge.aliases = vec![shop]);
    let group = json!([
        {"type": "token", "param": "key", "value": "s3cret"},
        {"type": "password", "username": "ann", "password": "right", "salt": "pepper"},
    ]);
    bed.gate(CONTAINER, &json!({"groups": {"g": group}, "permissions": {"g": {"http": 3000}}}));
    let name = named("shop");
    assert_eq!(bed.client().get(&name, "/", "").code(), Some("AUTHENTICATION_REQUIRED"));
    assert_eq!(bed.client().get(&name, "/?key=s3cret&a=1", "").status, 200);
    assert_eq!(origin.last().line(), "GET /app?a=1 HTTP/1.1");
    let page = bed.client().get(&name, "/.gantry/sign-in", "Accept: text/html\r\n");
    assert!(page.text().contains("<form"), "pinned or not, people can sign in");
}

#[test]
fn the_first_answer_of_a_reused_name_makes_browsers_forget() {
    let bed = Bed::new(224);
    let origin = bed.running();
    let mut shop = alias("shop");
    shop.clear_site_data = true;
    bed.change(CONTAINER, |edge| edge.aliases = vec![shop]);
    let name = named("shop");
    let reply = bed.client().get(&name, "/", "Cookie: old=secret; older=1\r\n");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.value("clear-site-data"), Some("\"cache\", \"storage\""));
    assert_eq!(origin.last().values("cookie"), [""; 0], "they were for somebody else");
    let cookies: Vec<&str> =
        reply.head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")).collect();
    assert_eq!(
        cookies[..2],
        ["old=; Path=/; Max-Age=0; Secure", "older=; Path=/; Max-Age=0; Secure"]
    );
    let seen = cookies[2].split(';').next().unwrap().to_owned();
    let reply = bed.client().get(&name, "/", &format!("Cookie: {seen}; new=1\r\n"));
    assert_eq!((reply.status, reply.value("clear-site-data")), (200, None));
    assert_eq!(origin.last().values("cookie"), ["new=1"]);
    // Nor does a note about the owner before count.
    let reply = bed.client().get(&name, "/", &format!("Cookie: {seen}0\r\n"));
    assert!(reply.value("clear-site-data").is_some());
    // A refusal is an answer, too.
    bed.set_phase(CONTAINER, Phase::Stopped);
    let reply = bed.client().get(&name, "/", "");
    assert_eq!(reply.code(), Some("CONTAINER_STOPPED"));
    assert!(reply.value("clear-site-data").is_some());
}

#[test]
fn a_custom_hostname_wants_a_connection_of_its_own() {
    let bed = Bed::new(225);
    let origin = bed.running();
    bed.change(CONTAINER, |edge| edge.aliases = vec![alias("shop")]);
    let reply = bed.custom_client(CUSTOM).get(CUSTOM, "/a", "");
    assert_eq!(reply.status, 200);
    assert_eq!(origin.last().values("host"), [CUSTOM]);
    // Not on a connection for another name, whatever its certificate covers.
    let shop = named("shop");
    for (mut client, sni) in [
        (bed.tls_client(&shop), shop.as_str()),
        (bed.custom_client("also.customer.example"), "also.customer.example"),
    ] {
        let reply = client.get(CUSTOM, "/", "");
        assert_eq!((reply.status, reply.code()), (421, Some("MISDIRECTED")), "{sni}");
    }
    let reply = bed.custom_client("also.customer.example").get("also.customer.example", "/", "");
    assert_eq!(reply.status, 404, "nobody has bound it");
    // The plain port leads known names to HTTPS, and no others.
    let plain = |name: &str| {
        let mut client = crate::client::Client::connect(bed.http());
        client.get(name, "/a?b", "")
    };
    let reply = plain(CUSTOM);
    assert_eq!(reply.status, 308);
    assert_eq!(reply.value("location"), Some("https://www.customer.example:8443/a?b"));
    assert_eq!(plain("also.customer.example").status, 404);
    // Who has a domain may prove that, by HTTPS or not; who has a name of the installation has no domain.
    let proof = "/.well-known/acme-challenge/token";
    let asked = |name: &str, path: &str| {
        crate::client::Client::connect(bed.http()).get(name, path, "").status
    };
    assert_eq!(asked(CUSTOM, proof), 308);
    let container = host(CONTAINER, "http-3000");
    for name in [shop.as_str(), &container, "api.gantry.localhost"] {
        assert_eq!((asked(name, proof), asked(name, "/.well-known/")), (404, 308), "{name}");
    }
    assert_eq!(asked(&shop.to_uppercase(), &format!("{proof}?a")), 404);
    assert_eq!(asked(&shop, &format!("http://{shop}{proof}")), 404);
    bed.change(CONTAINER, |edge| edge.aliases[0].enabled = false);
    assert_eq!(plain(CUSTOM).status, 404);
    assert_eq!(bed.custom_client(CUSTOM).get(CUSTOM, "/", "").status, 404);
}
