//! Hooks, with scripts behind the edge that a server of Python's own runs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use gantry_model::{Phase, hook::Hook};
use serde_json::{Value, json};

use crate::{
    bed::{Bed, CONTAINER, FILES_PORT, PROJECT, Setup, host},
    client::Reply,
    kit_ports::operators,
    origin::{self, Origin},
    python::{self, Program},
};

/// A container with a service on port 3000 and scripts.
struct Scene {
    bed: Bed,
    origin: Origin,
    seen: PathBuf,
    _scripts: Program,
}

/// What `hooks` says of the service `http`; nothing if there is no Python at the desk.
fn scene(number: u8, hooks: &Value) -> Option<Scene> {
    scene_with(Bed::new(number), hooks)
}

fn scene_with(bed: Bed, hooks: &Value) -> Option<Scene> {
    let origin = bed.running_with(|seen, stream| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        origin::reply(stream, "", &format!("{} {body}", seen.line()));
    });
    let seen = bed.log_path.with_file_name("seen");
    let address = SocketAddr::new(bed.container_address(2), FILES_PORT);
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let arguments = [&*ip, &*port, seen.to_str().unwrap()];
    let mut scripts = python::start("hook_scripts.py", &arguments)?;
    scripts.says("ready");
    set(&bed, hooks);
    Some(Scene { bed, origin, seen, _scripts: scripts })
}

fn set(bed: &Bed, hooks: &Value) {
    let hooks = Hook::all_from_json("hooks", &json!({ "http": hooks })).unwrap();
    bed.change(CONTAINER, |edge| edge.hooks = hooks);
}

/// A hook for everything.
fn hook(script: &str) -> Value {
    json!({ "match": {}, "script": { "path": format!("/{script}") }, "timeout": 2_000 })
}

impl Scene {
    fn ask(&self, method: &str, path: &str, fields: &str, body: &str) -> Reply {
        let name = host(CONTAINER, "http-3000");
        let mut client = self.bed.client();
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: {name}\r\n{fields}{length}\r\n{body}"
        ));
        client.reply()
    }

    fn get(&self, path: &str, fields: &str) -> Reply {
        self.ask("GET", path, fields, "")
    }

    /// What the scripts were asked.
    fn asked(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.seen).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn failed(reply: &Reply, status: u16) {
    assert_eq!((reply.status, reply.code()), (status, Some("HOOK_FAILED")), "{reply:?}");
}

#[test]
fn a_script_that_lets_a_request_go_on_has_seen_its_head_and_left_its_body() {
    let Some(scene) = scene(
        151,
        &json!([{
            "match": {}, "script": { "path": "/pass", "subdomain": "edge", "execId": "7" },
            "timeout": 2_000,
        }]),
    ) else {
        return;
    };
    let fields = "X-Forwarded-For: 6.6.6.6\r\nX-Gantry-Hook: {}\r\nContent-Type: text/x\r\n";
    let reply = scene.ask("POST", "/a?b=c", fields, "the body");
    assert_eq!((reply.status, &*reply.text()), (200, "POST /a?b=c HTTP/1.1 the body"));
    let asked = scene.asked();
    let [asked] = &*asked else { panic!("{asked:?}") };
    assert_eq!((&asked["method"], &asked["body"]), (&json!("POST"), &json!("")));
    assert_eq!(asked["target"], "/pass?execId=7");
    let name = host(CONTAINER, "http-3000");
    let fields = &asked["fields"];
    let exec = format!("edge.{PROJECT}-{CONTAINER}-exec-1.local.containers.gantry.localhost");
    assert_eq!(fields["host"], exec);
    assert_eq!(
        (&fields["x-forwarded-host"], &fields["content-type"]),
        (&json!(name), &json!("text/x"))
    );
    assert_eq!(fields["x-forwarded-for"], "127.0.0.1", "the edge's word, not the client's");
    let about = &asked["about"];
    assert_eq!(about["url"], format!("http://{name}/a?b=c"));
    assert_eq!(about["upstream"]["port"], 3000);
    assert_eq!(about["upstream"]["host"], scene.bed.container_address(2).to_string());
    assert_eq!(
        (&about["phase"], &about["service"], &about["index"], &about["contentLength"]),
        (&json!("head"), &json!("http"), &json!(3000), &json!(8))
    );
    assert_eq!(about["clientIp"], "127.0.0.1");
    assert_eq!(about["requestId"], fields["x-request-id"]);
    assert!(scene.origin.last().values("x-gantry-hook").is_empty());
}

