//! Containers that nobody uses go to sleep, and requests wake them: the real binary, real containers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::{Answer, Container, Foreign, Gantry, Options, Ssh, wait_for, wait_until, walk};
use serde_json::{Value, json};

use crate::{streams, upgrade::Counter};

const SOON: Duration = Duration::from_secs(30);
/// The least that an owner may choose.
const QUIET_S: u32 = 60;
/// How long a request that wakes a container is held, and how long one that is stopped may take.
const WAKE_S: u32 = 10;
const GRACE_S: u32 = 20;
const NAVIGATE: [&str; 4] = ["-H", "Sec-Fetch-Mode: navigate", "-H", "Accept: text/html"];

/// Sets how the edge treats a container, by the API.
fn settings(gantry: &Gantry, container: &Container, settings: &Value) -> Result<()> {
    let url = gantry.api_url(&format!("containers/{}/proxy/edge", container.id));
    let fields = ["-X", "PATCH", "-H", "Content-Type: application/json", "-d"];
    let curl = gantry.curl_api().with(fields).with([settings.to_string()]);
    curl.fetch(&url)?.expect(200)?;
    Ok(())
}

fn status(gantry: &Gantry, container: &Container) -> Result<String> {
    let url = gantry.api_url(&format!("containers/{}", container.id));
    let shown = gantry.curl_api().fetch(&url)?.expect(200)?.json()?;
    Ok(shown["data"]["status"].as_str().context("no status")?.to_owned())
}

fn is_status(gantry: &Gantry, container: &Container, want: &str) -> Result<()> {
    let found = status(gantry, container)?;
    ensure!(found == want, "it is {found}, not {want}");
    Ok(())
}

fn manage(gantry: &Gantry, container: &Container, operation: &str, more: &[&str]) -> Result<()> {
    let args = [&["containers", "manage", &container.id, operation], more].concat();
    gantry.json(&args).map(drop)
}

fn code(answer: &Answer) -> Option<&str> {
    answer.header("x-gantry-error")
}

#[test]
fn a_container_that_nobody_uses_sleeps_until_a_request_wakes_it() {
    let options = Options::embedded()
        .set(&format!("edge.wake_timeout_s={WAKE_S}"))
        .set(&format!("control.stop_grace_s={GRACE_S}"))
        // Whatever is done, all else waits for it.
        .set("control.concurrency=1");
    walk(options, |gantry| {
        let project = gantry.create_project("sleepers")?;
        let busy = gantry.create_running(&project, &[])?;
        let quiet = gantry.create_running(&project, &[])?;
        streams::serve(gantry, &busy)?;
        streams::serve(gantry, &quiet)?;
        one_goes_to_sleep_and_the_other_does_not(gantry, &quiet, &busy)?;
        one_that_shall_not_wake_does_not(gantry, &quiet)?;
        many_requests_wake_it_once(gantry, &quiet)?;
        whoever_is_known_wakes_it(gantry, &quiet)?;
        a_page_opens_one_that_was_stopped(gantry, &quiet, &busy)
    });
}

