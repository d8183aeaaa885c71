//! A second factor: by an authenticator app of others, and by the client commands.

use std::{fs, process::Output};

use anyhow::{Context as _, Result, ensure};
use gantry_tests::{Foreign, Gantry, Options, walk};

const NAME: &str = "carol";
const PASSWORD: &str = "Passw0rd!carol";

fn expect(output: &Output, code: i32, said: &str) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(code), "exit {:?}: {text}", output.status.code());
    ensure!(text.contains(said), "{said:?} is not said: {text}");
    Ok(())
}

#[test]
fn an_authenticator_app_and_backup_codes_open_an_account() {
    walk(Options::fake(), |gantry| {
        let file = gantry.home().join("carol");
        fs::write(&file, PASSWORD)?;
        let file = file.display().to_string();
        let user = gantry.json(&["users", "create", NAME, "--password-file", &file])?;
        let id = user["id"].as_str().context("no id")?;

        let host = "api.gantry.localhost";
        let mut app = Foreign::start(gantry, "two_factor.py", host, &[NAME, PASSWORD])?;
        for said in ["enabled", "logged in", "told"] {
            app.says(said)?;
        }
        let codes = [app.line()?, app.line()?, app.line()?, app.line()?];
        the_client_shows_codes(gantry, &file, &codes)?;

        // Whoever has lost all of it is helped.
        let setup = ["-o", "json", "2fa", "setup", "--password-file", &file];
        expect(&gantry.cli_anonymous(&setup)?, 0, "")?;
        expect(&gantry.cli(&["users", "remove-2fa", id])?, 5, "not enabled")
    });
}

/// Logs in, makes a token and ends it all, by backup codes.
fn the_client_shows_codes(gantry: &Gantry, file: &str, codes: &[String; 4]) -> Result<()> {
    let login = ["login", "--username", NAME, "--password-file", file, "--otp"];
    let by = |code| gantry.cli_anonymous(&[&login[..], &[code]].concat());
    expect(&by("000000")?, 3, "the code is wrong")?;
    expect(&by("12345")?, 6, "code")?;
    expect(&by(&codes[0])?, 0, "Logged in")?;
    expect(&by(&codes[0])?, 3, "the code is wrong")?;
    let status = gantry.cli_anonymous(&["-o", "json", "2fa", "status"])?;
    expect(&status, 0, "")?;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
    ensure!(status["enabled"] == true && status["backup_codes_remaining"] == 9, "{status}");

    let create = ["tokens", "create", "--alias", "ci"];
    let with = |code| gantry.cli_anonymous(&[&create[..], &["--otp", code]].concat());
    expect(&gantry.cli_anonymous(&create)?, 6, "otp_code")?;
    expect(&with("000000")?, 3, "the code is wrong")?;
    expect(&with(&codes[1])?, 0, "")?;

    let disable = ["2fa", "disable", "--password-file", file, "--otp"];
    expect(&gantry.cli_anonymous(&[&disable[..], &[&codes[1]]].concat())?, 3, "the code is wrong")?;
    expect(&gantry.cli_anonymous(&[&disable[..], &[&codes[2]]].concat())?, 0, "no code any more")?;
    // The session in the place of those that have ended was kept.
    expect(&gantry.cli_anonymous(&["auth", "whoami"])?, 0, "")?;
    expect(&gantry.cli_anonymous(&login[..5])?, 0, "Logged in")
}
