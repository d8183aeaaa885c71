//! `gantry certs` and `gantry doctor` where the development CA issues: curl looks whether the system trusts it,
//! certutil whether a browser does, in a mount namespace of the test's own.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Output};

use anyhow::{Context as _, Result, ensure};
use gantry_tests::{Gantry, Options, walk};
use serde_json::Value;

/// Trusts and does not any more, what its arguments say; looks before, between and after.
const TRUST: &str = r#"
set -eu
mkdir "$HOME/certs"
cp -a /etc/ssl/certs/. "$HOME/certs"
mount --bind "$HOME/certs" /etc/ssl/certs
mount -t tmpfs none /usr/local/share/ca-certificates
database="sql:$HOME/.pki/nssdb"
mkdir -p "$HOME/.pki/nssdb"
certutil -N --empty-password -d "$database"
trusted() { curl -sSo /dev/null --noproxy '*' --connect-to "::$ADDRESS:8443" "$URL"; }
in_browser() { certutil -L -d "$database" | grep 'Gantry development CA'; }
if trusted || in_browser; then echo 'trusted before'; exit 1; fi
"$@"
trusted
in_browser | grep ' C,,'
"$@" --uninstall
if trusted || in_browser; then echo 'trusted after'; exit 1; fi
"$@" --uninstall
"#;

#[test]
fn the_operator_lists_and_trusts_certificates_and_hears_what_is_wrong() {
    walk(Options::fake(), |gantry| {
        let state = gantry.state().display().to_string();
        listed(gantry, &state)?;
        trusted(gantry, &state)?;
        examined(gantry, &state)?;
        gantry.stop()?;
        let (code, said) = run(gantry, &["doctor", "--state", &state])?;
        ensure!(code == 1 && said.contains("no Gantry runs on"), "{code}: {said}");
        Ok(())
    });
}

fn listed(gantry: &Gantry, state: &str) -> Result<()> {
    let list = gantry.json(&["certs", "list", "--state", state])?;
    let [only] = &list["certificates"].as_array().context("no list")?[..] else {
        anyhow::bail!("{list}");
    };
    ensure!(only["kind"] == "development" && only["state"] == "valid", "{only}");
    ensure!(only["is_shown"] == true && only["next_attempt_at"].is_string(), "{only}");
    let names = only["hostnames"].as_array().context("no names")?;
    ensure!(names.contains(&Value::from("*.local.containers.gantry.localhost")), "{only}");
    let filtered = gantry.json(&["certs", "list", "nobody", "--state", state])?;
    ensure!(filtered["total"] == 0, "{filtered}");
    let (code, table) = run(gantry, &["certs", "list", "API.", "--state", state])?;
    ensure!(code == 0 && table.contains("gantry.localhost (+"), "{table}");
    for (name, want_code, want) in [
        ("api.gantry.localhost", 5, "of the development CA, which renews by itself, next at 20"),
        ("nobody.example.org", 4, "there is no certificate for nobody.example.org"),
    ] {
        let (code, said) = run(gantry, &["certs", "renew", name, "--state", state])?;
        ensure!(code == want_code && said.contains(want), "{code}: {said}");
    }
    Ok(())
}

fn trusted(gantry: &Gantry, state: &str) -> Result<()> {
    let trust = ["certs", "trust", "--state", state];
    let printed = gantry.cli(&[&trust[..], &["--print"]].concat())?;
    ensure!(printed.stdout == fs::read(gantry.ca_path())?, "{printed:?}");
    let (address, url) = (gantry.address().to_string(), gantry.api_url("meta/config"));
    let env = [("ADDRESS", address.as_str()), ("URL", url.as_str())];
    let output =
        gantry.cli_under("unshare", &["--mount", "sh", "-c", TRUST, "sh"], &env, &trust)?;
    ensure!(output.status.success(), "{output:?}");
    // Root of a user namespace of its own is not root here.
    let output = gantry.cli_under("unshare", &["--user"], &[], &trust)?;
    let (code, said) = told(&output);
    ensure!(code == 3 && said.contains("sudo ") && said.contains("certs trust --state"), "{said}");
    Ok(())
}

fn examined(gantry: &Gantry, state: &str) -> Result<()> {
    let (code, said) = run(gantry, &["doctor", "--state", state])?;
    ensure!(code == 0, "{said}");
    for want in
        ["runs as process", "edge.https", "1, of which 0 have expired", "server local answers"]
    {
        ensure!(said.contains(want), "{want}: {said}");
    }
    let name = "x.local.containers.gantry.localhost";
    let report = gantry.json(&["doctor", name, "--state", state])?;
    let findings = report["findings"].as_array().context("no findings")?;
    let is_shown = |it: &Value| it["check"] == "certificate" && it["verdict"] == "ok";
    ensure!(report["name"] == name && findings.iter().any(is_shown), "{report}");
    let (code, said) = run(gantry, &["doctor", "shop.example.org", "--json", "--state", state])?;
    ensure!(code == 1 && said.contains("gantry hostnames bind"), "{code}: {said}");
    let (code, said) = run(gantry, &["doctor", "no..name", "--state", state])?;
    ensure!(code == 2 && said.contains("is no hostname"), "{code}: {said}");
    fs::set_permissions(state, fs::Permissions::from_mode(0o777))?;
    let (code, said) = run(gantry, &["doctor", "--state", state])?;
    fs::set_permissions(state, fs::Permissions::from_mode(0o711))?;
    ensure!(code == 1 && said.contains(&format!("right: chmod 711 {state}")), "{code}: {said}");
    Ok(())
}

/// The exit code of a command and all that it has said.
pub(crate) fn run(gantry: &Gantry, args: &[&str]) -> Result<(i32, String)> {
    Ok(told(&gantry.cli(args)?))
}

fn told(output: &Output) -> (i32, String) {
    let said = [&output.stdout[..], &output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}
