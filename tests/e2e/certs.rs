//! `gantry certs` and `gantry doctor` where the development CA issues, and files of the operator's: curl looks whether the system trusts it,
//! certutil whether a browser does, in a mount namespace of the test's own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use gantry_tests::{Gantry, Options, wait_until, walk_on};
use serde_json::Value;
use tempfile::TempDir;

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
    let own = Own::new();
    let table = own.as_ref().map(Own::table).unwrap_or_default();
    walk_on(Gantry::prepare(Options::fake().file(table)), |gantry| {
        let own = own?;
        let state = gantry.state().display().to_string();
        listed(gantry, &state)?;
        trusted(gantry, &state)?;
        examined(gantry, &state)?;
        own.shown(gantry)?;
        gantry.stop()?;
        let (code, said) = run(gantry, &["doctor", "--state", &state])?;
        ensure!(code == 1 && said.contains("no Gantry runs on"), "{code}: {said}");
        own.refused(gantry)
    });
}

/// A certificate that the operator has put into files.
struct Own {
    dir: TempDir,
}

const OWN: &str = "www.own.test";

impl Own {
    fn new() -> Result<Self> {
        let own = Self { dir: tempfile::tempdir()? };
        own.write(&pair()?)?;
        Ok(own)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn table(&self) -> String {
        let (certificate, key) = (self.path("certificate.pem"), self.path("key.pem"));
        format!(
            "[[certificates.files]]\ncertificate = \"{}\"\nkey = \"{}\"\n",
            certificate.display(),
            key.display()
        )
    }

    fn write(&self, (certificate, key): &(String, String)) -> Result<()> {
        replace(&self.path("certificate.pem"), certificate)?;
        replace(&self.path("key.pem"), key)
    }

    /// It is shown for its name; another one in its place is, too, and nothing that would not work.
    fn shown(&self, gantry: &Gantry) -> Result<()> {
        let shows = |certificate: &str| -> Result<bool> {
            let trusted = self.path("trusted.pem");
            fs::write(&trusted, certificate)?;
            let ca = ["--cacert".to_owned(), trusted.display().to_string()];
            // curl says 0 where the handshake fails.
            let answer = gantry.curl().with(ca).fetch(&format!("https://{OWN}:8443/"))?;
            Ok(answer.status == 404)
        };
        let first = fs::read_to_string(self.path("certificate.pem"))?;
        let (next, unfit) = (pair()?, pair()?);
        ensure!(shows(&first)? && !shows(&next.0)?, "{}", gantry.log());
        self.write(&next)?;
        let is_shown = || shows(&next.0).unwrap_or(false);
        wait_until("the new one is shown", Duration::from_secs(20), is_shown)?;
        replace(&self.path("key.pem"), &unfit.1)?;
        let key = self.path("key.pem").display().to_string();
        let is_told =
            || gantry.log().lines().any(|line| line.contains("stays") && line.contains(&key));
        wait_until("the key is refused", Duration::from_secs(20), is_told)?;
        ensure!(is_shown(), "the one of before is shown");
        Ok(())
    }

    /// What could not be shown stops the start, by name.
    fn refused(&self, gantry: &Gantry) -> Result<()> {
        let config = self.path("gantry.toml");
        let bound = self.path("bound.key");
        fs::write(&bound, "c2VjcmV0")?;
        fs::set_permissions(&bound, fs::Permissions::from_mode(0o644))?;
        let authority = format!(
            "[[certificates.authorities]]\ndirectory = \"https://ca.test/dir\"\neab_key_id = \"id\"\n\
             eab_key_file = \"{}\"\n",
            bound.display()
        );
        let check = |key_mode: u32, want: &[&str]| -> Result<()> {
            let key = self.path("key.pem");
            fs::set_permissions(&key, fs::Permissions::from_mode(key_mode))?;
            fs::write(&config, self.table() + &authority)?;
            let (code, said) =
                run(gantry, &["config", "check", "--config", &config.display().to_string()])?;
            ensure!(code != 0 && want.iter().all(|want| said.contains(want)), "{code}: {said}");
            Ok(())
        };
        let bound = format!(
            "eab_key_file: {}: must be readable by its owner only: chmod 600",
            bound.display()
        );
        check(
            0o600,
            &["certificates.files", "key.pem: ", "the key cannot be used with it", &bound],
        )?;
        self.write(&pair()?)?;
        check(
            0o640,
            &["certificates.files", "key.pem: must be readable by its owner only: chmod 600"],
        )
    }
}

/// A certificate that vouches for itself, and its key, in PEM.
fn pair() -> Result<(String, String)> {
    let made = rcgen::generate_simple_self_signed([OWN.to_owned()])?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

/// Puts a file in the place of another one, as a whole.
fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    Ok(fs::rename(&new, path)?)
}

fn listed(gantry: &Gantry, state: &str) -> Result<()> {
    let list = gantry.json(&["certs", "list", "gantry.localhost", "--state", state])?;
    let [only] = &list["certificates"].as_array().context("no list")?[..] else {
        anyhow::bail!("{list}");
    };
    ensure!(only["kind"] == "development" && only["state"] == "valid", "{only}");
    ensure!(only["is_shown"] == true && only["next_attempt_at"].is_string(), "{only}");
    let names = only["hostnames"].as_array().context("no names")?;
    ensure!(names.contains(&Value::from("*.local.containers.gantry.localhost")), "{only}");
    let own = gantry.json(&["certs", "list", OWN, "--state", state])?;
    let own = &own["certificates"][0];
    ensure!(own["kind"] == "file" && own["is_shown"] == true, "{own}");
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
    for want in [
        "runs as process",
        "edge.https",
        "good ones for all 5 names of the installation, until 20",
        "server local answers",
    ] {
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
