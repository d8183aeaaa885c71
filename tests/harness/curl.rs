//! curl, as a client that knows nothing of Gantry.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A way to call curl: trusts one CA and connects to one address, whatever the URL's host.
#[derive(Clone, Debug)]
pub struct Curl {
    ca: PathBuf,
    connect_to: SocketAddr,
    args: Vec<String>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status; 0 when there was no answer.
    pub status: u16,
    /// `name: value` lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// `1.1`, `2` …
    pub http_version: String,
    /// What curl says about a failure.
    pub complaint: String,
}

impl Curl {
    pub(crate) fn new(ca: &Path, connect_to: SocketAddr) -> Self {
        Self { ca: ca.to_owned(), connect_to, args: Vec::new() }
    }

    /// The same with more arguments.
    #[must_use]
    pub fn with<I: IntoIterator<Item: Into<String>>>(&self, args: I) -> Self {
        let mut more = self.clone();
        more.args.extend(args.into_iter().map(Into::into));
        more
    }

    /// Fetches a URL. No answer is an [`Answer`], too: with status 0.
    pub fn fetch(&self, url: &str) -> Result<Answer> {
        let directory = tempfile::tempdir().context("a directory for curl's output")?;
        let (head, body) = (directory.path().join("head"), directory.path().join("body"));
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "60", "--noproxy", "*", "--cacert"])
            .arg(&self.ca)
            .args(["--connect-to", &format!("::{}", self.connect_to)])
            .args(["-w", "%{http_code} %{http_version}"])
            .arg("-D")
            .arg(&head)
            .arg("-o")
            .arg(&body)
            .args(&self.args)
            .arg(url)
            .stdin(Stdio::null())
            .output()
            .context("curl is needed")?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let (status, version) = told.split_once(' ').unwrap_or(("0", ""));
        Ok(Answer {
            status: status.parse().unwrap_or(0),
            headers: parse_headers(&std::fs::read_to_string(&head).unwrap_or_default()),
            body: std::fs::read(&body).unwrap_or_default(),
            http_version: version.to_owned(),
            complaint: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// The status alone; 0 when there was no answer.
    pub fn status(&self, url: &str) -> u16 {
        self.fetch(url).map_or(0, |answer| answer.status)
    }
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.text()))
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(candidate, _)| candidate == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Fails, showing everything, unless the status is this one.
    pub fn expect(self, status: u16) -> Result<Self> {
        ensure!(
            self.status == status,
            "status {} instead of {status}: {}\n{}",
            self.status,
            self.complaint,
            self.text()
        );
        Ok(self)
    }
}

fn parse_headers(head: &str) -> Vec<(String, String)> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect()
}
