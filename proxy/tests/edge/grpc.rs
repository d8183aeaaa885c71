//! Containers that speak HTTP/2: gRPC from end to end, and trailers over every pair of versions.

use std::{net::SocketAddr, path::Path};

use gantry_model::Phase;
use serde_json::Value;

use crate::{
    bed::{Bed, CONTAINER, host},
    origin::send,
    python::{self, Program},
};

/// Starts a program of the container on `port`.
fn program(bed: &Bed, script: &str, port: u16) -> Option<Program> {
    bed.set(CONTAINER, Phase::Running, 1);
    python::serve(script, SocketAddr::new(bed.container_address(2), port))
}

#[test]
fn calls_of_all_kinds_share_one_connection_to_the_container() {
    let bed = Bed::new(140);
    let Some(_service) = program(&bed, "grpc_service.py", 3000) else { return };
    let name = host(CONTAINER, "http-3000");
    python::ask(&bed, "grpc_client.py", &name, &["calls"]).unwrap().ends();
    assert!((bed.metric("gantry_proxy_upstream_connects_total") - 1.0).abs() < f64::EPSILON);
    let lines = bed.finish();
    let line = lines.iter().find(|line| line["path"] == "/test.Test/Unary").unwrap();
    assert_eq!((&line["status"], &line["protocol"]), (&200.into(), &"http2".into()));
    assert!(!lines.iter().any(|line| line["error"].is_string()), "{lines:?}");
}