#[test]
fn the_first_hook_that_matches_decides() {
    let Some(scene) = scene(
        152,
        &json!([
            { "match": { "path": "/open/*" }, "script": { "path": "/pass" } },
            { "match": { "method": "POST" }, "script": { "path": "/block" } },
            { "match": { "path": "/closed*", "headers": { "X-Mode": "b" } }, "script": { "path": "/block" } },
        ]),
    ) else {
        return;
    };
    for (method, path, fields, status, asked) in [
        ("GET", "/open/x", "", 200, 1),
        ("POST", "/open/x", "", 200, 1),
        ("POST", "/other", "", 451, 1),
        ("GET", "/other", "", 200, 0),
        ("GET", "/closed", "", 200, 0),
        ("GET", "/closed", "X-Mode: b\r\n", 451, 1),
        ("HEAD", "/closed", "X-Mode: a\r\nX-Mode: b\r\n", 451, 1),
        ("GET", "/x/..//%63losed", "X-Mode: b\r\n", 451, 1), // by no other spelling
        ("OPTIONS", "/closed", "X-Mode: b\r\n", 200, 0),
    ] {
        let before = scene.asked().len();
        let name = host(CONTAINER, "http-3000");
        let mut client = scene.bed.client();
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: {name}\r\n{fields}\r\n"));
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {head}");
        assert_eq!(scene.asked().len() - before, asked, "{method} {path}");
    }
}

#[test]
fn a_script_changes_what_goes_on_and_nobody_can_have_that_undone() {
    let Some(scene) = scene(153, &json!([hook("edit")])) else { return };
    let fields =
        "X-User: root\r\nX-Gone: 1\r\nCookie: a=1\r\nConnection: x-user, x-many\r\nX-Stays: 1\r\n";
    let reply = scene.ask("POST", "/old", fields, "body");
    assert_eq!(reply.text(), "POST /new?from=hook HTTP/1.1 body");
    let seen = scene.origin.last();
    assert_eq!(seen.values("x-user"), ["ann"]);
    assert_eq!(seen.values("x-many"), ["1", "2"]);
    assert_eq!(seen.values("x-stays"), ["1"]);
    assert!(seen.values("x-gone").is_empty() && seen.values("cookie").is_empty());
}

#[test]
fn a_script_that_answers_is_the_last_to_see_the_request() {
    let Some(scene) = scene(154, &json!([hook("block")])) else { return };
    let reply = scene.ask("POST", "/x", "", "unread");
    let url = format!("blocked: http://{}/x", host(CONTAINER, "http-3000"));
    assert_eq!((reply.status, reply.text()), (451, url));
    assert_eq!(reply.value("x-why"), Some("closed"));
    assert_eq!(reply.value("x-gantry-error"), None, "no script speaks for the edge");
    assert_eq!(reply.value("x-gantry-other"), None);
    assert!(reply.value("x-request-id").is_some());
    assert!(scene.origin.seen().is_empty());
    set(&scene.bed, &json!([hook("fetch")]));
    let reply = scene.get("/x", "");
    assert_eq!((reply.status, &*reply.text()), (200, "GET /fetched HTTP/1.1 "));
    assert_eq!(reply.value("x-by"), Some("script"));
}

#[test]
fn a_script_that_asks_for_the_body_gets_it_as_it_comes() {
    let Some(scene) = scene(155, &json!([hook("whole")])) else { return };
    let reply = scene.ask("POST", "/x", "", "the body");
    assert_eq!((reply.status, &*reply.text()), (200, "THE BODY"));
    let name = host(CONTAINER, "http-3000");
    let mut client = scene.bed.client();
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: {name}\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert!(client.head().starts_with("HTTP/1.1 100 "), "asked for when the script wants it");
    client.send("3\r\none\r\n4\r\n two\r\n0\r\n\r\n");
    assert_eq!(client.reply().text(), "ONE TWO");
    let phases: Vec<_> =
        scene.asked().iter().map(|asked| asked["about"]["phase"].clone()).collect();
    assert_eq!(phases, ["head", "body", "head", "body"]);
    assert!(scene.origin.seen().is_empty());
}

#[test]
fn a_script_gets_no_larger_body_than_a_service_would() {
    let mut setup = Setup::default();
    setup.limits.body_bytes_max = Some(10);
    let Some(scene) = scene_with(Bed::with(212, setup), &json!([hook("whole")])) else { return };
    assert_eq!(scene.ask("POST", "/", "", "0123456789").status, 200);
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (fields, body) in [("", "01234567890"), (chunked, "b\r\n01234567890\r\n0\r\n\r\n")] {
        let name = host(CONTAINER, "http-3000");
        let mut client = scene.bed.client();
        let length = format!("Content-Length: {}\r\n", body.len());
        let framing = if fields.is_empty() { &length } else { fields };
        client.send(format!("POST / HTTP/1.1\r\nHost: {name}\r\n{framing}\r\n{body}"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.code()), (413, Some("BODY_TOO_LARGE")), "{framing}");
    }
    assert!(scene.origin.seen().is_empty());
}