/// Pings, and a page that polls, do not keep one awake; what somebody reads does, and what is typed in sessions.
fn one_goes_to_sleep_and_the_other_does_not(
    gantry: &Gantry,
    quiet: &Container,
    busy: &Container,
) -> Result<()> {
    let ssh = Ssh::new(gantry)?;
    let key = ssh.key("key", "ed25519")?;
    let by_ssh = gantry.create_running(&busy.project, &["--ssh-public-key", &key.line])?;
    let by_exec = gantry.create_running(&busy.project, &[])?;
    let mut sessions = [Counter::over_ssh(&ssh, &key)?, Counter::over_exec(gantry, &by_exec)?];
    for container in [busy, quiet, &by_ssh, &by_exec] {
        settings(gantry, container, &json!({"idle_pause_after": QUIET_S}))?;
    }
    let host = gantry.host(quiet, "http-3000");
    let mut pings = Foreign::start(gantry, "held.py", &host, &["idle"])?;
    pings.says("open")?;
    let mut page = 0;
    let bound = Duration::from_secs(u64::from(QUIET_S) + 60);
    wait_until("the quiet one sleeps", bound, || {
        page += 1;
        let read = gantry.curl().status(&gantry.url(busy, "http-3000", &format!("/page/{page}")));
        let typed = sessions.iter_mut().all(|session| session.count().is_ok());
        read == 200 && typed && status(gantry, quiet).is_ok_and(|status| status == "paused")
    })?;
    for container in [busy, &by_ssh, &by_exec] {
        is_status(gantry, container, "running")?;
    }
    let causes = resumes_and_pauses(gantry, quiet)?;
    ensure!(causes == ["paused by idle"], "{causes:?}");
    for container in [busy, quiet] {
        settings(gantry, container, &json!({"idle_pause_after": null}))?;
    }
    Ok(())
}

/// How a container has been paused and resumed so far, the first first.
fn resumes_and_pauses(gantry: &Gantry, container: &Container) -> Result<Vec<String>> {
    let logs = gantry.json(&["containers", "status-logs", &container.id, "--limit", "100"])?;
    let logs = logs["logs"].as_array().context("no logs")?;
    let told = logs.iter().rev().filter_map(|log| {
        let (from, to) = (log["from_status"].as_str()?, log["to_status"].as_str()?);
        let by = log["triggered_by"].as_str().unwrap_or("nobody");
        (from == "paused" || to == "paused").then(|| format!("{to} by {by}"))
    });
    Ok(told.collect())
}

fn one_that_shall_not_wake_does_not(gantry: &Gantry, container: &Container) -> Result<()> {
    let url = gantry.url(container, "http-3000", "/");
    for args in [&[][..], &NAVIGATE] {
        let answer = gantry.curl().with(args.iter().copied()).fetch(&url)?.expect(503)?;
        ensure!(code(&answer) == Some("CONTAINER_PAUSED"), "{answer:?}");
        ensure!(answer.header("retry-after") == Some("30"), "{answer:?}");
    }
    is_status(gantry, container, "paused")
}

fn many_requests_wake_it_once(gantry: &Gantry, container: &Container) -> Result<()> {
    settings(gantry, container, &json!({"wake": "any"}))?;
    let before = resumes_and_pauses(gantry, container)?.len();
    let url = gantry.url(container, "http-3000", "/");
    let curl = gantry.curl();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..20).map(|_| scope.spawn(|| curl.fetch(&url))).collect();
        asked.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    for answer in answers {
        let answer = answer.map_err(|panic| anyhow::anyhow!("a client panicked: {panic:?}"))??;
        ensure!(answer.status == 200 && answer.text() == "hello\n", "{answer:?}");
    }
    is_status(gantry, container, "running")?;
    let all = resumes_and_pauses(gantry, container)?;
    let since = all.get(before..).unwrap_or_default();
    ensure!(since == ["running by wake_on_request"], "resumed more than once: {all:?}");
    Ok(())
}

