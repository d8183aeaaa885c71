//! The Kit's images, built for real, and their services, asked by foreign clients.
//!
//! The first run on a machine builds the images, which takes a minute or two each; later ones find
//! them in the usual cache, which the program itself uses as well.

#![cfg(test)]

mod machine;

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use gantry_kit::{WELCOME_PORT, entry, start_command};
use gantry_model::Service;
use gantry_runtime::Exec;
use machine::Machine;
use tokio::{net::TcpStream, process::Command, time::Instant};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

/// How long a service may take to do what a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_of_debian_13_has_a_terminal_files_and_a_welcome_page() {
    Box::pin(machine::run("debian/13", 13, services)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_of_debian_12_has_a_terminal_files_and_a_welcome_page() {
    Box::pin(machine::run("debian/12", 12, services)).await;
}

async fn services(machine: &Machine) {
    welcome(machine).await;
    no_service_runs_before_it_is_asked_for(machine).await;
    terminal(machine).await;
    Box::pin(one_session_for_all_who_look(machine)).await;
    files(machine).await;
    user_and_system(machine).await;
}

/// What `curl` prints for these arguments.
async fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--globoff"])
        .args(arguments)
        .output()
        .await
        .expect("curl is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The status that `curl` sees.
async fn status(arguments: &[&str]) -> String {
    let options = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    curl(&[&options, arguments].concat()).await
}

/// Waits until a shell command in the container succeeds.
async fn wait_for(machine: &Machine, condition: &str) {
    let script = format!("for n in $(seq 200); do {condition} && exit 0; sleep 0.1; done; exit 1");
    assert!(machine.exec(&Exec::new(["sh", "-c", &script])).await.status.success(), "{condition}");
}

async fn start(machine: &Machine, service: Service, index: u16) -> Duration {
    let command = start_command(service, index).unwrap();
    let begin = Instant::now();
    for _ in 0..2 {
        // Twice, because it may be repeated.
        let output = machine.exec(&Exec::new(command.clone())).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?}: {stderr}");
    }
    begin.elapsed()
}

async fn welcome(machine: &Machine) {
    let url = machine.url(WELCOME_PORT, "/");
    let begin = Instant::now();
    while !curl(&[&url]).await.contains("Your container is running") {
        assert!(begin.elapsed() < PATIENCE, "the welcome page does not answer");
    }
    eprintln!("the welcome page answered {:?} after the start", begin.elapsed());
    let script = curl(&[&machine.url(WELCOME_PORT, "/welcome.js")]).await;
    assert!(script.contains("data-service"), "{script}");
    assert_eq!(status(&[&machine.url(WELCOME_PORT, "/none")]).await, "404");
}

async fn no_service_runs_before_it_is_asked_for(machine: &Machine) {
    for service in [Service::Terminal, Service::Files] {
        let port = entry(service).port(1);
        let refused = TcpStream::connect((machine.address(), port)).await;
        assert!(refused.is_err(), "{} listens already", service.slug());
    }
}

type Terminal = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(machine: &Machine, index: u16) -> Terminal {
    let port = entry(Service::Terminal).port(index);
    let url = format!("ws://{}:{port}/ws", machine.address());
    tokio_tungstenite::connect_async(url).await.unwrap().0
}

async fn send(terminal: &mut Terminal, message: &str) {
    terminal.send(Message::text(message)).await.unwrap();
}

/// Reads until the terminal shows a text; returns all that it has shown since it was last read.
async fn shows(terminal: &mut Terminal, wanted: &str) -> String {
    let mut seen = String::new();
    let reading = async {
        while let Some(message) = terminal.next().await {
            seen.push_str(message.unwrap().to_text().unwrap());
            if seen.contains(wanted) {
                return;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, reading).await.is_ok() && seen.contains(wanted);
    assert!(found, "{wanted:?} is not in {seen:?}");
    seen
}

async fn terminal(machine: &Machine) {
    let took = start(machine, Service::Terminal, 1).await;
    eprintln!("the terminal accepted connections {took:?} after it was asked for");
    let terminal = entry(Service::Terminal);
    let url = |path: &str| machine.url(terminal.port(1), path);
    assert!(curl(&[&url("/")]).await.contains("/terminal.js"));
    for path in ["/terminal.js", "/terminal.css", "/xterm/xterm.css", terminal.health_path] {
        assert_eq!(status(&[&url(path)]).await, "200", "{path}");
    }
    // A desktop is asked of the terminal. There is none, and nobody is shown a shell instead.
    for path in
        ["/?desktop=true&redirect=display&terminal_id=1601&display=1601", "/ws?desktop=true"]
    {
        assert!(curl(&[&url(path)]).await.contains("\"SERVICE_NOT_PROVIDED\""), "{path}");
        let page = ["--request", "POST", "--header", "Accept: text/html", &url(path)];
        assert!(curl(&page).await.contains("<h1>Not provided yet</h1>"), "{path}");
        assert_eq!(status(&page).await, "501", "{path}");
    }
    let xterm = curl(&[&url("/xterm/xterm.js")]).await;
    assert!(xterm.len() > 100_000, "xterm.js is {} bytes long", xterm.len());
    for path in ["/etc/passwd", "/../server.py", "/xterm/../../../../etc/passwd"] {
        let got = status(&["--path-as-is", &url(path)]).await;
        assert!(["403", "404"].contains(&got.as_str()), "{path}: {got}");
    }

    commands(machine).await;

    let mut browser = open(machine, 1).await;
    send(&mut browser, r#"["set_size", 30, 100]"#).await;
    send(&mut browser, r#"["stdin", "echo $((6*7))=; id -un; echo \"$PWD $KIT_TEST\"\r"]"#).await;
    // Both may come at once.
    let seen = shows(&mut browser, "/root seen by shells").await;
    assert!(seen.contains("42="), "{seen:?}");
    send(&mut browser, r#"["stdin", "stty size\r"]"#).await;
    shows(&mut browser, "30 100").await;

    // Pages of other origins may not open it; the container's own name is that of the request.
    let handshake = [
        "--http1.1",
        "--header",
        "Connection: Upgrade",
        "--header",
        "Upgrade: websocket",
        "--header",
        "Sec-WebSocket-Version: 13",
        "--header",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "--header",
        "Host: one.test:8443",
    ];
    for (origin, want) in [("https://two.test", "403"), ("https://one.test:8443", "101")] {
        let (origin, url) = (format!("Origin: {origin}"), url("/ws"));
        // One that is opened stays open so long.
        let arguments = [&handshake[..], &["--max-time", "5", "--header", &origin, &url]].concat();
        assert_eq!(status(&arguments).await, want, "{origin}");
    }
}

async fn one_session_for_all_who_look(machine: &Machine) {
    start(machine, Service::Terminal, 2).await;
    let (mut one, mut two) = (open(machine, 2).await, open(machine, 2).await);
    send(&mut one, r#"["stdin", "cd /usr && export MARK=$((40+3))\r"]"#).await;
    shows(&mut one, "/usr# ").await;
    send(&mut two, r#"["stdin", "echo $PWD:$MARK.\r"]"#).await;
    shows(&mut one, "/usr:43.").await;
    shows(&mut two, "/usr:43.").await;
    drop((one, two));

    // It outlives its server, and another index is another session.
    let stop = Exec::new(["systemctl", "restart", "gantry-terminal@2.service"]);
    assert!(machine.exec(&stop).await.status.success());
    let mut later = open(machine, 2).await;
    send(&mut later, r#"["stdin", "clear; echo still $MARK.\r"]"#).await;
    shows(&mut later, "still 43.").await;
    let mut other = open(machine, 1).await;
    send(&mut other, r#"["stdin", "clear; echo other:$MARK.\r"]"#).await;
    shows(&mut other, "other:.").await;

    // The end of the shell is told, and the next one who comes gets a new one.
    send(&mut later, r#"["stdin", "exit\r"]"#).await;
    shows(&mut later, "disconnect").await;
    let mut next = open(machine, 2).await;
    send(&mut next, r#"["stdin", "echo new:$MARK.\r"]"#).await;
    shows(&mut next, "new:.").await;
}

/// Runs commands without a session, as the official client does.
async fn commands(machine: &Machine) {
    let port = entry(Service::Terminal).port(1);
    let ask = async |path: &str, more: &[&str]| -> serde_json::Value {
        let url = machine.url(port, &format!("/api/v1/terminal/{path}"));
        let json = ["--header", "Content-Type: application/json", &url];
        let answer = curl(&[&json[..], more].concat()).await;
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{path}: {answer}"))
    };
    let run = async |body: &str| ask("execute?ephemeral=true", &["--data", body]).await;

    // What a command leaves behind keeps nobody waiting for it.
    let left = r#"{"command": "sleep 1000 & echo $KIT_TEST $A in $PWD; echo no >&2; exit 3", "cwd": "/tmp", "env": {"A": "b c"}}"#;
    let done = run(left).await;
    assert_eq!(done["stdout"], "seen by shells b c in /tmp\n", "{done}");
    assert_eq!((&done["stderr"], &done["exit_code"]), (&"no\n".into(), &3.into()), "{done}");
    assert_eq!(done["status"], "completed");
    let known = ask(&format!("result/{}", done["command_id"].as_str().unwrap()), &[]).await;
    assert_eq!(known, done);

    let begun = run(r#"{"command": "sleep 1000", "wait": false, "id": "long"}"#).await;
    assert_eq!((&begun["status"], &begun["command_id"]), (&"running".into(), &"long".into()));
    assert_eq!(run(r#"{"command": "true", "id": "long"}"#).await["statusCode"], 409);
    let ended = ask("execute/long/abort", &["--request", "POST"]).await;
    assert_eq!((&ended["status"], &ended["exit_code"]), (&"aborted".into(), &137.into()));
    let late = run(r#"{"command": "sleep 1000", "timeout": 0.2}"#).await;
    assert_eq!(late["status"], "timeout");
    let long = run(r#"{"command": "yes | head -c 2000000"}"#).await;
    assert_eq!((&long["truncated"], &long["exit_code"]), (&true.into(), &0.into()));
    assert_eq!(long["stdout"].as_str().map(str::len), Some(1 << 20));

    for (body, status, says) in [
        (r#"{"cmd": "true"}"#, 400, "Missing 'command' field"),
        (r#"{"command": "true", "cwd": "/nowhere"}"#, 400, "cwd"),
        (r#"{"command": "true", "env": {"A B": "c"}}"#, 400, "env"),
        (r#"{"command": "true", "timeout": 0}"#, 400, "timeout"),
        (r#"{"command": "true", "wait": "yes"}"#, 400, "wait"),
        ("{", 400, "JSON"),
    ] {
        let refused = run(body).await;
        let message = refused["message"].as_str().unwrap_or_default();
        assert!(refused["statusCode"] == status && message.contains(says), "{body}: {refused}");
    }
    // Pages of others run nothing, and neither do forms.
    let body = r#"{"command": "true"}"#;
    let strange = ["--data", body, "--header", "Origin: https://other.test"];
    assert_eq!(ask("execute?ephemeral=true", &strange).await["statusCode"], 403);
    let form = ["--data", body, "--header", "Content-Type: text/plain"];
    assert_eq!(ask("execute?ephemeral=true", &form).await["statusCode"], 415);
    assert_eq!(ask("execute?terminal_id=1", &["--data", body]).await["statusCode"], 501);
    assert_eq!(ask("result/unknown", &[]).await["statusCode"], 404);
}

async fn files(machine: &Machine) {
    start(machine, Service::Files, 1).await;
    let files = entry(Service::Files);
    let url = |path: &str| machine.url(files.port(1), path);
    assert_eq!(status(&[&url(files.health_path)]).await, "200");
    let listing = curl(&[&url("/etc/")]).await;
    assert!(listing.contains("os-release") && listing.contains("/.gantry-files/files.js"));
    assert_eq!(status(&[&url("/.gantry-files/files.js")]).await, "200");
    assert!(curl(&[&url("/usr/lib/os-release")]).await.contains("ID=debian"));

    let dir = tempfile::tempdir().unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (from, to) = (dir.path().join("sent"), dir.path().join("received"));
    std::fs::write(&from, &sent).unwrap();
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    let file = url("/root/a%20file.bin");
    assert_eq!(status(&["--upload-file", from, &file]).await, "201");
    curl(&["--output", to, &file]).await;
    assert!(std::fs::read(to).unwrap() == sent, "what comes back is what was sent");
    assert_eq!(curl(&["--range", "250-252", "--output", to, &file]).await, "");
    assert_eq!(std::fs::read(to).unwrap(), [250, 0, 1]);

    // As programs name files: a whole path in one segment.
    let whole = url("/api/v1/files/%2Froot%2Fwhole.bin");
    assert_eq!(status(&["--upload-file", from, &whole]).await, "201");
    curl(&["--output", to, &whole]).await;
    assert!(std::fs::read(to).unwrap() == sent, "what comes back is what was sent");
    for path in ["%2Fproc%2Fself%2Fcomm", "/proc/self/comm", "%2Froot%2F..%2Fproc%2Fself%2Fcomm"] {
        let url = url(&format!("/api/v1/files/{path}"));
        assert_eq!(status(&["--path-as-is", "--upload-file", from, &url]).await, "501", "{path}");
    }

    // As a client behind the edge speaks: whole URLs with the scheme and port of the edge.
    let behind = ["--header", "Host: one.test:8443", "--header", "X-Forwarded-Proto: https"];
    let behind = [&behind[..], &["--header", "X-Forwarded-For: 192.0.2.1"]].concat();
    let to = "Destination: https://one.test:8443/root/dir/moved.bin";
    for (method, path, header, want) in [
        ("MKCOL", "/root/dir/", "", "201"),
        ("MOVE", "/root/a%20file.bin", to, "201"),
        ("PROPFIND", "/root/dir/", "Depth: 1", "207"),
        ("DELETE", "/root/dir/", "", "204"),
        ("GET", "/root/dir/moved.bin", "", "404"),
        ("PUT", "/proc/sys/kernel/hostname", "", "405"),
    ] {
        let url = url(path);
        let mut arguments = [&behind[..], &["--request", method, &url]].concat();
        if !header.is_empty() {
            arguments.extend(["--header", header]);
        }
        let got = status(&arguments).await;
        assert!(got == want || (method == "PUT" && got != "201"), "{method} {path}: {got}");
    }

    // A page that somebody else wrote gets an origin of its own.
    std::fs::write(from, "<script>alert(1)</script>").unwrap();
    assert_eq!(status(&["--upload-file", from, &url("/root/x.html")]).await, "201");
    let head = curl(&["--head", &url("/root/x.html")]).await;
    assert!(head.contains("Content-Security-Policy: sandbox"), "{head}");
}

async fn user_and_system(machine: &Machine) {
    wait_for(machine, "systemctl is-system-running --quiet").await;
    for (script, want) in [
        ("systemctl --failed --no-legend --plain", ""),
        ("id -u user", "1000"),
        ("sudo -iu user sudo id -u", "0"),
        ("sudo -iu user ping -c 1 -W 5 127.0.0.1 >/dev/null && echo pong", "pong"),
        ("cat /proc/1/comm", "systemd"),
        ("systemctl show --property=NRestarts --value gantry-sessions", "0"),
        ("ls /etc/apt/sources.list.d", "debian.sources"),
    ] {
        assert_eq!(machine.shell(script).await, want, "{script}");
    }
    let id = machine.shell("cat /etc/machine-id").await;
    assert_eq!(id.len(), 32, "the first boot gave it an id: {id:?}");
    let boot = machine.shell("systemd-analyze time").await;
    eprintln!("{boot}");
}
