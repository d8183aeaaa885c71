//! An acme-dns server's API, and accounts as its clients keep them.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use gantry_certs::dns::{DnsConfig, Txt};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Lab, provider, txt, value, with};
use crate::knot::{Key, Place, Zone};

const FULLDOMAIN: &str = "8e5700ea-a4bf.auth.test";

/// Domains with the CNAME, with a wrong one, and with none.
const ZONES: [Zone<'static>; 2] = [
    (
        "good.test",
        "@ NS ns1\nns1 A HOST1\n_acme-challenge CNAME 8e5700ea-a4bf.auth.test.\n\
         _acme-challenge.wrong CNAME elsewhere.auth.test.",
    ),
    ("auth.test", "@ NS ns1.good.test."),
];

/// The stand-in; it ends when its standard input does.
struct Api {
    child: Child,
    port: u16,
}

impl Api {
    fn start() -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acme/dns/acme_dns.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self { child, port: line.trim().parse()? })
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The values that it keeps, in order, and how often one was written.
    fn state(&self) -> Result<(Vec<String>, u64)> {
        let output = Command::new("curl").args(["-sS", &self.url()]).output()?;
        let state: Value = serde_json::from_slice(&output.stdout)?;
        let values = state["values"].as_array().context("no values")?.iter();
        let mut values: Vec<_> = values.filter_map(Value::as_str).map(str::to_owned).collect();
        values.retain(|value| !value.is_empty());
        values.sort();
        Ok((values, state["writes"].as_u64().context("no number")?))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let ended = self.child.wait();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

struct AcmeDnsLab {
    lab: Lab,
    api: Api,
    dir: TempDir,
}

impl AcmeDnsLab {
    fn new() -> Result<Self> {
        let key = Key::new("unused", "hmac-sha256")?;
        let lab = Lab::of(Place::new()?, key, 1, &ZONES)?;
        let lab = Self { lab, api: Api::start()?, dir: tempfile::tempdir()? };
        let account = lab.account();
        let file = json!({
            "good.test": account, "wrong.good.test": account, "none.good.test": account,
        });
        lab.write(&file.to_string())?;
        Ok(lab)
    }

    /// As lego and acme-dns-client keep it.
    fn account(&self) -> Value {
        json!({
            "fulldomain": FULLDOMAIN, "subdomain": "8e5700ea-a4bf", "username": "c36f50e8",
            "password": "htB9mR9DYgcu9bX", "server_url": self.api.url(), "allowfrom": [],
        })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("accounts.json")
    }

    fn write(&self, text: &str) -> Result<()> {
        fs::write(self.path(), text)?;
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    fn table(&self) -> Value {
        json!({ "provider": "acme-dns", "accounts": self.path(), "timeout_s": 5 })
    }

    async fn append(&self, table: &Value, name: &str, letter: char) -> Result<(), String> {
        let provider = provider(table, &self.lab.propagation(9));
        provider.append(&txt(name, letter)).await.map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn two_values_stay_and_none_is_written_twice() -> Result<()> {
    let lab = AcmeDnsLab::new()?;
    let provider = provider(&lab.table(), &lab.lab.propagation(9));
    // By the end of the delegation, as the issuer says it, and by the domain's own name.
    provider.append(&txt(FULLDOMAIN, 'a')).await?;
    provider.append(&txt("_acme-challenge.good.test", 'b')).await?;
    for letter in ['b', 'a', 'b'] {
        provider.append(&txt(FULLDOMAIN, letter)).await?;
    }
    assert_eq!(lab.api.state()?, (vec![value('a'), value('b')], 2));
    provider.remove(&txt("_acme-challenge.good.test", 'a')).await?;
    provider.remove(&txt("_acme-challenge.good.test", 'a')).await?;
    // It is only forgotten: the next one takes its place.
    assert_eq!(lab.api.state()?, (vec![value('a'), value('b')], 2));
    provider.append(&txt(FULLDOMAIN, 'c')).await?;
    assert_eq!(lab.api.state()?, (vec![value('b'), value('c')], 3));
    Ok(())
}

#[tokio::test]
async fn the_name_must_lead_to_the_account() -> Result<()> {
    let lab = AcmeDnsLab::new()?;
    for (name, want) in [
        (
            "_acme-challenge.wrong.good.test",
            "must be a CNAME to 8e5700ea-a4bf.auth.test, but it leads to elsewhere.auth.test",
        ),
        (
            "_acme-challenge.none.good.test",
            "must be a CNAME to 8e5700ea-a4bf.auth.test, but there is none",
        ),
        ("_acme-challenge.unknown.test", "has no account for _acme-challenge.unknown.test"),
        ("elsewhere.auth.test", "has no account for elsewhere.auth.test"),
    ] {
        let text = lab.append(&lab.table(), name, 'a').await.unwrap_err();
        assert!(text.contains(name) && text.contains(want), "{text}\nwanted: {want}");
    }
    assert_eq!(lab.api.state()?, (Vec::new(), 0));
    Ok(())
}

#[tokio::test]
async fn a_refusal_is_explained_and_shows_no_password() -> Result<()> {
    let lab = AcmeDnsLab::new()?;
    let url = lab.api.url();
    for (key, value, want) in [
        ("password", "another-password", "answers 401 Unauthorized ({\"error\": \"forbidden\"})"),
        ("subdomain", "other", "with this password and subdomain, or allows it from other"),
        ("server_url", &format!("{url}/base/"), "/base/update answers 404 Not Found"),
        ("server_url", &format!("{url}/moved"), "/moved/update answers 307 Temporary Redirect"),
        ("server_url", "http://127.0.0.1:1", "http://127.0.0.1:1/update does not answer: "),
        ("server_url", "http://192.0.2.1", "the account's server_url must be https, because"),
        ("server_url", "", "its account has no server_url, nor is server set"),
        ("username", "a\nb", "the account's username or password cannot be sent in a header"),
    ] {
        let account = with(lab.account(), key, value);
        lab.write(&json!({ "good.test": account }).to_string())?;
        let text = lab.append(&lab.table(), FULLDOMAIN, 'a').await.unwrap_err();
        assert!(text.contains(want), "{text}\nwanted: {want}");
        assert!(
            !text.contains("password\"") && !text.contains("htB9") && !text.contains("another"),
            "{text}"
        );
    }
    // Read anew with each change; a server of the table's own where the account has none.
    let account = with(lab.account(), "server_url", "");
    lab.write(&json!({ "Good.Test.": account }).to_string())?;
    let table = with(lab.table(), "server", url);
    lab.append(&table, FULLDOMAIN, 'a').await.unwrap();
    let provider = provider(&table, &lab.lab.propagation(9));
    let short = Txt { name: FULLDOMAIN.to_owned(), value: "short".to_owned() };
    let text = provider.append(&short).await.unwrap_err().to_string();
    assert!(text.contains("400 Bad Request ({\"error\": \"bad_txt\"}): it has refused"), "{text}");
    assert_eq!(lab.api.state()?, (vec![value('a')], 1));
    Ok(())
}

#[tokio::test]
async fn a_table_of_acme_dns_says_what_is_wrong() -> Result<()> {
    let lab = AcmeDnsLab::new()?;
    let told = |table: Value, want: &str| {
        let config: DnsConfig = serde_json::from_value(table).unwrap();
        let faults = config.provider(&lab.lab.propagation(9)).unwrap_err();
        let text = faults[0].to_string();
        assert!(faults.len() == 1 && text.contains(want), "{text}\nwanted: {want}");
    };
    for (key, value, want) in [
        ("server", json!("auth.test"), "server: must be an https address such as"),
        ("server", json!("ftp://auth.test"), "server: must be an https address such as"),
        ("server", json!("http://auth.test"), "server: must be https, because the account's"),
        ("timeout_s", json!(0), "timeout_s: must be 1 to 60 seconds, found 0"),
        ("accounts", json!("/nowhere/accounts"), "accounts: /nowhere/accounts: No such file"),
    ] {
        told(with(lab.table(), key, value), want);
    }
    lab.write("{\"good.test\": {\"password\": \"secret\"}}")?;
    told(lab.table(), "must be a JSON object with an account for each domain");
    lab.write("{}")?;
    fs::set_permissions(lab.path(), fs::Permissions::from_mode(0o644))?;
    told(lab.table(), "must be readable by its owner only: chmod 600");
    Ok(())
}