fn whoever_is_known_wakes_it(gantry: &Gantry, container: &Container) -> Result<()> {
    let permissions = gantry.api_url(&format!("containers/{}/proxy/permissions", container.id));
    // Whoever is near may pass, too, but is not known by that.
    let document = json!({
        "project": container.project, "container": container.id,
        "groups": {
            "near": {"type": "ip", "range": "127.0.0.0/8"},
            "people": {"type": "password", "username": "ann", "password": "right"},
        },
        "permissions": {"near": {"http": true}, "people": {"http": true}},
        "default": "deny",
    });
    let fields =
        ["-X", "PUT", "-H", "Content-Type: application/json", "-H", "If-Match: file:v0", "-d"];
    let curl = gantry.curl_api().with(fields).with([document.to_string()]);
    curl.fetch(&permissions)?.expect(200)?;
    settings(gantry, container, &json!({"wake": "authed"}))?;
    manage(gantry, container, "pause", &["--wait"])?;
    let url = gantry.url(container, "http-3000", "/");
    for args in [&[][..], &["-u", "ann:wrong"], &NAVIGATE] {
        let answer = gantry.curl().with(args.iter().copied()).fetch(&url)?.expect(503)?;
        ensure!(code(&answer) == Some("CONTAINER_PAUSED"), "{args:?}: {answer:?}");
        is_status(gantry, container, "paused")?;
    }
    let answer = gantry.curl().with(["-u", "ann:right"]).fetch(&url)?.expect(200)?;
    ensure!(answer.text() == "hello\n", "{answer:?}");
    is_status(gantry, container, "running")
}

/// A browser is shown a page that waits, everything else is held and then told to come back; while the
/// one that was stopped cannot start, because another one takes its time to stop.
fn a_page_opens_one_that_was_stopped(
    gantry: &Gantry,
    container: &Container,
    other: &Container,
) -> Result<()> {
    settings(gantry, container, &json!({"wake": "navigate"}))?;
    manage(gantry, container, "stop", &["--wait"])?;
    // The service that is there after a start.
    let url = gantry.url(container, "http-19800", "/");
    let plain = gantry.curl().fetch(&url)?.expect(503)?;
    ensure!(code(&plain) == Some("CONTAINER_STOPPED"), "no page is opened: {plain:?}");
    is_status(gantry, container, "stopped")?;
    let stubborn = ["sh", "-c", "trap '' TERM; while :; do sleep 1000; done"];
    let unit = [&["-p", "TimeoutStopSec=1000"], &stubborn[..]].concat();
    gantry.start_inside(other, &unit)?;
    std::thread::scope(|scope| {
        // It answers when the other one has been stopped.
        let stopping = scope.spawn(|| manage(gantry, other, "stop", &[]));
        let shown = shown_while_another_stops(gantry, (container, &url), other);
        stopping.join().map_err(|panic| anyhow::anyhow!("no stop: {panic:?}"))?.and(shown)
    })?;
    // What a browser does with such a page.
    let curl = gantry.curl().with(NAVIGATE);
    let opened = wait_for("the page opens", SOON, || {
        curl.fetch(&url).ok().filter(|answer| answer.status == 200)
    })?;
    ensure!(!opened.text().contains("Waking up"), "{opened:?}");
    is_status(gantry, container, "running")
}

fn shown_while_another_stops(
    gantry: &Gantry,
    (container, url): (&Container, &str),
    other: &Container,
) -> Result<()> {
    // The API calls it running until it has stopped; the edge lets nobody in any more.
    let door = gantry.url(other, "http-3000", "/");
    wait_until("the other one is being stopped", SOON, || {
        gantry.curl().fetch(&door).is_ok_and(|it| code(&it) == Some("CONTAINER_STOPPED"))
    })?;
    let first = gantry.curl().with(NAVIGATE).fetch(url)?.expect(503)?;
    let text = first.text();
    ensure!(code(&first) == Some("CONTAINER_WAKING"), "{first:?}");
    ensure!(first.header("retry-after") == Some("1"), "{first:?}");
    for part in [&format!("max={WAKE_S} value=1>"), "http-equiv=refresh", "is starting"] {
        ensure!(text.contains(part), "no {part} in {text}");
    }
    settings(gantry, container, &json!({"wake": "any"}))?;
    let held = gantry.curl().with(["-H", "Accept: application/json"]).fetch(url)?.expect(503)?;
    ensure!(code(&held) == Some("CONTAINER_WAKING"), "{held:?}");
    ensure!(held.header("retry-after") == Some("1"), "{held:?}");
    ensure!(held.json()?["code"] == "CONTAINER_WAKING", "{held:?}");
    Ok(())
}
