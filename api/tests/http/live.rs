//! The live feed, as a client of Socket.IO that others wrote hears it.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use axum::body::Body;
use gantry_api::{ClientAddress, Realm, Upgrade};
use gantry_model::RealmId;
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
};
use tower::ServiceExt as _;

use crate::lab::{Ask, Lab, PASSWORD};

const REALM: &str = "64a2c4e9f3d5e2b6a8c7d8e1";
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves the router of a lab as an edge does, until the tasks are dropped.
#[expect(clippy::disallowed_methods, reason = "a tunnel, which ends with its connection")]
async fn serve(lab: &Lab, realm: Option<RealmId>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = lab.router.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, client) = listener.accept().await.unwrap();
            let router = router.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                let leaving = hyper::upgrade::on(&mut request);
                let (mut ours, end) = tokio::io::duplex(16 * 1024);
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ClientAddress(client));
                request.extensions_mut().insert(Realm(realm));
                request.extensions_mut().insert(Upgrade::new(end));
                let response = router.clone().oneshot(request);
                async move {
                    let response = response.await?;
                    if response.status() == 101 {
                        tokio::spawn(async move {
                            let mut client = TokioIo::new(leaving.await.unwrap());
                            // A side that leaves in the middle is no fault.
                            drop(tokio::io::copy_bidirectional(&mut client, &mut ours).await);
                        });
                    }
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            connections.spawn(async move {
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                drop(connection.with_upgrades().await);
            });
        }
    });
    (address, tasks)
}

/// A client in Python; it ends when it is dropped.
struct Client {
    _child: Child,
    says: Option<ChildStdin>,
    heard: Lines<BufReader<ChildStdout>>,
}

impl Client {
    /// Nothing (only at the desk) if there are no libraries.
    fn start(address: SocketAddr, token: &str) -> Option<Self> {
        let python = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python/bin/python3");
        if !python.exists() {
            assert!(std::env::var_os("CI").is_none(), "no {}", python.display());
            eprintln!("not run: no {}", python.display());
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/live_client.py");
        let mut child = Command::new(python)
            .arg("-B")
            .arg(script)
            .args([&format!("http://{address}"), token])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let heard = BufReader::new(child.stdout.take().unwrap()).lines();
        Some(Self { says: child.stdin.take(), _child: child, heard })
    }

    /// The next thing that it hears: its name and its data.
    async fn hears(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.heard.next_line()).await.unwrap().unwrap();
        serde_json::from_str(&line.expect("the client has ended")).unwrap()
    }

    /// Hears until there is an event of this kind; returns it.
    async fn hears_of(&mut self, kind: &str) -> Value {
        loop {
            let mut heard = self.hears().await;
            assert_eq!(heard[0], "message", "{heard}");
            if heard[1]["event"] == kind {
                return heard[1].take();
            }
        }
    }

    /// Hears what one hears who was let in.
    async fn is_welcome(&mut self) -> Value {
        assert_eq!(self.hears().await, json!(["connect"]));
        let mut heard = self.hears().await;
        assert_eq!((&heard[0], &heard[1]["type"]), (&json!("message"), &json!("welcome")));
        heard[1].take()
    }

    async fn says(&mut self, what: Value) {
        let says = self.says.as_mut().unwrap();
        says.write_all(format!("{what}\n").as_bytes()).await.unwrap();
    }
}

/// What a client hears that is not let in.
async fn refusal(address: SocketAddr, token: &str) -> Option<String> {
    let mut client = Client::start(address, token)?;
    assert_eq!(client.hears().await, json!(["connect"]));
    let heard = client.hears().await;
    assert_eq!(heard[1]["type"], "error", "{heard}");
    assert!(heard[1]["message"].as_str().is_some_and(|text| !text.is_empty()), "{heard}");
    assert_eq!(client.hears().await[0], "disconnect");
    Some(heard[1]["error"].as_str().unwrap().to_owned())
}