#[test]
fn a_script_that_does_not_decide_fails_the_request() {
    let Some(scene) = scene(156, &json!([])) else { return };
    for (script, status) in [
        ("broken", 502),
        ("nonsense", 502),
        ("loud", 502),
        ("greedy", 502),
        ("host", 502),
        ("framing", 502),
        ("many", 502),
        ("missing", 502),
    ] {
        set(&scene.bed, &json!([hook(script)]));
        failed(&scene.ask("POST", "/x", "", "body"), status);
    }
    let mut late = hook("late");
    late["timeout"] = json!(100);
    set(&scene.bed, &json!([late]));
    let began = std::time::Instant::now();
    failed(&scene.get("/x", ""), 504);
    assert!(began.elapsed() < Duration::from_secs(3), "before the script was done");
    assert!(scene.origin.seen().is_empty());
    set(&scene.bed, &json!([]));
    assert_eq!(scene.get("/x", "").status, 200, "without hooks nobody is asked");
}

#[test]
fn a_hook_whose_service_cannot_be_reached_fails_the_request() {
    let bed = Bed::with(
        157,
        Setup {
            program: Box::new(|_| Err(gantry_proxy::StartFailed("no such unit".to_owned()))),
            ..Setup::default()
        },
    );
    let _origin = bed.running();
    set(&bed, &json!([hook("pass")]));
    failed(&bed.client().get(&host(CONTAINER, "http-3000"), "/", ""), 502);
    bed.set_phase(CONTAINER, Phase::Stopped);
    let reply = bed.client().get(&host(CONTAINER, "http-3000"), "/", "");
    assert_eq!(reply.code(), Some("CONTAINER_STOPPED"));
}

#[test]
fn hooks_of_a_group_see_its_members_alone() {
    let Some(scene) = scene(
        158,
        &json!([{
            "match": {}, "script": { "path": "/block" }, "applies_to": { "groups": ["guests"] },
        }]),
    ) else {
        return;
    };
    scene.bed.gate(
        CONTAINER,
        &json!({
            "groups": { "guests": { "type": "token", "header": "X-Guest", "value": "g" },
                        "staff": { "type": "token", "header": "X-Staff", "value": "s" } },
            "permissions": {}, "default": "allow",
        }),
    );
    assert_eq!(scene.get("/", "").status, 200);
    assert_eq!(scene.get("/", "X-Staff: s\r\n").status, 200);
    assert_eq!(scene.get("/", "X-Guest: wrong\r\n").status, 200);
    assert_eq!(scene.get("/", "X-Guest: g\r\n").status, 451);
    let asked = scene.asked();
    let [asked] = &*asked else { panic!("{asked:?}") };
    assert_eq!(asked["fields"].get("x-guest"), None, "a credential stays at the edge");
}

#[test]
fn the_hooks_of_a_kit_service_see_what_comes_by_its_port() {
    let setup = Setup { kit: operators, ..Setup::default() };
    let Some(scene) = scene_with(Bed::with(128, setup), &json!([hook("pass")])) else { return };
    assert_eq!(scene.get("/", "").status, 200);
    let mut of_guests = hook("block");
    of_guests["applies_to"] = json!({ "groups": ["guests"] });
    for (terminal, want) in [(&of_guests, [200, 451]), (&hook("block"), [451, 451])] {
        let hooks = json!({ "http": [hook("pass")], "terminal": [terminal] });
        let hooks = Hook::all_from_json("hooks", &hooks).unwrap();
        scene.bed.change(CONTAINER, |edge| edge.hooks = hooks);
        scene.bed.gate(
            CONTAINER,
            &json!({
                "groups": { "guests": { "type": "token", "header": "X-Guest", "value": "g" } },
                "permissions": {}, "default": "allow",
            }),
        );
        assert_eq!(["", "X-Guest: g\r\n"].map(|fields| scene.get("/", fields).status), want);
    }
}

#[test]
fn a_websocket_is_hooked_at_its_handshake() {
    let Some(scene) = scene(76, &json!([hook("pass")])) else { return };
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(scene.get("/ws", fields).status, 200, "the service has not switched");
    assert_eq!(scene.origin.last().values("upgrade"), ["websocket"], "but was asked to");
    let asked = scene.asked();
    assert_eq!(asked[0]["about"]["webSocket"], true);
    assert_eq!(asked[0]["fields"].get("upgrade"), None, "the script is asked, not connected");
    set(&scene.bed, &json!([hook("block")]));
    assert_eq!(scene.get("/ws", fields).status, 451);
}
