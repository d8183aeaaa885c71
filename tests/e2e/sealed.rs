//! What is sealed and what is signed, across restarts.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use gantry_tests::{Gantry, Options, wait_until, walk};

fn run(gantry: &Gantry, args: &[&str]) -> Result<String> {
    let output = gantry.cli(args)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {said}", args.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether OpenSSL finds that `signature` is one of `text` by the key.
fn is_signed(gantry: &Gantry, key_hex: &str, text: &[u8], signature_hex: &str) -> Result<bool> {
    let octets = |hex: &str| -> Result<Vec<u8>> {
        let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair));
        pairs.map(|pair| Ok(u8::from_str_radix(pair?, 16)?)).collect()
    };
    let write = |name: &str, octets: &[u8]| -> Result<String> {
        let path = gantry.home().join(name);
        fs::write(&path, octets)?;
        Ok(path.display().to_string())
    };
    let key = write("key", &octets(&format!("302a300506032b6570032100{key_hex}"))?)?;
    let (text, signature) = (write("text", text)?, write("signature", &octets(signature_hex)?)?);
    let verified = Command::new("openssl")
        .args(["pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER"])
        .args(["-inkey", &key, "-in", &text, "-sigfile", &signature])
        .output()
        .context("openssl does not run")?;
    Ok(verified.status.success())
}

#[test]
fn what_is_sealed_and_signed_outlives_a_restart_but_not_its_key() {
    walk(Options::fake().set("control.signing=answers"), |gantry| {
        let secret = "s3cret of the walk";
        let file = gantry.home().join("value");
        fs::write(&file, secret)?;
        let file = file.display().to_string();
        let realm = "64a2c4e9f3d5e2b6a8c7d8e1";
        run(gantry, &["vault", "set", "db", "--file", &file, "--metadata", "{\"for\":\"db\"}"])?;
        run(gantry, &["--realm", realm, "vault", "set", "db", "--value", "of the realm"])?;
        run(gantry, &["vault", "set", "db", "--keep-value", "--metadata", "null"])?;
        ensure!(run(gantry, &["vault", "get", "db"])? == secret, "the value, and nothing else");
        let listed = run(gantry, &["vault", "list"])?;
        ensure!(listed.contains(realm) && !listed.contains(secret), "{listed}");
        ensure!(gantry.json(&["vault", "stats"])?["total_keys"] == 2);
        let wrong = gantry.cli(&["vault", "set", "a/b", "--value", "v"])?;
        ensure!(wrong.status.code() == Some(2), "{wrong:?}");

        let meta = gantry.json(&["meta"])?;
        ensure!(meta["claims_are_signed"] == true, "{meta}");
        let one = gantry.json(&["meta", "claims_are_signed"])?;
        ensure!(one["value"] == true, "{one}");
        let keys = gantry.json(&["public-key"])?;
        let project = gantry.create_project("sealed")?;
        let container = gantry.create_running(&project, &[])?;
        let claim = gantry.json(&["containers", "authorize", &container.id])?;
        let claim = &claim["container_claim"];
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let key = text(&keys["keys"][0]["public_key_hex"]);
        let (payload, signature) = (text(&claim["payload_b64"]), text(&claim["signature_hex"]));
        ensure!(is_signed(gantry, &key, payload.as_bytes(), &signature)?, "{claim}");
        ensure!(!is_signed(gantry, &key, b"something else", &signature)?, "{claim}");
        // An answer as it comes over the edge.
        let answer = gantry.curl().fetch(&gantry.api_url("health"))?;
        let header = answer.header("x-hoody-signature").context("not signed")?;
        let (start, signature) = header.rsplit_once(",sig=").context("no signature")?;
        let at = start.split(',').next().and_then(|part| part.strip_prefix("t=")).context("t")?;
        let signed = format!("{at}\nGET\n200\n/api/v1/health\n{}", answer.text());
        ensure!(is_signed(gantry, &key, signed.as_bytes(), signature)?, "{header}");

        gantry.stop()?;
        let path = gantry.state().join("sealing.key");
        ensure!(path.metadata()?.permissions().mode() & 0o777 == 0o600, "others read the key");
        // A second key: what there is still opens, what is new is sealed with it.
        let old = fs::read(&path)?;
        fs::write(&path, [&old[..], &[7; 32]].concat())?;
        gantry.start_again()?;
        ensure!(gantry.json(&["public-key"])? == keys, "the same key signs");
        ensure!(run(gantry, &["vault", "get", "db"])? == secret);
        run(gantry, &["vault", "set", "new", "--value", "of the second key"])?;
        ensure!(!gantry.log().contains(secret), "the log shows a secret");

        // Without it, or without a part of it, Gantry says what is missing and does not start.
        gantry.stop()?;
        for kept in [None, Some(&old[..])] {
            match kept {
                Some(octets) => fs::write(&path, octets)?,
                None => fs::remove_file(&path)?,
            }
            let refusals = |log: &str| log.matches("not in sealing.key any more").count();
            let before = refusals(&gantry.log());
            gantry.spawn()?;
            wait_until("the refusal", Duration::from_secs(30), || {
                refusals(&gantry.log()) > before
            })?;
            gantry.stop()?;
        }
        fs::write(&path, [&old[..], &[7; 32]].concat())?;
        gantry.start_again()?;
        ensure!(run(gantry, &["vault", "get", "new"])? == "of the second key");
        ensure!(gantry.json(&["--yes", "vault", "clear"])?["deleted_count"] == 3);
        Ok(())
    });
}
