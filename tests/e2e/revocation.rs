//! A change of who may pass, made through the API, reaches what already streams.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use gantry_tests::{Container, Foreign, Gantry, Options, walk};
use serde_json::{Value, json};

use crate::streams;

/// The bound is one second; tests run on machines that do other things, too.
const WITHIN: Duration = Duration::from_secs(3);

/// A container, and the three connections that somebody with one credential holds open to it.
struct Held<'g> {
    gantry: &'g Gantry,
    container: &'g Container,
}

impl Held<'_> {
    fn documents(&self) -> String {
        self.gantry.api_url(&format!("containers/{}/proxy/permissions", self.container.id))
    }

    /// Sends a change of the document at the version that it has.
    fn write(&self, method: &str, path: &str, body: &Value) -> Result<()> {
        let documents = self.documents();
        let shown = self.gantry.curl_api().fetch(&documents)?;
        let shown = shown.json()?;
        let etag = shown["data"]["etag"].as_str().unwrap_or("file:v0");
        let fields = ["-X", method, "-H", "Content-Type: application/json", "-H"];
        let curl = self.gantry.curl_api().with(fields);
        let curl = curl.with([format!("If-Match: {etag}"), "-d".to_owned(), body.to_string()]);
        let answer = curl.fetch(&format!("{documents}{path}"))?;
        ensure!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        Ok(())
    }

    fn status(&self, field: &str) -> u16 {
        let url = self.gantry.url(self.container, "http-3000", "/");
        self.gantry.curl().with(["-H", field]).status(&url)
    }

    /// Whoever brings `field` streams; after `change` nothing of that goes on, and nothing new begins.
    fn is_cut_by(
        &self,
        what: &str,
        field: &str,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let host = self.gantry.host(self.container, "http-3000");
        let mut client = Foreign::start(self.gantry, "held.py", &host, &["cut", field])?;
        client.says("open")?;
        let asked = Instant::now();
        change()?;
        let answered = asked.elapsed();
        let mut cut = Vec::new();
        for _ in 0..3 {
            let line = client.line()?;
            let took = asked.elapsed();
            let told = format!("{what}: {line} after {took:?}, and the API after {answered:?}");
            // Standard error may be closed; then nobody reads it.
            drop(writeln!(io::stderr(), "{told}"));
            // From when the change was sent: its way and its record are part of it.
            ensure!(took < WITHIN, "{what}: {line} only after {took:?}");
            cut.push(line);
        }
        cut.sort_unstable();
        ensure!(cut == ["cut download", "cut events", "cut websocket"], "{what}: {cut:?}");
        let status = self.status(field);
        ensure!(matches!(status, 401 | 403), "{what}: a new request was answered with {status}");
        Ok(())
    }
}

/// A document in which these tokens, or Ann's password, open port 3000, and nothing else does.
fn document(container: &Container, tokens: &[&str]) -> Value {
    let token = |value: &&str| json!({"type": "token", "header": "X-Key", "value": value});
    json!({
        "project": container.project, "container": container.id,
        "groups": {
            "keys": tokens.iter().map(token).collect::<Vec<_>>(),
            "people": {"type": "password", "username": "ann", "password": "one"},
        },
        "permissions": {"keys": {"http": 3000}, "people": {"http": 3000}},
        "default": "deny",
    })
}

/// What Ann sends, before and after her password has changed: `ann:one`, `ann:two`.
const ANN: &str = "Authorization: Basic YW5uOm9uZQ==";
const ANN_LATER: &str = "Authorization: Basic YW5uOnR3bw==";

#[test]
fn a_change_by_the_api_cuts_who_may_not_pass_any_more_within_a_second() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("revoked")?;
        let container = gantry.create_running(&project, &[])?;
        streams::serve(gantry, &container)?;
        let held = Held { gantry, container: &container };
        let put = |tokens: &[&str]| held.write("PUT", "", &document(&container, tokens));
        // Whoever came while it was open has proved nothing.
        held.is_cut_by("a first document", "X-Key: none", || put(&["a", "b"]))?;
        ensure!(held.status("X-Key: a") == 200, "a token opens it");
        let host = gantry.host(&container, "http-3000");
        let mut other = Foreign::start(gantry, "held.py", &host, &["cut", "X-Key: b"])?;
        other.says("open")?;
        held.is_cut_by("a token taken away", "X-Key: a", || put(&["b"]))?;
        held.is_cut_by("another password", ANN, || {
            let two = json!({"username": "ann", "password": "two"});
            held.write("PATCH", "/groups/people/password", &two)
        })?;
        ensure!(held.status(ANN_LATER) == 200, "the new password opens it");
        held.is_cut_by("a cell taken away", "X-Key: b", || {
            held.write("DELETE", "/permissions/keys/http", &json!({}))
        })?;
        // Who had the other token was left alone until then.
        let mut lines = [other.line()?, other.line()?, other.line()?];
        lines.sort_unstable();
        ensure!(lines == ["cut download", "cut events", "cut websocket"], "{lines:?}");
        Ok(())
    });
}
