//! What owners see of the requests to their containers: the service `logs`.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::StreamExt;
use gantry_model::Phase;
use gantry_proxy::{LogsConfig, NoTail};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    bed::{Bed, CONTAINER, PROJECT, Setup, host, now_ms},
    client::Reply,
    follower::{Follower, follow},
    http2,
    origin::{Origin, reply, send},
    python,
};

const OTHER: &str = "cccccccccccccccccccccccc";

fn ask(bed: &Bed, container: &str, path: &str, fields: &str) -> Reply {
    bed.client().get(&host(container, "logs-1"), path, fields)
}

fn list(bed: &Bed, query: &str) -> Value {
    let reply = ask(bed, CONTAINER, &format!("/_logs{query}"), "");
    assert_eq!(reply.status, 200, "{query} {reply:?}");
    serde_json::from_slice(&reply.body).unwrap()
}

fn get(bed: &Bed, path: &str) -> Reply {
    bed.client().get(&host(CONTAINER, "http-3000"), path, "")
}

#[test]
fn a_request_and_its_answer_share_a_trace_and_tell_what_happened() {
    let bed = Bed::new(27);
    let _origin = bed.running();
    let mut follower = follow(&bed);
    let answer = get(&bed, "/a%20b?c=d");
    let request = follower.event().unwrap().data;
    let response = follower.response();
    let name = host(CONTAINER, "http-3000");
    for entry in [&request, &response] {
        assert_eq!(entry["traceId"], answer.value("x-request-id").unwrap(), "{entry}");
        assert_eq!(entry["projectId"], PROJECT);
        assert_eq!(entry["containerId"], CONTAINER);
        assert_eq!(entry["serviceName"], "http-3000");
        assert_eq!((&entry["method"], &entry["clientIp"]), (&json!("GET"), &json!("127.0.0.1")));
        assert_eq!(entry["url"], format!("https://{name}:8443/a%20b?c=d"));
        assert_eq!(
            (&entry["level"], entry["data"]["protocol"].as_str()),
            (&json!("info"), Some("http1"))
        );
        let time = entry["tsIso"].as_str().unwrap();
        assert!(
            time.len() == 24 && time.ends_with('Z') && entry["tsMs"].as_i64() > Some(0),
            "{time}"
        );
    }
    assert_eq!((&request["kind"], &request["status"]), (&json!("request"), &Value::Null));
    assert_eq!((&response["status"], &response["source"]), (&json!(200), &json!("backend")));
    assert_eq!((&response["data"]["sent"], &response["data"]["received"]), (&json!(6), &json!(0)));
    // The log's own requests are not logged.
    assert_eq!(list(&bed, "")["total"], 2);
}

#[test]
fn refused_and_failed_requests_are_logged_without_their_credentials() {
    let bed = Bed::new(28);
    let _origin = bed.running();
    bed.gate(
        CONTAINER,
        &json!({"groups": {"g": [{"type": "token", "param": "mine", "value": "s3cret"}], "all": {"type": "ip", "range": "127.0.0.0/8"}},
                "permissions": {"g": {"http": [3000, 3001]}, "all": {"logs": true}}, "default": "deny"}),
    );
    let mut follower = follow(&bed);
    let name = |service: &str| host(CONTAINER, service);
    let basic = "Authorization: Basic czNjcmV0\r\nCookie: a=s3cret\r\nX-Api-Key: s3cret\r\n";
    for (service, path, status, level, error, url) in [
        ("http-3000", "/?mine=s3cret", 200, "info", Value::Null, "/?mine=REDACTED"),
        ("http-3000", "/?mine=s3crets", 403, "warn", "ACCESS_DENIED".into(), "/?mine=REDACTED"),
        (
            "http-3001",
            "/?mine=s3cret&x=1",
            502,
            "error",
            "PORT_CLOSED".into(),
            "/?mine=REDACTED&x=1",
        ),
        (
            "terminal-2",
            "/?access_token=s3cret",
            403,
            "warn",
            "ACCESS_DENIED".into(),
            "/?access_token=REDACTED",
        ),
    ] {
        assert_eq!(bed.client().get(&name(service), path, basic).status, status, "{path}");
        let entry = follower.response();
        assert_eq!((&entry["status"], &entry["level"]), (&json!(status), &json!(level)), "{entry}");
        assert_eq!((&entry["serviceName"], &entry["data"]["error"]), (&json!(service), &error));
        assert_eq!(entry["source"], if status == 200 { "backend" } else { "edge" });
        assert!(entry["url"].as_str().unwrap().ends_with(url), "{entry}");
    }
    bed.set_phase(CONTAINER, Phase::Paused);
    assert_eq!(get(&bed, "/?mine=s3cret").status, 503);
    let entry = follower.response();
    assert_eq!(
        (&entry["level"], &entry["data"]["error"]),
        (&json!("error"), &json!("CONTAINER_PAUSED"))
    );
    let all = list(&bed, "").to_string();
    assert!(!all.contains("s3cret") && !all.contains("czNjcmV0"), "{all}");
}