/// A token with this body: its id and its secret.
async fn token(lab: &Lab, session: &str, body: Value) -> (String, String) {
    let made = lab.send(Ask::new("POST", "/api/v1/auth/tokens").by(session).body(&body)).await;
    let text = |field: &str| made.json["data"][field].as_str().unwrap().to_owned();
    (text("id"), text("token"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_welcomed_and_told_what_happens_to_its_own() {
    let lab = Lab::start().await;
    let (session, project) = lab.alice().await;
    let (address, _tasks) = serve(&lab, None).await;
    let Some(mut client) = Client::start(address, &session) else { return };
    let welcome = client.is_welcome().await;
    let me = lab.send(Ask::new("GET", "/api/v1/users/auth/me").by(&session)).await;
    assert_eq!(welcome["userId"], me.json["data"]["id"], "{welcome} {}", me.text);
    assert_eq!(welcome["realmId"], Value::Null);

    let bob = lab.login("bob", PASSWORD).await;
    let his = json!({ "alias": "his" });
    lab.send(Ask::new("POST", "/api/v1/projects").by(&bob).body(&his)).await;
    let id = lab.container(&session, &project, "web").await;
    let first = client.hears().await;
    assert_eq!(first[1]["event"], "container.creating", "what was before is not told: {first}");
    let running = client.hears_of("container.running").await;
    assert_eq!(running["type"], "event");
    assert_eq!(running["resource_id"], id.as_str());
    assert_eq!(running["project_id"], project.as_str());
    assert_eq!(running["data"]["from_status"], "creating", "{running}");
    let list =
        lab.send(Ask::new("GET", "/api/v1/events?event_type=container.running").by(&session));
    let list = list.await;
    let listed = &list.json["data"]["events"][0];
    assert_eq!(
        (&running["eventId"], &running["timestamp"]),
        (&listed["id"], &listed["created_at"])
    );

    // Many at once wait for one another, and none is lost.
    for number in 0..60 {
        let body = json!({ "alias": format!("many{number}") });
        let made = lab.send(Ask::new("POST", "/api/v1/projects").by(&session).body(&body)).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    for number in 0..60 {
        let told = client.hears_of("project.created").await;
        assert_eq!(told["data"]["alias"], format!("many{number}"), "{told}");
    }

    // What is written is told to who asks for it, and listed elsewhere.
    client.says(json!(["subscribe", { "type": "activity" }])).await;
    assert_eq!(client.hears().await[1], json!({ "type": "activity_subscribed" }));
    let path = format!("/api/v1/projects/{project}");
    let rename = json!({ "alias": "renamed" });
    lab.send(Ask::new("PATCH", &path).by(&session).body(&rename)).await;
    let logged = client.hears_of("activity.logged").await;
    assert_eq!((&logged["data"]["path"], &logged["ephemeral"]), (&json!(path), &json!(true)));

    let logout = Ask::new("POST", "/api/v1/users/auth/logout").by(&session);
    assert_eq!(lab.send(logout).await.status, 200);
    loop {
        let heard = client.hears().await;
        // What was renamed and what was logged of it come by two ways, in any order.
        if heard[1]["type"] != "event" {
            assert_eq!(heard[1]["type"], "revoked", "{heard}");
            assert_eq!(heard[1]["reason"], "JWT_REVOKED", "{heard}");
            break;
        }
    }
    assert_eq!(client.hears().await, json!(["disconnect", "server disconnect"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_hear_is_told_why() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let (plain, _plain) = serve(&lab, None).await;
    let (of_realm, _of_realm) = serve(&lab, Some(REALM.parse().unwrap())).await;
    let events = json!({ "resources": { "events": true } });
    let (id, good) = token(&lab, &session, json!({ "permissions": events })).await;
    let body = json!({ "permissions": events, "event_access": false });
    let (_, no_switch) = token(&lab, &session, body).await;
    let body = json!({ "permissions": events, "realm_ids": [REALM] });
    let (_, in_realm) = token(&lab, &session, body).await;
    let Some(code) = refusal(plain, "").await else { return };
    assert_eq!(code, "MISSING_TOKEN");
    for (token, want) in [
        ("nonsense", "INVALID_TOKEN"),
        (no_switch.as_str(), "EVENT_ACCESS_DENIED"),
        (in_realm.as_str(), "REALM_REQUIRED"),
    ] {
        assert_eq!(refusal(plain, token).await.unwrap(), want);
    }
    let mut client = Client::start(of_realm, &in_realm).unwrap();
    assert_eq!(client.is_welcome().await["realmId"], REALM);
    let post = |alias: &str, realms: Value| {
        let body = json!({ "alias": alias, "realm_ids": realms });
        Ask::new("POST", "/api/v1/projects").by(&session).body(&body)
    };
    lab.send(post("outside", json!([]))).await;
    lab.send(post("inside", json!([REALM]))).await;
    assert_eq!(client.hears().await[1]["data"]["alias"], "inside");

    // A token that may hear events and nothing else hears nothing else; and no events without the switch.
    let mut client = Client::start(plain, &good).unwrap();
    client.is_welcome().await;
    client.says(json!(["subscribe", { "type": "activity" }])).await;
    let heard = client.hears().await;
    assert_eq!(heard[1]["error"], "SUBSCRIPTION_NOT_ALLOWED", "{heard}");
    let path = format!("/api/v1/auth/tokens/{id}");
    let narrow = Ask::new("PATCH", &path).by(&session).body(&json!({ "event_access": false }));
    assert_eq!(lab.send(narrow).await.status, 200);
    loop {
        let heard = client.hears().await;
        if heard[1]["type"] != "event" {
            assert_eq!(heard[1]["reason"], "EVENT_ACCESS_REVOKED", "{heard}");
            break;
        }
    }
    assert_eq!(client.hears().await[0], "disconnect");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_are_counted_and_end_with_the_server() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let (address, _tasks) = serve(&lab, None).await;
    let mut open = Vec::new();
    for _ in 0..15 {
        let stream = Request::get("/api/v1/events/stream");
        let stream = stream.header("authorization", format!("Bearer {session}"));
        let request = stream.body(Body::empty()).unwrap();
        open.push(lab.router.clone().oneshot(request).await.unwrap());
    }
    let Some(mut client) = Client::start(address, &session) else { return };
    client.is_welcome().await;
    assert_eq!(refusal(address, &session).await.unwrap(), "CONNECTION_LIMIT_EXCEEDED");
    lab.closing.cancel();
    assert_eq!(client.hears().await, json!(["disconnect", "transport error"]));
    for stream in open {
        let ended = http_body_util::BodyExt::collect(stream.into_body());
        tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap();
    }
    let asked = "/api/v1/events/?EIO=4&transport=websocket";
    assert_eq!(lab.send(Ask::new("GET", asked)).await.status, 503);
}

#[tokio::test]
async fn other_transports_are_refused_by_name() {
    let lab = Lab::start().await;
    for (query, field) in [
        ("EIO=4&transport=polling", "transport"),
        ("EIO=3&transport=websocket", "EIO"),
        ("transport=websocket", "EIO"),
        ("EIO=4", "transport"),
        ("EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAA", "sid"),
        ("EIO=4&transport=websocket", "upgrade"),
    ] {
        for path in ["/api/v1/events", "/api/v1/events/"] {
            let reply = lab.send(Ask::new("GET", &format!("{path}?{query}"))).await;
            assert_eq!(reply.status, 400, "{query}: {}", reply.text);
            assert_eq!(reply.json["data"][0]["field"], field, "{query}: {}", reply.text);
        }
    }
    let reply = lab.send(Ask::new("GET", "/api/v1/events/?EIO=4&transport=polling")).await;
    assert!(reply.text.contains("transports: ["), "{}", reply.text);
}

/// A client that opens a feed by hand; returns what stands behind the head.
async fn by_hand(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET /api/v1/events/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {address}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Reads until the end; how many octets came.
async fn until_end(stream: &mut TcpStream) -> usize {
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.unwrap();
    // A reset is an end, too.
    read.map_or(all.len(), |_| all.len())
}

/// The frame of a client's text, masked with zeros.
fn text(what: &str) -> Vec<u8> {
    let length = u16::try_from(what.len()).unwrap().to_be_bytes();
    [&[0x81, 0xfe][..], &length, &[0; 4], what.as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_or_too_much_is_cut_and_places_are_few() {
    let lab = Lab::start().await;
    let (address, _tasks) = serve(&lab, None).await;
    let mut opened = Vec::new();
    for _ in 0..16 {
        let mut stream = by_hand(address).await;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 101");
        opened.push(stream);
    }
    let mut refused = by_hand(address).await;
    let mut head = [0; 12];
    refused.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 429", "an address has so many that have not said who they are");
    let mut large = opened.pop().unwrap();
    large.write_all(&text(&format!("40{}", "x".repeat(20_000)))).await.unwrap();
    assert!(until_end(&mut large).await < 1_000);
    let mut again = opened.pop().unwrap();
    for _ in 0..2 {
        again.write_all(&text("40{\"token\":\"nonsense\"}")).await.unwrap();
    }
    assert!(until_end(&mut again).await < 2_000, "it is refused and left");
    // A place is given back after its connection has ended, in a moment.
    let free_again = async {
        while &head != b"HTTP/1.1 101" {
            by_hand(address).await.read_exact(&mut head).await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, free_again).await.expect("their places are free again");
}
