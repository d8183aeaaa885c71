//! The client commands as scripts see them: exit codes, messages, output.

use std::{os::unix::fs::PermissionsExt, process::Output};

use anyhow::{Result, ensure};
use gantry_tests::{Gantry, Options, walk};

fn expect(output: &Output, code: i32, said: &str) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(code), "exit {:?}: {text}", output.status.code());
    ensure!(text.contains(said), "{said:?} is not said: {text}");
    Ok(())
}

#[test]
fn every_class_of_failure_has_its_exit_code() {
    walk(Options::fake(), |gantry| {
        let nobody = "0123456789abcdef01234567";
        let project = gantry.create_project("codes")?;
        for (args, code, said) in [
            (&["containers", "get", "NOT-AN-ID"][..], 2, "hexadecimal"),
            (&["containers", "get", nobody], 4, "not found"),
            (&["projects", "create", "--alias", "codes", "--color", "reddish"], 6, "color"),
            (&["--token", "hdy_wrong", "projects", "list"], 3, "gantry login"),
            (&["--connect", "127.99.99.99", "projects", "list"], 7, "is Gantry running?"),
            (&["--ca", "/dev/null", "projects", "list"], 2, "/dev/null"),
            (&["--api-url", "http://api.example.com", "projects", "list"], 2, "https"),
        ] {
            expect(&gantry.cli(args)?, code, said)
                .map_err(|error| error.context(args.join(" ")))?;
        }
        let named = ["containers", "create", "--project", &project, "--name", "taken"];
        expect(&gantry.cli(&named)?, 0, "")?;
        expect(&gantry.cli(&named)?, 5, "already in use")
    });
}

#[test]
fn a_token_works_until_it_is_deleted_and_no_list_shows_it() {
    walk(Options::fake(), |gantry| {
        let token = gantry.json(&["auth", "create", "--alias", "ci-bot"])?;
        let secret = token["token"].as_str().unwrap_or_default().to_owned();
        ensure!(secret.starts_with("hdy_"), "{token}");
        let id = token["id"].as_str().unwrap_or_default();
        let with_token = ["--token", &secret, "-o", "json", "projects", "list"];
        expect(&gantry.cli(&with_token)?, 0, "")?;
        let list = gantry.json(&["tokens", "list"])?;
        ensure!(!list.to_string().contains(&secret), "a list shows a secret: {list}");
        expect(&gantry.cli(&["auth", "delete", id])?, 0, "Deleted")?;
        expect(&gantry.cli(&with_token)?, 3, "401")
    });
}

#[test]
fn a_session_is_kept_for_its_owner_alone_and_forgotten_at_logout() {
    walk(Options::fake(), |gantry| {
        let (username, password) = gantry.administrator()?;
        let whoami = ["-o", "json", "auth", "whoami"];
        expect(&gantry.cli_anonymous(&whoami)?, 3, "gantry login")?;
        let login = ["login", "--username", &username, "--password-file", &password];
        expect(&gantry.cli_anonymous(&login)?, 0, "Logged in")?;
        let kept = gantry.home().join(".config/gantry/credentials.json");
        let mode = kept.metadata()?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{} has mode {mode:o}", kept.display());
        expect(&gantry.cli_anonymous(&whoami)?, 0, "")?;
        // A session belongs to one API: it is not sent to another.
        let other = "https://0123456789abcdef01234567.api.gantry.localhost:8443";
        let elsewhere = [&["--api-url", other], &whoami[..]].concat();
        expect(&gantry.cli_anonymous(&elsewhere)?, 3, "gantry login")?;
        expect(&gantry.cli_anonymous(&["logout"])?, 0, "Logged out")?;
        ensure!(!kept.exists(), "{} is left", kept.display());
        expect(&gantry.cli_anonymous(&whoami)?, 3, "gantry login")
    });
}

#[test]
fn completions_know_the_commands() -> Result<()> {
    let gantry = Gantry::prepare(Options::fake())?;
    for shell in ["bash", "zsh", "fish"] {
        let output = gantry.cli(&["completions", shell])?;
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success() && script.contains("status-logs"), "{shell}: {script}");
    }
    Ok(())
}

#[test]
fn a_table_and_json_tell_the_same() {
    walk(Options::fake(), |gantry| {
        let project = gantry.create_project("both")?;
        let table = gantry.cli(&["projects", "list"])?;
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        ensure!(table.contains("ALIAS") && table.contains(&project), "{table}");
        let json = gantry.json(&["projects", "list"])?;
        ensure!(json["projects"][0]["id"] == project.as_str(), "{json}");
        let events = gantry.json(&["events", "list"])?;
        ensure!(events["events"][0]["resource_id"] == project.as_str(), "{events}");
        let writes = gantry.json(&["activity", "list"])?;
        ensure!(writes[0]["path"] == "/api/v1/projects", "{writes}");
        Ok(())
    });
}