#[test]
fn a_list_shows_pages_ends_and_what_was_filtered() {
    let bed = Bed::new(29);
    let _origin = bed.running();
    let mut follower = follow(&bed);
    for path in ["/1", "/2", "/3"] {
        get(&bed, path);
        follower.response();
    }
    bed.client().get(&host(CONTAINER, "http-9"), "/4", "");
    follower.response();
    let mut client = bed.client();
    client.send(format!(
        "POST /5 HTTP/1.1\r\nHost: {}\r\nContent-Length: 2\r\n\r\nab",
        host(CONTAINER, "http-3000")
    ));
    client.reply();
    let last = follower.response();
    assert_eq!(last["data"]["received"], 2);
    let paths = |value: &Value| -> Vec<String> {
        let path =
            |entry: &Value| entry["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        value.as_array().unwrap().iter().map(path).collect()
    };
    let all = list(&bed, "");
    assert_eq!(
        (&all["total"], &all["limit"], &all["offset"]),
        (&json!(10), &json!(100), &json!(0))
    );
    assert_eq!(paths(&list(&bed, "?kind=response")["entries"]), ["5", "4", "3", "2", "1"]);
    let page = list(&bed, "?kind=response&limit=2&offset=1");
    assert_eq!(
        (paths(&page["entries"]), &page["total"]),
        (vec!["4".into(), "3".into()], &json!(5))
    );
    assert_eq!(paths(&list(&bed, "?last=3")), ["4", "5", "5"], "oldest first");
    let id = list(&bed, "?last=4")[0]["id"].as_u64().unwrap();
    assert_eq!(paths(&list(&bed, &format!("?afterId={id}"))), ["4", "5", "5"]);
    assert_eq!(paths(&list(&bed, "?last=9&level=error")), ["4"]);
    assert_eq!(paths(&list(&bed, "?last=9&method=post&source=backend")), ["5"]);
    assert_eq!(list(&bed, "?level=warn,error")["total"], 0, "no entry has two levels");
    assert_eq!(list(&bed, "?projectId=x&containerId=y&serviceName=z")["total"], 10);
    assert!(list(&bed, "?last=1&includeRequestBody=true")["entries"].is_array());
    for (query, field) in
        [("?level=high", "level"), ("?cursor=x", "cursor"), ("?limit=5000", "limit")]
    {
        let reply = ask(&bed, CONTAINER, &format!("/_logs{query}"), "");
        assert_eq!((reply.status, reply.code()), (400, Some("BAD_REQUEST")));
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(body["data"][0]["field"], field, "{body}");
    }
    let stats: Value =
        serde_json::from_slice(&ask(&bed, CONTAINER, "/_logs/stats", "").body).unwrap();
    assert_eq!(
        stats,
        json!({"total": 10, "byLevel": {"debug": 0, "info": 9, "warn": 0, "error": 1},
               "byProject": {PROJECT: 10}, "byContainer": {CONTAINER: 10},
               "byService": {"http-3000": 8, "http-9": 2}})
    );
}

#[test]
fn the_service_has_four_paths_and_is_only_read() {
    let bed = Bed::new(76);
    bed.set(CONTAINER, Phase::Stopped, 1);
    let name = host(CONTAINER, "logs-1");
    let page = bed.client().get(&name, "/", "");
    assert_eq!(page.status, 200, "whether the container runs or not");
    assert!(page.value("content-security-policy").unwrap().contains("script-src 'sha256-"));
    for path in ["/_logs/config", "/_logs/health", "/_logs/export", "/_logs/db/x", "/x", "/_logs/"]
    {
        let reply = bed.client().get(&name, path, "");
        assert_eq!((reply.status, reply.code()), (404, Some("NOT_FOUND")), "{path}");
    }
    for method in ["DELETE", "POST", "PUT"] {
        let mut client = bed.client();
        client
            .send(format!("{method} /_logs HTTP/1.1\r\nHost: {name}\r\nContent-Length: 0\r\n\r\n"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.code()), (405, Some("METHOD_NOT_ALLOWED")));
        assert_eq!(reply.value("allow"), Some("GET, HEAD"));
    }
    for path in ["/", "/_logs", "/_logs/stream"] {
        let mut client = bed.client();
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        assert!(client.head().starts_with("HTTP/1.1 200"), "{path}");
    }
    assert_eq!(bed.client().get(&host(OTHER, "logs-1"), "/_logs", "").status, 404);
}

#[test]
fn a_permission_document_opens_logs_by_a_literal_true_alone() {
    let bed = Bed::new(77);
    let _origin = bed.running();
    assert_eq!(ask(&bed, CONTAINER, "/_logs", "").status, 200, "open while nothing gates it");
    let gate = |cells: &Value| {
        let group = json!({"type": "ip", "range": "127.0.0.0/8"});
        let document =
            json!({"groups": {"g": group}, "permissions": {"g": cells}, "default": "allow"});
        bed.gate(CONTAINER, &document);
    };
    for (cells, status) in [
        (json!({"http": true}), 403),
        (json!({"http": true, "logs": "*"}), 403),
        (json!({"http": true, "logs": false}), 403),
        (json!({"http": true, "logs": true}), 200),
    ] {
        gate(&cells);
        assert_eq!(ask(&bed, CONTAINER, "/_logs", "").status, status, "{cells}");
    }
    let mut follower = Follower::new(&bed, CONTAINER, "", "");
    follower.past();
    gate(&json!({"http": true, "logs": true, "files": true}));
    get(&bed, "/still");
    follower.response();
    gate(&json!({"http": true}));
    assert!(std::iter::from_fn(|| follower.event()).all(|event| event.name.is_empty()), "cut");
}

#[test]
fn reads_of_one_address_are_few() {
    let bed = Bed::new(117);
    bed.set(CONTAINER, Phase::Running, 1);
    bed.set_at(OTHER, Phase::Running, 1, bed.container_address(3), 0);
    let first = (0..40).find(|_| ask(&bed, CONTAINER, "/_logs/stats", "").status == 429);
    assert!(first.is_some_and(|first| (30..33).contains(&first)), "{first:?}");
    let reply = ask(&bed, CONTAINER, "/_logs/stream", "");
    assert_eq!((reply.status, reply.value("retry-after")), (429, Some("2")));
    assert_eq!(reply.text(), r#"{"error":"rate_limited"}"#);
    assert_eq!(ask(&bed, OTHER, "/_logs", "").status, 200, "each container counts for itself");
    assert_eq!(ask(&bed, CONTAINER, "/", "").status, 200);
}

#[test]
fn a_stream_goes_on_where_its_reader_was() {
    let logs =
        LogsConfig { entries_per_container: 4, streams_per_container: 2, ..LogsConfig::default() };
    let bed = Bed::with(118, Setup { logs, ..Setup::default() });
    let _origin = bed.running();
    let mut first = follow(&bed);
    get(&bed, "/1");
    let one = first.response();
    let resume = |id: u64| Follower::new(&bed, CONTAINER, "", &format!("Last-Event-ID: {id}\r\n"));
    let id = one["id"].as_u64().unwrap();
    let mut second = resume(id - 1);
    assert_eq!(second.response()["id"], id, "what it has is not sent again");
    let full = ask(&bed, CONTAINER, "/_logs/stream", "");
    assert_eq!((full.status, full.code()), (429, Some("TOO_MANY_REQUESTS")));
    bed.wait_metric("gantry_proxy_logs_streams_refused_total", 1.0);
    drop(second);
    for path in ["/2", "/3", "/4"] {
        get(&bed, path);
        first.response();
    }
    bed.wait_metric("gantry_proxy_connections_open", 1.0);
    let mut late = resume(id);
    let gap = late.event().unwrap();
    assert_eq!(gap.name, "gap");
    assert_eq!(gap.data, json!({"after": id, "resumedFrom": id + 3}));
    assert_eq!(late.event().unwrap().id, Some(id + 3));
    drop(late);
    bed.wait_metric("gantry_proxy_connections_open", 1.0);
    let mut strange = resume(id + 1_000_000);
    let reset = strange.event().unwrap();
    assert_eq!(reset.name, "reset");
    assert_eq!(strange.past().len(), 4);
}

#[test]
fn a_restart_of_the_edge_resets_those_who_come_back() {
    let id = {
        let bed = Bed::new(58);
        let _origin = bed.running();
        let mut follower = follow(&bed);
        get(&bed, "/before");
        follower.response()["id"].as_u64().unwrap()
    };
    let bed = Bed::new(58);
    let _origin = bed.running();
    let mut follower = Follower::new(&bed, CONTAINER, "", &format!("Last-Event-ID: {id}\r\n"));
    assert_eq!(follower.event().unwrap().name, "reset");
    assert!(follower.past().is_empty());
    get(&bed, "/after");
    assert!(follower.response()["id"].as_u64() > Some(id + 10_000));
}

#[test]
fn a_stream_is_filtered_and_ends_with_its_container() {
    let bed = Bed::new(59);
    let _origin = bed.running();
    bed.set_at(OTHER, Phase::Running, 1, bed.container_address(3), 0);
    let mut all = Follower::new(&bed, OTHER, "", "");
    let mut own = follow(&bed);
    let mut errors = Follower::new(&bed, CONTAINER, "?level=error&kind=response", "");
    let mut files = Follower::new(&bed, CONTAINER, "?serviceName=files&kind=response&last=0", "");
    assert!(all.past().is_empty() && errors.past().is_empty() && files.past().is_empty());
    get(&bed, "/fine");
    bed.client().get(&host(CONTAINER, "http-9"), "/closed", "");
    bed.client().get(&host(CONTAINER, "files-1"), "/file", "");
    assert!(own.response()["url"].as_str().unwrap().ends_with("/fine"));
    assert!(errors.response()["url"].as_str().unwrap().ends_with("/closed"));
    assert_eq!(files.response()["serviceName"], "files-1");
    bed.remove(OTHER);
    assert_eq!(all.event().unwrap().name, "scope-destroyed", "and nothing of the other one");
    assert!(all.event().is_none());
    bed.remove(CONTAINER);
    let ends =
        |mut follower: Follower| std::iter::from_fn(move || follower.event()).last().unwrap();
    assert_eq!(ends(errors).name, "scope-destroyed");
    assert_eq!(ask(&bed, CONTAINER, "/_logs", "").status, 404);
}

#[test]
fn what_becomes_of_a_container_is_told() {
    let bed = Bed::new(64);
    let _origin = bed.running();
    let mut follower = Follower::new(&bed, CONTAINER, "?kind=event", "");
    assert!(follower.past().is_empty());
    let mut told = |phase, generation| {
        bed.set(CONTAINER, phase, generation);
        let data = follower.event().unwrap().data;
        assert_eq!((&data["traceId"], &data["level"].is_string()), (&Value::Null, &true));
        data["data"]["event"].as_str().unwrap().to_owned()
    };
    assert_eq!(told(Phase::Paused, 1), "paused");
    assert_eq!(told(Phase::Running, 1), "resumed");
    assert_eq!(told(Phase::Stopped, 1), "stopped");
    assert_eq!(told(Phase::Running, 2), "started");
    assert_eq!(told(Phase::Running, 3), "started");
}

#[test]
fn bodies_are_kept_where_the_owner_wants_them() {
    let bed = Bed::new(65);
    let _origin = bed.running_with(|seen, stream| {
        if seen.line().contains("/large") {
            reply(stream, "content-type: text/plain", &"y".repeat(100_000));
        } else if seen.line().contains("/image") {
            reply(stream, "content-type: image/png", "png");
        } else {
            let fields = "content-type: application/json\r\nset-cookie: a=s3cret";
            reply(stream, fields, r#"{"token":"s3cret","n":1}"#);
        }
    });
    let mut follower = follow(&bed);
    let post = |path: &str| {
        let body = "name=ann&password=s3cret";
        let mut client = bed.client();
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nAuthorization: Bearer s3cret\r\n\r\n{body}",
            host(CONTAINER, "http-3000"),
            body.len()
        ));
        assert_eq!(client.reply().status, 200);
    };
    post("/without");
    follower.response();
    let with = "?includeRequestBody=true&includeResponseBody=true";
    let all = list(&bed, with).to_string();
    assert!(!all.contains("ann") && !all.contains("requestBody"), "{all}");
    bed.change(CONTAINER, |edge| edge.settings.log_bodies = true);
    for path in ["/small", "/large", "/image"] {
        post(path);
        follower.response();
    }
    let open = list(&bed, with).to_string();
    assert!(!open.contains("ann") && !open.contains("headers"), "for nobody in particular: {open}");
    let document = json!({
        "groups": {"g": {"type": "ip", "range": "127.0.0.0/8"}},
        "permissions": {"g": {"http": true, "logs": true}}
    });
    bed.gate(CONTAINER, &document);
    let shown = list(&bed, &format!("{with}&limit=6"));
    let entries = shown["entries"].as_array().unwrap();
    let of = |path: &str, kind: &str| {
        let is = |entry: &&Value| {
            entry["kind"] == kind && entry["url"].as_str().unwrap().ends_with(path)
        };
        entries.iter().find(is).unwrap()
    };
    let request = of("/small", "request");
    assert_eq!(request["requestBody"], "name=ann&password=REDACTED");
    assert_eq!(request["data"]["headers"]["authorization"], "REDACTED");
    let response = of("/small", "response");
    assert_eq!(response["responseBody"], r#"{"n":1,"token":"REDACTED"}"#);
    assert_eq!(
        (&response["bodyTruncated"], &response["data"]["headers"]["set-cookie"]),
        (&json!(false), &json!("REDACTED"))
    );
    let large = of("/large", "response");
    assert_eq!(large["responseBody"].as_str().unwrap().len(), 65_536);
    assert_eq!((&large["bodyTruncated"], &large["data"]["sent"]), (&json!(true), &json!(100_000)));
    let image = of("/image", "response");
    assert_eq!((&image["responseBody"], &image["bodyTruncated"]), (&Value::Null, &json!(true)));
    assert!(!shown.to_string().contains("s3cret"));
    assert!(!list(&bed, "?last=6").to_string().contains("Body\""), "only where asked for");
}

#[test]
fn a_tunnel_is_one_request_that_ends_when_it_ends() {
    let bed = Bed::new(66);
    let _origin = bed.running_with(|_, stream| {
        send(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        let mut buffer = [0; 5];
        if std::io::Read::read_exact(stream, &mut buffer).is_ok() {
            send(stream, "hello!");
        }
        drop(stream.shutdown(std::net::Shutdown::Both));
    });
    let mut follower = follow(&bed);
    let mut client = bed.client();
    client.send(format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        host(CONTAINER, "http-3000")
    ));
    assert!(client.head().starts_with("HTTP/1.1 101"));
    assert_eq!(follower.event().unwrap().data["kind"], "request");
    client.send("hello");
    assert_eq!(client.exactly(6), b"hello!");
    drop(client);
    let end = follower.response();
    assert_eq!((&end["status"], &end["level"]), (&json!(101), &json!("info")));
    assert_eq!((&end["data"]["received"], &end["data"]["sent"]), (&json!(5), &json!(6)));
    assert_eq!(list(&bed, "")["total"], 2);
}

#[test]
fn requests_of_every_version_of_http_are_logged() {
    let bed = Bed::new(67);
    let _origin = bed.running_with(|seen, stream| {
        if seen.line().contains("/events") {
            send(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        } else {
            reply(stream, "", "hello");
        }
    });
    let mut follower = follow(&bed);
    let name = host(CONTAINER, "http-3000");
    let mut client = http2::connect(&bed, &name);
    client.send(http2::frame(
        http2::HEADERS,
        http2::END_STREAM | http2::END_HEADERS,
        1,
        &http2::get(&name),
    ));
    assert!(http2::answer(&mut client, 1).is_some());
    assert_eq!(follower.response()["data"]["protocol"], "http2");
    if let Some(mut program) = python::ask(&bed, "http3_client.py", &name, &["events"]) {
        program.says("open");
        bed.set(CONTAINER, Phase::Stopping, 1);
        program.ends();
        let ended = follower.response();
        assert_eq!(
            (&ended["data"]["protocol"], &ended["data"]["sent"]),
            (&json!("http3"), &json!(1))
        );
    }
}

#[test]
fn a_log_is_followed_from_within_the_process_until_the_edge_stops() {
    let mut bed = Bed::new(26);
    let _origin = bed.running();
    let (project, container) = (PROJECT.parse().unwrap(), CONTAINER.parse().unwrap());
    let invalid = bed.logs.tail(project, container, "level=high", None, now_ms());
    assert!(matches!(invalid, Err(NoTail::Invalid(errors)) if errors[0].field == "level"));
    let mut tail = bed.logs.tail(project, container, "kind=response", None, now_ms()).unwrap();
    let runtime = bed.runtime.take().unwrap();
    let mut next = || {
        let next = async { timeout(Duration::from_secs(10), tail.next()).await.unwrap() };
        runtime.block_on(next).map(|text| String::from_utf8(text.to_vec()).unwrap())
    };
    assert_eq!(next().unwrap(), "data: []\n\n");
    get(&bed, "/seen");
    assert!(next().unwrap().contains("/seen"));
    drop(bed.edge.take());
    assert_eq!(next(), None);
    bed.runtime = Some(runtime);
}

/// `curl -N` on the stream.
struct Curl {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Drop for Curl {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn curl_follows_a_log() {
    let bed = Bed::new(68);
    let _origin = Origin::simple(SocketAddr::new(bed.container_address(2), 3000));
    bed.set(CONTAINER, Phase::Running, 1);
    get(&bed, "/before");
    let address = bed.https();
    for version in ["--http1.1", "--http2"] {
        let child = Command::new("curl")
            .args(["--silent", "--no-buffer", "--max-time", "20", version, "--connect-to"])
            .arg(format!("::{address}"))
            .arg("--cacert")
            .arg(&bed.ca_path)
            .arg(format!("https://{}:{}/_logs/stream", host(CONTAINER, "logs-1"), address.port()))
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child.inspect_err(|error| eprintln!("not run, curl: {error}")) else {
            assert!(std::env::var_os("CI").is_none(), "no curl");
            return;
        };
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut curl = Curl { child, lines };
        let mut line = || curl.lines.next().unwrap().unwrap();
        assert!(line().contains("/before"));
        assert_eq!(line(), "");
        get(&bed, "/after");
        let id: u64 = line().strip_prefix("id: ").unwrap().parse().unwrap();
        let data = line();
        assert!(data.starts_with("data: {") && data.contains(&format!("\"id\":{id}")), "{data}");
        assert!(data.contains("/after"), "{data}");
    }
}

#[test]
fn without_logs_nothing_is_kept_and_the_service_says_so() {
    let logs = LogsConfig { enabled: false, ..LogsConfig::default() };
    let bed = Bed::with(69, Setup { logs, ..Setup::default() });
    let _origin = bed.running();
    get(&bed, "/");
    let reply = ask(&bed, CONTAINER, "/_logs", "");
    assert_eq!((reply.status, reply.code()), (501, Some("SERVICE_NOT_PROVIDED")));
    assert!((bed.metric("gantry_proxy_logs_bytes")).abs() < f64::EPSILON);
}
