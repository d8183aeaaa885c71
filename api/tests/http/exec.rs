//! Commands in containers. What runs them here are processes of this machine.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use futures_util::{SinkExt as _, StreamExt as _, future::BoxFuture};
use gantry_api::{
    ClientAddress, Command, Commands, Ended, Meter, NotStarted, Realm, Running, RunningProcess,
    TerminalSize, Upgrade,
};
use gantry_model::ContainerId;
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::{io::DuplexStream, net::unix::pipe, process::Child, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use tower::ServiceExt as _;

use crate::{
    lab::{Ask, Lab, PASSWORD, Reply},
    proxy::Scene,
};

const PATIENCE: Duration = Duration::from_secs(20);
const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";

/// Runs commands on this machine, and remembers what was asked for.
#[derive(Clone, Default)]
pub(crate) struct FakeCommands(Arc<Mutex<Asked>>);

#[derive(Default)]
struct Asked {
    commands: Vec<(ContainerId, Command)>,
    sizes: Vec<TerminalSize>,
    pids: Vec<u32>,
    /// How often something was typed, and how many octets were said.
    typed: usize,
    said: usize,
}

#[derive(Debug)]
struct Local {
    child: Child,
    of: FakeCommands,
}

impl std::fmt::Debug for FakeCommands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("commands of this machine")
    }
}

impl Commands for FakeCommands {
    fn start(
        &self,
        container: ContainerId,
        _generation: u64,
        command: Command,
    ) -> BoxFuture<'_, Result<Running, NotStarted>> {
        Box::pin(async move {
            self.0.lock().unwrap().commands.push((container, command.clone()));
            let mut argv = command.argv.iter();
            let program = match argv.next().map_or("sh", String::as_str) {
                "no-place" => return Err(NotStarted::NoPlace),
                "full" => return Err(NotStarted::Full),
                "stuck" => std::future::pending().await,
                program @ ("sh" | "cat" | "head" | "sleep" | "true") => program,
                _ => return Err(NotStarted::Refused("no such thing".to_owned())),
            };
            let mut local = tokio::process::Command::new(program);
            local.args(argv).envs(command.env).process_group(0).kill_on_drop(true);
            local.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = local.spawn().unwrap();
            let reader = |fd: OwnedFd| pipe::Receiver::from_owned_fd(fd).unwrap();
            let input = child.stdin.take().unwrap().into_owned_fd().unwrap();
            let errors = child.stderr.take().unwrap().into_owned_fd().unwrap();
            let output = child.stdout.take().unwrap().into_owned_fd().unwrap();
            self.0.lock().unwrap().pids.push(child.id().unwrap());
            Ok(Running {
                input: pipe::Sender::from_owned_fd(input).unwrap(),
                output: reader(output),
                errors: command.terminal.is_none().then(|| reader(errors)),
                process: Box::new(Local { child, of: self.clone() }),
                meter: Arc::new(self.clone()),
            })
        })
    }
}

impl RunningProcess for Local {
    fn ended(&mut self) -> BoxFuture<'_, Option<Ended>> {
        use std::os::unix::process::ExitStatusExt as _;
        Box::pin(async {
            let status = self.child.wait().await.unwrap();
            Some(match (status.code(), status.signal()) {
                (Some(code), _) => Ended::Status(u8::try_from(code).unwrap()),
                (None, Some(9)) => Ended::Signal("KILL".to_owned()),
                (None, signal) => Ended::Signal(signal.unwrap().to_string()),
            })
        })
    }

    fn resize(&self, size: TerminalSize) {
        self.of.0.lock().unwrap().sizes.push(size);
    }

    fn kill(&self) {
        use rustix::process::{Pid, Signal, kill_process_group};
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process_group(pid, Signal::KILL).unwrap();
    }
}

impl Meter for FakeCommands {
    fn typed(&self) {
        self.0.lock().unwrap().typed += 1;
    }

    fn said(&self, octets: usize) {
        self.0.lock().unwrap().said += octets;
    }
}

