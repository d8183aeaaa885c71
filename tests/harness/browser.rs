//! Headless Chromium, driven through `chromedriver` (the W3C `WebDriver` protocol).

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{outside::Outside, wait_for, wait_until};

/// The port of `chromedriver`, where it is alone.
const PORT: u16 = 9515;

/// A browser with a profile of its own that trusts one CA, as a user who has imported it. It is in a
/// network of its own: a browser drops its requests and connections when an interface comes or goes, and
/// on this machine each container has one.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    session: String,
    outside: Outside,
    _home: TempDir,
}

impl Browser {
    /// Starts one. Names under `.localhost` are looked for at `address`. `http3` names a host and its
    /// port that it shall speak to by HTTP/3 alone: it believes a private CA about no other.
    pub fn start(ca: &Path, address: Ipv4Addr, http3: Option<&str>) -> Result<Self> {
        let home = tempfile::tempdir().context("a home for the browser")?;
        trust(home.path(), ca)?;
        let outside = Outside::new()?;
        outside.lead_to(address)?;
        let driver = outside
            .command("chromedriver")
            .arg(format!("--port={PORT}"))
            .arg("--log-level=SEVERE")
            .env("HOME", home.path())
            .env("XDG_CONFIG_HOME", home.path().join(".config"))
            .env("XDG_CACHE_HOME", home.path().join(".cache"))
            .env("XDG_DATA_HOME", home.path().join(".local/share"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("chromedriver is needed")?;
        let here = outside.here;
        let mut browser = Self { driver, session: String::new(), outside, _home: home };
        wait_until("chromedriver is ready", Duration::from_secs(30), || {
            browser.call("GET", "/status", None).is_ok_and(|status| status["ready"] == true)
        })?;
        let quic = http3.map_or_else(
            || "--disable-quic".to_owned(),
            |host| format!("--origin-to-force-quic-on={host}"),
        );
        let flags = [
            &quic,
            "--headless",
            "--no-sandbox", // the tests run as root
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-default-browser-check",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-proxy-server",
            "--window-size=1000,700",
            &format!("--host-resolver-rules=MAP *.localhost {here}"),
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": flags, "binary": "/usr/bin/chromium"},
            "timeouts": {"pageLoad": 60_000, "script": 30_000},
        }}});
        let made = browser.call("POST", "/session", Some(&capabilities))?;
        let session = made["sessionId"].as_str().context("no session")?;
        browser.session = format!("/session/{session}");
        Ok(browser)
    }

    /// Opens a page and waits until it has loaded.
    pub fn open(&self, url: &str) -> Result<()> {
        self.ask("POST", "/url", Some(&json!({"url": url}))).map(drop)
    }

    /// Runs JavaScript in the page; `return` gives the result.
    pub fn script(&self, script: &str) -> Result<Value> {
        self.ask("POST", "/execute/sync", Some(&json!({"script": script, "args": []})))
    }

    /// Waits until a script returns something true.
    pub fn wait_script(&self, what: &str, script: &str, bound: Duration) -> Result<Value> {
        wait_for(what, bound, || {
            let found = self.script(script).ok()?;
            let nothing =
                found.is_null() || found == false || found == "" || found.as_i64() == Some(0);
            (!nothing).then_some(found)
        })
    }

    /// Types on the keyboard, to whatever has the focus. `\n` is the Enter key.
    pub fn press(&self, text: &str) -> Result<()> {
        let keys: Vec<Value> = text
            .chars()
            .map(|key| if key == '\n' { '\u{e007}' } else { key })
            .flat_map(|key| {
                let key = key.to_string();
                [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]
            })
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": keys}]});
        self.ask("POST", "/actions", Some(&actions))?;
        Ok(())
    }

    /// The title of the page.
    pub fn title(&self) -> Result<String> {
        Ok(self.ask("GET", "/title", None)?.as_str().unwrap_or_default().to_owned())
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.call(method, &format!("{}{path}", self.session), body)
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut curl = self.outside.command("curl");
        curl.args(["-sS", "--noproxy", "*", "--max-time", "90", "-X", method]);
        if let Some(body) = body {
            curl.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
        }
        let output = curl
            .arg(format!("http://127.0.0.1:{PORT}{path}"))
            .stdin(Stdio::null())
            .output()
            .context("curl is needed")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        let answer: Value = serde_json::from_slice(&output.stdout).context("no JSON")?;
        let value = answer["value"].clone();
        ensure!(
            value.get("error").is_none(),
            "{method} {path}: {} {}",
            value["error"],
            value["message"]
        );
        Ok(value)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            drop(self.ask("DELETE", "", None));
        }
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

/// Puts the CA where the browser looks for what its user trusts.
fn trust(home: &Path, ca: &Path) -> Result<()> {
    for place in [".pki/nssdb", ".local/share/pki/nssdb"] {
        let database = home.join(place);
        fs::create_dir_all(&database)?;
        let database = format!("sql:{}", database.display());
        let ca = ca.to_string_lossy();
        for args in [
            &["-N", "--empty-password", "-d", &database][..],
            &["-A", "-n", "gantry", "-t", "C,,", "-i", &ca, "-d", &database],
        ] {
            let output = Command::new("certutil").args(args).output().context("certutil")?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(())
}
