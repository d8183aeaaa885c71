//! What a client is told when there is no answer of a container.

use gantry_model::Phase;

use crate::bed::{Bed, CONTAINER, host, now_ms};

struct Case {
    service: &'static str,
    phase: Phase,
    status: u16,
    code: &'static str,
    retry_after: Option<&'static str>,
    says: &'static str,
}

const CASES: [Case; 9] = [
    Case {
        service: "http-3000",
        phase: Phase::Stopped,
        status: 503,
        code: "CONTAINER_STOPPED",
        retry_after: Some("30"),
        says: "the container is stopped",
    },
    Case {
        service: "http-3000",
        phase: Phase::Stopping,
        status: 503,
        code: "CONTAINER_STOPPED",
        retry_after: Some("30"),
        says: "the container is stopped",
    },
    Case {
        service: "http-3000",
        phase: Phase::Paused,
        status: 503,
        code: "CONTAINER_PAUSED",
        retry_after: Some("30"),
        says: "the container is paused",
    },
    Case {
        service: "http-3000",
        phase: Phase::Starting,
        status: 503,
        code: "CONTAINER_STARTING",
        retry_after: Some("1"),
        says: "the container is starting",
    },
    Case {
        service: "http-3000",
        phase: Phase::Creating,
        status: 503,
        code: "CONTAINER_STARTING",
        retry_after: Some("1"),
        says: "the container is starting",
    },
    Case {
        service: "http-3000",
        phase: Phase::Failed,
        status: 503,
        code: "CONTAINER_FAILED",
        retry_after: Some("30"),
        says: "the container has failed",
    },
    Case {
        service: "http-3000",
        phase: Phase::Running,
        status: 502,
        code: "PORT_CLOSED",
        retry_after: None,
        says: "the container is running, but nothing listens on 3000",
    },
    Case {
        service: "display-1",
        phase: Phase::Running,
        status: 501,
        code: "SERVICE_NOT_PROVIDED",
        retry_after: None,
        says: "the service display is not provided by this version, and no program of the container \
               listens on its port 7101",
    },
    Case {
        service: "ssh",
        phase: Phase::Running,
        status: 400,
        code: "SSH_ONLY",
        retry_after: None,
        says: "this name serves SSH",
    },
];

#[test]
fn every_failure_has_three_forms_that_say_the_same() {
    let bed = Bed::new(60);
    for case in CASES {
        bed.set(CONTAINER, case.phase, 1);
        let name = host(CONTAINER, case.service);
        let what = case.code;
        let mut client = bed.client();
        for (fields, kind) in [
            ("Sec-Fetch-Mode: navigate\r\nAccept: */*\r\n", "text/html; charset=utf-8"),
            ("Accept: text/html,*/*;q=0.8\r\n", "text/html; charset=utf-8"),
            ("Sec-Fetch-Mode: cors\r\nAccept: text/html\r\n", "application/json"),
            ("Accept: application/json\r\n", "application/json"),
            ("Accept: */*\r\n", "text/plain; charset=utf-8"),
            ("", "text/plain; charset=utf-8"),
        ] {
            let reply = client.get(&name, "/", fields);
            assert_eq!(reply.status, case.status, "{what}");
            assert_eq!(reply.value("content-type"), Some(kind), "{what} {fields:?}");
            assert_eq!(reply.code(), Some(case.code));
            assert_eq!(reply.value("x-hoody-error-code"), Some(case.code));
            assert_eq!(reply.value("retry-after"), case.retry_after, "{what}");
            assert_eq!(reply.value("cache-control"), Some("no-store"));
            let id = reply.value("x-request-id").unwrap();
            assert_eq!(id.len(), 32);
            let text = reply.text();
            assert!(text.contains(case.says), "{what}: {text}");
            match kind {
                "application/json" => {
                    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(json["statusCode"], case.status);
                    assert_eq!(json["code"], case.code);
                    assert_eq!(json["requestId"], id);
                    assert!(json["error"].is_string() && json["message"].is_string());
                }
                "text/html; charset=utf-8" => {
                    assert!(text.len() < 10_000, "{} octets", text.len());
                    assert!(text.contains("<html lang=en>") && text.contains("<title>"));
                    assert!(text.contains(id) && text.contains(case.code));
                    assert!(
                        !text.contains("src=") && !text.contains("href="),
                        "nothing from outside"
                    );
                    let refreshes = text.contains("http-equiv=refresh");
                    assert_eq!(refreshes, case.code == "CONTAINER_STARTING", "{what}");
                    let policy = reply.value("content-security-policy").unwrap();
                    assert!(policy.starts_with("default-src 'none'"));
                }
                _ => assert!(text.lines().count() == 1, "{text}"),
            }
        }
    }
}

#[test]
fn a_container_that_has_just_started_may_not_have_opened_its_port_yet() {
    let bed = Bed::new(61);
    bed.set_at(CONTAINER, Phase::Running, 1, bed.container_address(2), now_ms());
    let reply = bed.client().get(&host(CONTAINER, "http-3000"), "/", "Accept: text/html\r\n");
    assert_eq!((reply.status, reply.code()), (502, Some("PORT_CLOSED")));
    assert_eq!(reply.value("retry-after"), Some("1"), "answered at once; the client decides");
    assert!(reply.text().contains("http-equiv=refresh"));
}

#[test]
fn an_ssh_name_tells_its_command_whether_or_not_it_exists() {
    let bed = Bed::new(62);
    bed.set(CONTAINER, Phase::Running, 1);
    for name in [
        host(CONTAINER, "ssh"),
        host(CONTAINER, "ssh-22"),
        host(&"c".repeat(24), "ssh"),
        "ssh.local.containers.gantry.localhost".to_owned(),
    ] {
        let reply = bed.client().get(&name, "/", "");
        assert_eq!((reply.status, reply.code()), (400, Some("SSH_ONLY")), "{name}");
        assert!(reply.text().contains(&format!("ssh root@{name}")), "{}", reply.text());
    }
    let elsewhere = "ssh.other.containers.gantry.localhost";
    assert_eq!(bed.client().get(elsewhere, "/", "").status, 404, "another server's gate");
}

#[test]
fn a_head_request_gets_the_head_alone() {
    let bed = Bed::new(63);
    bed.set(CONTAINER, Phase::Stopped, 1);
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    client.send(format!("HEAD / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    assert!(client.head().starts_with("HTTP/1.1 503"));
    assert_eq!(client.get(&name, "/", "").status, 503, "the connection goes on right behind it");
}