/// Makes a certificate as a container's owner would: the paths of the chain and the key.
fn certificate(directory: &Path) -> [String; 2] {
    let names = vec!["of.the.container".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let write = |name: &str, pem: String| {
        let path = directory.join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    [write("certificate", made.cert.pem()), write("key", made.signing_key.serialize_pem())]
}

#[test]
fn a_service_behind_tls_is_found_to_speak_http2() {
    let bed = Bed::new(141);
    let directory = tempfile::tempdir().unwrap();
    let tls = certificate(directory.path());
    bed.set(CONTAINER, Phase::Running, 1);
    let address = bed.container_address(2).to_string();
    let arguments = [&*address, "3443", &*tls[0], &*tls[1]];
    let Some(mut service) = python::start("grpc_service.py", &arguments) else { return };
    service.says("ready");
    let name = host(CONTAINER, "https-3443");
    python::ask(&bed, "grpc_client.py", &name, &["calls"]).unwrap().ends();
    assert!((bed.metric("gantry_proxy_upstream_connects_total") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn a_port_behind_tls_is_told_the_name_as_typed() {
    let directory = tempfile::tempdir().unwrap();
    let [chain, key] = certificate(directory.path());
    for (number, protocols, spoken) in
        [(148, &[][..], "None"), (149, &["http/1.1"], "http/1.1"), (150, &["other"], "None")]
    {
        let bed = Bed::new(number);
        bed.set(CONTAINER, Phase::Running, 1);
        let address = bed.container_address(2).to_string();
        let arguments = [&[&*address, "3443", &*chain, &*key], protocols].concat();
        let Some(mut origin) = python::start("https_origin.py", &arguments) else { return };
        origin.says("ready");
        let name = host(CONTAINER, "https-3443");
        let mut client = bed.client();
        for _ in 0..2 {
            let answer = client.get(&name, "/", "");
            assert_eq!(answer.text(), format!("{name} {name} {spoken}"), "{protocols:?}");
        }
        assert!((bed.metric("gantry_proxy_upstream_connects_total") - 1.0).abs() < f64::EPSILON);
    }
}

#[test]
fn stopping_a_container_ends_its_calls() {
    let bed = Bed::new(142);
    let Some(_service) = program(&bed, "grpc_service.py", 3000) else { return };
    let name = host(CONTAINER, "http-3000");
    let mut client = python::ask(&bed, "grpc_client.py", &name, &["until-cut"]).unwrap();
    client.says("open");
    bed.set(CONTAINER, Phase::Stopping, 1);
    client.ends();
}

#[test]
fn a_call_to_what_is_not_there_is_unavailable() {
    let bed = Bed::new(143);
    bed.set(CONTAINER, Phase::Running, 1);
    let name = host(CONTAINER, "http-3000");
    let Some(client) = python::ask(&bed, "grpc_client.py", &name, &["unreachable"]) else { return };
    client.ends();
    // Something is there, but it speaks HTTP/1.1 alone.
    let _origin = bed.running_with(|_, stream| send(stream, "HTTP/1.1 400 Bad Request\r\n\r\n"));
    python::ask(&bed, "grpc_client.py", &name, &["unreachable"]).unwrap().ends();
}

#[test]
fn a_port_that_speaks_only_http2_is_found_out() {
    let bed = Bed::new(144);
    let Some(_origin) = program(&bed, "h2c_origin.py", 3000) else { return };
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    for _ in 0..3 {
        let answer = client.get(&name, "/page?x=1", "X-Mine: 1\r\nKeep-Alive: 5\r\n");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told: Value = serde_json::from_slice(&answer.body).unwrap();
        let fields: Vec<(String, String)> = serde_json::from_value(told["fields"].clone()).unwrap();
        let values = |name: &str| {
            let of_name = fields.iter().filter(|(field, _)| field == name);
            of_name.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        assert_eq!(values(":authority"), [&*name]);
        assert_eq!(values(":path"), ["/page?x=1"]);
        assert_eq!(values("x-mine"), ["1"]);
        assert_eq!(values("x-forwarded-for"), ["127.0.0.1"]);
        for none in ["host", "connection", "keep-alive", "te"] {
            assert!(values(none).is_empty(), "{none} in {fields:?}");
        }
    }
    assert!((bed.metric("gantry_proxy_upstream_connects_total") - 2.0).abs() < f64::EPSILON);
}

/// What `trailers_h2.py` shows of an answer.
fn trailers_over_http2(bed: &Bed) -> Option<Value> {
    let name = host(CONTAINER, "http-3000");
    let shown = python::ask(bed, "trailers_h2.py", &name, &[])?.ends();
    Some(serde_json::from_str(&shown).unwrap())
}

#[test]
fn trailers_pass_from_http2_to_http2() {
    let bed = Bed::new(145);
    let Some(_origin) = program(&bed, "h2c_origin.py", 3000) else { return };
    // A request without a body finds the version out.
    assert_eq!(bed.client().get(&host(CONTAINER, "http-3000"), "/", "").status, 200);
    let answer = trailers_over_http2(&bed).unwrap();
    assert_eq!(answer["trailers"]["x-told"], answer["body"].as_str().unwrap().len().to_string());
    let told: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(told["body"], "abc");
    assert_eq!(told["trailers"], serde_json::json!([["x-sum", "7"]]));
    let fields = told["fields"].as_array().unwrap();
    assert!(fields.contains(&serde_json::json!(["te", "trailers"])), "{told}");
}

#[test]
fn trailers_pass_from_http1_to_http2() {
    let bed = Bed::new(146);
    let Some(_origin) = program(&bed, "h2c_origin.py", 3000) else { return };
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    assert_eq!(client.get(&name, "/", "").status, 200);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: {name}\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
         Trailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n"
    ));
    let answer = client.reply().text();
    let (body, trailers) = answer.split_at(answer.rfind('}').unwrap() + 1);
    assert_eq!(trailers.trim_end(), format!("x-told: {}", body.len()));
    let told: Value = serde_json::from_str(body).unwrap();
    assert_eq!(told["trailers"], serde_json::json!([["x-sum", "7"]]));
}

#[test]
fn trailers_pass_from_http2_to_http1() {
    let bed = Bed::new(147);
    let origin = bed.running_with(|_, stream| {
        send(
            stream,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
        );
    });
    let Some(answer) = trailers_over_http2(&bed) else { return };
    assert_eq!((&answer["body"], &answer["trailers"]["x-sum"]), (&"abc".into(), &"7".into()));
    let seen = origin.last();
    assert_eq!(seen.values("te"), ["trailers"]);
    assert_eq!(String::from_utf8(seen.body).unwrap().to_lowercase(), "abcx-sum: 7");
}