impl FakeCommands {
    /// Whether the last process that was started runs.
    fn is_running(&self) -> bool {
        let pid = self.0.lock().unwrap().pids.last().copied().unwrap();
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// Waits until it does not.
    async fn end(&self) {
        let gone = timeout(PATIENCE, async {
            while self.is_running() {
                tokio::task::yield_now().await;
            }
        });
        gone.await.expect("its process ends");
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().commands.len()
    }
}

async fn post(scene: &Scene, body: Value) -> Reply {
    let path = format!("/api/v1/containers/{}/exec", scene.container);
    scene.lab.send(Ask::new("POST", &path).by(&scene.token).body(&body)).await
}

fn sh(line: &str) -> Value {
    json!({ "command": ["sh", "-c", line] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_run_and_answered() {
    let scene = Scene::set().await;
    let answer = |code: Value, out: &str, err: &str| {
        json!({ "exit_code": code, "signal": null, "stdout": out, "stderr": err,
            "truncated": false, "timed_out": false })
    };
    let with = |mut body: Value, more: Value| {
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let killed = json!({ "exit_code": 137, "signal": "KILL", "stdout": "a", "stderr": "",
        "truncated": false, "timed_out": false });
    let late = json!({ "exit_code": null, "signal": null, "stdout": "begun\n", "stderr": "",
        "truncated": false, "timed_out": true });
    for (body, want) in [
        (sh("echo out; echo err >&2"), answer(json!(0), "out\n", "err\n")),
        (sh("exit 7"), answer(json!(7), "", "")),
        (sh("exit 255"), answer(json!(255), "", "")),
        (
            with(sh("cat; echo .$A"), json!({ "stdin": "in\n", "env": { "A": "b" } })),
            answer(json!(0), "in\n.b\n", ""),
        ),
        (json!({ "command": ["cat"] }), answer(json!(0), "", "")),
        (sh(r"printf '\377ok'"), answer(json!(0), "\u{fffd}ok", "")),
        (sh("printf a; kill -9 $$"), killed),
        (with(sh("echo begun; exec sleep 600"), json!({ "timeout_seconds": 1 })), late),
        // What it leaves behind is not waited for.
        (sh("sleep 600 & echo left"), answer(json!(0), "left\n", "")),
    ] {
        let reply = post(&scene, body.clone()).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.text);
        assert_eq!(reply.json["data"], want, "{body}");
    }
    let much = post(&scene, sh("head -c 3000000 /dev/zero | tr '\\0' x; echo few >&2")).await;
    let data = &much.json["data"];
    assert_eq!(data["stdout"].as_str().unwrap().len(), 1 << 20);
    assert_eq!((&data["stderr"], &data["exit_code"]), (&json!("few\n"), &json!(0)));
    assert_eq!(data["truncated"], true, "the rest was read, so that it could end");
    // Each of these takes six octets.
    let data = post(&scene, sh("head -c 3000000 /dev/zero")).await.json["data"].take();
    assert_eq!(data["stdout"].as_str().unwrap().len(), (2 << 20) / 6);
    assert_eq!((&data["truncated"], &data["exit_code"]), (&json!(true), &json!(0)));
    // Once, however often it is asked for with a key; the output is not kept.
    let before = scene.lab.commands.count();
    let path = format!("/api/v1/containers/{}/exec", scene.container);
    let ask = Ask::new("POST", &path).by(&scene.token).body(&sh("echo secret; exit 3"));
    let ask = ask.header("idempotency-key", "once");
    assert_eq!(scene.lab.send(ask.clone()).await.json["data"]["stdout"], "secret\n");
    let again = scene.lab.send(ask).await.json;
    assert_eq!((&again["data"]["exit_code"], &again["data"]["stdout"]), (&json!(3), &json!("")));
    assert_eq!(scene.lab.commands.count(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_a_command_has_ended_is_told_even_if_it_leaves_others_that_go_on() {
    let scene = Scene::set().await;
    let mut short = sh("yes & exit 3");
    short["timeout_seconds"] = json!(5);
    let others = "command=sh&command=-c&command=while+:;+do+echo;+sleep+0.1;+done+%26+exit+5";
    let session =
        async { Client::open(&scene, &scene.token, V5, others).await.hears().await.outcome() };
    let all =
        async { tokio::join!(post(&scene, short), post(&scene, sh("yes >&2 & exit 4")), session) };
    let (short, long, outcome) = timeout(PATIENCE, all).await.expect("they end");
    for (reply, code) in [(short, 3), (long, 4)] {
        let data = &reply.json["data"];
        assert_eq!((&data["exit_code"], &data["timed_out"]), (&json!(code), &json!(false)));
    }
    assert_eq!(outcome["details"]["causes"][0]["message"], "5", "{outcome}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_its_place_until_it_is_taken() {
    let scene = Scene::set().await;
    let ask = async || {
        let path = format!("/api/v1/containers/{}/exec", scene.container);
        let mut request = Request::post(path)
            .header("authorization", format!("Bearer {}", scene.token))
            .header("content-type", "application/json")
            .body(Body::from(sh("true").to_string()))
            .unwrap();
        let client = "192.0.2.7:4711".parse().unwrap();
        request.extensions_mut().insert(ClientAddress(client));
        request.extensions_mut().insert(Realm(None));
        scene.lab.router.clone().oneshot(request).await.unwrap()
    };
    let mut unread = Vec::new();
    for _ in 0..8 {
        unread.push(ask().await);
    }
    assert!(unread.iter().all(|response| response.status() == 200));
    assert_eq!(ask().await.status(), 429);
    drop(unread);
    assert_eq!(ask().await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_started_yet_ends_with_what_it_was_let_in_by() {
    let scene = Scene::set().await;
    let body = json!({ "alias": "exec", "permission_template": "dev_team" });
    let made = Ask::new("POST", "/api/v1/auth/tokens").by(&scene.token).body(&body);
    let made = scene.lab.send(made).await.json["data"].take();
    let path = format!("/api/v1/containers/{}/exec", scene.container);
    let stuck = json!({ "command": ["stuck"] });
    let stuck = Ask::new("POST", &path).by(made["token"].as_str().unwrap()).body(&stuck);
    let path = format!("/api/v1/auth/tokens/{}", made["id"].as_str().unwrap());
    let revoke = async {
        while scene.lab.commands.count() == 0 {
            tokio::task::yield_now().await;
        }
        scene.lab.send(Ask::new("DELETE", &path).by(&scene.token)).await
    };
    let both = async { tokio::join!(scene.lab.send(stuck), revoke) };
    let (stuck, revoked) = timeout(PATIENCE, both).await.expect("it is not waited for");
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    assert_eq!(stuck.status, 401, "{}", stuck.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_run_is_refused_and_runs_nothing() {
    let scene = Scene::set().await;
    for (body, field) in [
        (json!({}), "command"),
        (json!({ "command": [] }), "command"),
        (json!({ "command": "ls" }), "command"),
        (json!({ "command": [""] }), "command"),
        (json!({ "command": ["a\u{0}"] }), "command"),
        (json!({ "command": ["ls"], "timeout_seconds": 0 }), "timeout_seconds"),
        (json!({ "command": ["ls"], "timeout_seconds": 241 }), "timeout_seconds"),
        (json!({ "command": ["ls"], "user": "a:b" }), "user"),
        (json!({ "command": ["ls"], "cwd": "tmp" }), "cwd"),
        (json!({ "command": ["ls"], "env": { "A=": "b" } }), "env"),
        (json!({ "command": ["ls"], "shell": true }), "shell"),
    ] {
        let reply = post(&scene, body.clone()).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], field, "{body}: {}", reply.text);
    }
    let path = format!("/api/v1/containers/{}/exec", scene.container);
    let ask = |token: &str| Ask::new("POST", &path).by(token).body(&sh("true"));
    let bob = scene.lab.login("bob", PASSWORD).await;
    assert_eq!(scene.lab.send(ask(&bob)).await.status, 404);
    let token = json!({ "alias": "logs", "permission_template": "read_only" });
    let token = Ask::new("POST", "/api/v1/auth/tokens").by(&scene.token).body(&token);
    let token = scene.lab.send(token).await.json["data"]["token"].as_str().unwrap().to_owned();
    let refused = scene.lab.send(ask(&token)).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("containers.actions.exec"), "{}", refused.text);
    // A member may look, or change things; who may not change them runs nothing in them.
    let me = scene.lab.send(Ask::new("GET", "/api/v1/users/auth/me").by(&bob)).await;
    for (level, status) in [("read", 403), ("edit", 200)] {
        let grant = json!({ "user_id": me.json["data"]["id"], "permission_level": level });
        let all = format!("/api/v1/projects/{}/permissions", scene.project);
        let granted = Ask::new("POST", &all).by(&scene.token).body(&grant);
        let granted = scene.lab.send(granted).await;
        assert_eq!(granted.status, 201, "{}", granted.text);
        let reply = scene.lab.send(ask(&bob)).await;
        assert_eq!(reply.status, status, "{level}: {}", reply.text);
        let one = format!("{all}/{}", granted.json["data"]["id"].as_str().unwrap());
        assert_eq!(scene.lab.send(Ask::new("DELETE", &one).by(&scene.token)).await.status, 200);
    }
    let before = scene.lab.commands.count();
    for (program, status, words) in [
        ("no-place", 409, "stop and start it once"),
        ("full", 429, "too much is open"),
        ("refused", 400, "no such thing"),
    ] {
        let reply = post(&scene, json!({ "command": [program] })).await;
        assert_eq!(reply.status, status, "{program}: {}", reply.text);
        assert!(reply.text.contains(words), "{}", reply.text);
    }
    assert_eq!(scene.lab.commands.count(), before + 3);
    for (operation, words) in [("pause", "is paused; resume"), ("stop", "is stopped; start")] {
        let manage = format!("/api/v1/containers/{}/{operation}", scene.container);
        let done = scene.lab.send(Ask::new("POST", &manage).by(&scene.token)).await;
        assert_eq!(done.status, 200, "{}", done.text);
        let reply = post(&scene, sh("true")).await;
        assert_eq!(reply.status, 409, "{}", reply.text);
        assert!(reply.text.contains(words), "{}", reply.text);
    }
    assert_eq!(scene.lab.commands.count(), before + 3, "nothing was started in vain");
}

/// A client of a session.
struct Client(WebSocketStream<DuplexStream>);

/// What a session has said by its end.
#[derive(Debug, Default)]
struct Heard {
    channels: BTreeMap<u8, Vec<u8>>,
}

impl Heard {
    fn of(&self, channel: u8) -> &[u8] {
        self.channels.get(&channel).map_or(&[], Vec::as_slice)
    }

    fn outcome(&self) -> Value {
        serde_json::from_slice(self.of(3)).unwrap()
    }
}

impl Client {
    /// Asks for a session as the edge passes it on.
    async fn ask(
        lab: &Lab,
        path: &str,
        token: &str,
        protocol: Option<&str>,
    ) -> (Response<Body>, Self) {
        let (ours, end) = tokio::io::duplex(16 * 1024);
        let mut request = Request::get(path)
            .header("authorization", format!("Bearer {token}"))
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        if let Some(protocol) = protocol {
            request = request.header("sec-websocket-protocol", protocol);
        }
        let mut request = request.body(Body::empty()).unwrap();
        let client = "192.0.2.7:4711".parse().unwrap();
        request.extensions_mut().insert(ClientAddress(client));
        request.extensions_mut().insert(Realm(None));
        request.extensions_mut().insert(Upgrade::new(end));
        let response = lab.router.clone().oneshot(request).await.unwrap();
        (response, Self(WebSocketStream::from_raw_socket(ours, Role::Client, None).await))
    }

    async fn open(scene: &Scene, token: &str, protocol: &str, query: &str) -> Self {
        let path = format!("/api/v1/containers/{}/exec?{query}", scene.container);
        let (response, client) = Self::ask(&scene.lab, &path, token, Some(protocol)).await;
        assert_eq!(response.status(), 101, "{query}");
        let spoken = protocol.split(',').next().unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], spoken);
        client
    }

    async fn says(&mut self, channel: u8, octets: &[u8]) {
        let message = [&[channel], octets].concat();
        self.0.send(Message::Binary(message.into())).await.unwrap();
    }

    /// Hears one message: its channel and what it says.
    async fn hears_one(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("it says something")?.unwrap() {
                Message::Binary(octets) => {
                    let (channel, said) = octets.split_first().unwrap();
                    return Some((*channel, said.to_vec()));
                }
                Message::Close(_) => return None,
                Message::Ping(_) => {}
                other @ (Message::Text(_) | Message::Pong(_) | Message::Frame(_)) => {
                    panic!("{other:?}")
                }
            }
        }
    }

    /// Hears all until its end.
    async fn hears(&mut self) -> Heard {
        let mut heard = Heard::default();
        while let Some((channel, said)) = self.hears_one().await {
            heard.channels.entry(channel).or_default().extend(said);
        }
        heard
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_carries_octets_both_ways_until_the_end_of_its_process() {
    let scene = Scene::set().await;
    let all: Vec<u8> = (0..=255).collect();
    let mut cat = Client::open(&scene, &scene.token, V5, "command=cat&stdin=true").await;
    assert_eq!(cat.hears_one().await, Some((1, Vec::new())), "it has begun");
    cat.says(0, &all).await;
    assert_eq!(cat.hears_one().await, Some((1, all.clone())));
    // Clients write texts as such.
    cat.0.send(Message::Text("\0text".into())).await.unwrap();
    assert_eq!(cat.hears_one().await, Some((1, b"text".to_vec())));
    cat.says(255, &[0]).await;
    let heard = cat.hears().await;
    assert_eq!(heard.outcome(), json!({ "metadata": {}, "status": "Success" }));
    let (typed, said) = {
        let asked = scene.lab.commands.0.lock().unwrap();
        (asked.typed, asked.said)
    };
    assert_eq!((typed, said), (2, all.len() + 4), "what keeps a container awake");

    // Nothing is sent without being asked for, and what is not wanted is not told.
    let line = "command=sh&command=-c&command=cat;echo+out;echo+err+%3E%262;exit+7";
    for (more, out, err) in
        [("", "out\n", "err\n"), ("&stdout=false", "", "err\n"), ("&stderr=False", "out\n", "")]
    {
        let mut client = Client::open(&scene, &scene.token, V5, &format!("{line}{more}")).await;
        let heard = client.hears().await;
        assert_eq!((heard.of(1), heard.of(2)), (out.as_bytes(), err.as_bytes()), "{more}");
        let cause = json!({ "causes": [{ "reason": "ExitCode", "message": "7" }] });
        let outcome = heard.outcome();
        assert_eq!((&outcome["details"], &outcome["status"]), (&cause, &json!("Failure")));
    }
    let killed = "command=sh&command=-c&command=kill+-9+$$";
    let outcome = Client::open(&scene, &scene.token, V4, killed).await.hears().await.outcome();
    let causes = &outcome["details"]["causes"];
    assert_eq!((&causes[0]["message"], &causes[1]["message"]), (&json!("137"), &json!("KILL")));
    // A client that leaves takes its process along.
    let client = Client::open(&scene, &scene.token, V5, "command=sleep&command=600").await;
    assert!(scene.lab.commands.is_running());
    drop(client);
    scene.lab.commands.end().await;
    // Sessions are in the activity, although they are asked for by GET.
    let activity = Ask::new("GET", "/api/v1/users/auth/activity?limit=100").by(&scene.token);
    let activity = scene.lab.send(activity).await;
    let entries = activity.json["data"].as_array().unwrap().iter();
    let path = format!("/api/v1/containers/{}/exec", scene.container);
    let sessions = entries.filter(|entry| entry["path"] == path.as_str());
    let statuses: Vec<&Value> = sessions.map(|entry| &entry["status_code"]).collect();
    assert_eq!(statuses, vec![101; 6], "{}", activity.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_takes_its_clients_size() {
    let scene = Scene::set().await;
    let query = "command=cat&stdin=true&tty=true&columns=132&rows=43&env=TERM=dumb&user=ann";
    let mut client = Client::open(&scene, &scene.token, &format!("{V5}, {V4}"), query).await;
    client.says(4, br#"{"Width":100,"Height":30}"#).await;
    client.says(255, &[0]).await;
    assert_eq!(client.hears().await.outcome()["status"], "Success");
    let asked = scene.lab.commands.0.lock().unwrap();
    let (_, command) = asked.commands.last().unwrap();
    assert_eq!(command.terminal, Some(TerminalSize { columns: 132, rows: 43 }));
    assert_eq!(command.env, [("TERM".to_owned(), "dumb".to_owned())]);
    assert_eq!(command.user, "ann");
    assert_eq!(asked.sizes, [TerminalSize { columns: 100, rows: 30 }]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_reads_slowly_holds_the_process_back() {
    const LEN: usize = 20_000_000;
    let scene = Scene::set().await;
    let query = format!("command=head&command=-c&command={LEN}&command=/dev/zero");
    let mut client = Client::open(&scene, &scene.token, V5, &query).await;
    let mut len = 0;
    while len == 0 {
        len += client.hears_one().await.unwrap().1.len();
    }
    // It could have written all long ago.
    let other = post(&scene, sh("head -c 20000000 /dev/zero | wc -c")).await;
    assert_eq!(other.json["data"]["stdout"], "20000000\n");
    let asked = scene.lab.commands.0.lock().unwrap().pids.len();
    scene.lab.commands.0.lock().unwrap().pids.truncate(asked - 1);
    assert!(scene.lab.commands.is_running(), "it waits for its reader");
    let heard = client.hears().await;
    assert_eq!(len + heard.of(1).len(), LEN);
    assert_eq!(heard.outcome()["status"], "Success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_what_it_was_let_in_by() {
    let scene = Scene::set().await;
    let sleep = "command=sleep&command=600";
    let ended = async |mut client: Client, words: &str| {
        let message = client.hears().await.outcome()["message"].take();
        assert!(message.as_str().unwrap().contains(words), "{message}");
        scene.lab.commands.end().await;
    };
    let body = json!({ "alias": "exec", "permission_template": "dev_team" });
    let made = Ask::new("POST", "/api/v1/auth/tokens").by(&scene.token).body(&body);
    let made = scene.lab.send(made).await.json["data"].take();
    let client = Client::open(&scene, made["token"].as_str().unwrap(), V5, sleep).await;
    let path = format!("/api/v1/auth/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(scene.lab.send(Ask::new("DELETE", &path).by(&scene.token)).await.status, 200);
    ended(client, "Invalid authentication token").await;
    let client = Client::open(&scene, &scene.token, V5, sleep).await;
    let stop = format!("/api/v1/containers/{}/stop", scene.container);
    assert_eq!(scene.lab.send(Ask::new("POST", &stop).by(&scene.token)).await.status, 200);
    ended(client, "the container is stop").await;
    let start = format!("/api/v1/containers/{}/start", scene.container);
    assert_eq!(scene.lab.send(Ask::new("POST", &start).by(&scene.token)).await.status, 200);
    let client = Client::open(&scene, &scene.token, V5, sleep).await;
    scene.lab.closing.cancel();
    ended(client, "about to stop").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_session_of_this_protocol_is_refused() {
    let scene = Scene::set().await;
    let path = format!("/api/v1/containers/{}/exec?command=cat&stdin=true", scene.container);
    let plain = scene.lab.send(Ask::new("GET", &path).by(&scene.token)).await;
    assert_eq!(plain.status, 400, "{}", plain.text);
    for protocol in [None, Some("channel.k8s.io"), Some("base64.channel.k8s.io, chat")] {
        let (response, _) = Client::ask(&scene.lab, &path, &scene.token, protocol).await;
        assert_eq!(response.status(), 400, "{protocol:?}");
    }
    assert_eq!(scene.lab.commands.count(), 0);
    let long = vec![0; (1 << 20) + 1];
    for (protocol, message, words) in [
        (V5, &[1, 2][..], "a channel that clients do not have"),
        (V4, &[255, 0], "a channel that clients do not have"),
        (V5, b"\x04{}", "Width"),
        (V5, &long, "longer than 1 MiB"),
    ] {
        let client = Client::open(&scene, &scene.token, protocol, "command=cat&stdin=1").await;
        let (mut says, mut hears) = client.0.split();
        // A long one is not taken to its end.
        let says = says.send(Message::Binary(message.to_vec().into()));
        let outcome = timeout(PATIENCE, async {
            while let Some(Ok(message)) = hears.next().await {
                if let [3, outcome @ ..] = message.into_data().as_ref() {
                    return serde_json::from_slice::<Value>(outcome).unwrap();
                }
            }
            panic!("{words}: it ends without a word");
        });
        let outcome = tokio::join!(says, outcome).1.unwrap();
        assert!(outcome["message"].as_str().unwrap().contains(words), "{outcome}");
    }
}
