//! Starting, refusing to start, ending.

use std::{net::TcpListener, process::Command};

use anyhow::{Result, ensure};
use gantry_tests::{Gantry, Options, walk};

#[test]
fn a_second_instance_on_the_same_state_is_told_about_the_first() {
    walk(Options::fake(), |gantry| {
        let pid = gantry.pid()?.to_string();
        let mut command = gantry.command(&["dev"])?;
        command.arg("--state").arg(gantry.state());
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(said.contains("another gantry") && said.contains(&pid), "{said}");
        Ok(())
    });
}

#[test]
fn a_taken_port_is_named() -> Result<()> {
    let gantry = Gantry::prepare(Options::fake())?;
    let _taken = TcpListener::bind((gantry.address(), 8443))?;
    let mut command = gantry.command(&["dev"])?;
    let output = command.arg("--state").arg(gantry.state()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(said.contains("edge.https") && said.contains("8443 is taken"), "{said}");
    Ok(())
}

#[test]
fn a_bad_configuration_is_refused_with_all_of_its_errors() -> Result<()> {
    let gantry = Gantry::prepare(Options::fake())?;
    let file = gantry.state().with_extension("toml");
    std::fs::write(
        &file,
        "[server]\nname = \"UPPER\"\n[edge]\nhttpz = 1\nadmin = \"0.0.0.0:9090\"\n\
         [runtime]\nkind = \"docker\"\n",
    )?;
    for mode in [&["serve"][..], &["config", "check"]] {
        let mut command = gantry.command(mode)?;
        // What the harness sets would win over the file.
        let mut plain = Command::new(command.get_program());
        plain.args(mode).arg("--config").arg(&file).env_clear();
        command = plain;
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(9), "{mode:?}: {output:?}");
        let name = file.display().to_string();
        for (key, rule) in [
            ("server.name", ""),
            ("edge.httpz", "did you mean edge.http"),
            ("edge.admin", "loopback"),
            ("runtime.kind", "\"embedded\" or \"incus\" or \"fake\""),
        ] {
            let found = said
                .lines()
                .any(|line| line.contains(&name) && line.contains(key) && line.contains(rule));
            ensure!(found, "{mode:?}: {key} is not reported: {said}");
        }
    }
    Ok(())
}

#[test]
fn the_effective_configuration_names_the_origin_of_every_value() -> Result<()> {
    let gantry = Gantry::prepare(Options::fake())?;
    let mut command = gantry.command(&["-o", "json", "config", "check"])?;
    let output = command.env("GANTRY_CONTROL__CONCURRENCY", "2").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let keys: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    for (key, value, origin) in [
        ("runtime.kind", "\"fake\"", "--set"),
        ("control.concurrency", "2", "GANTRY_CONTROL__CONCURRENCY"),
        ("server.name", "\"local\"", "default"),
    ] {
        let found = &keys[key];
        ensure!(found["value"] == value && found["origin"] == origin, "{key}: {found}");
    }
    Ok(())
}

#[test]
fn gantry_ends_in_order_and_the_administrator_can_log_in_again() {
    walk(Options::fake(), |gantry| {
        let project = gantry.create_project("kept")?;
        let status = gantry.stop()?;
        ensure!(status.success(), "{status}");
        ensure!(!gantry.state().join("run.json").exists(), "run.json is left");
        gantry.start_again()?;
        // The session of before is still good, and what was there is there.
        ensure!(gantry.json(&["projects", "get", &project])?["alias"] == "kept");
        Ok(())
    });
}

#[test]
fn a_url_is_explained_by_the_running_gantry_and_by_the_store() {
    walk(Options::fake(), |gantry| {
        let project = gantry.create_project("why")?;
        let container = gantry.create_running(&project, &[])?;
        let state = gantry.state().display().to_string();
        let url = gantry.url(&container, "terminal-1", "/");
        let explain = |gantry: &Gantry, url: &str| {
            gantry.json(&["explain", url, "--state", &state, "--set", "edge.https=127.0.0.1:8443"])
        };
        let steps = |found: &serde_json::Value, step: &str| {
            let steps = found["steps"].as_array().cloned().unwrap_or_default();
            let found = steps.into_iter().find(|candidate| candidate["step"] == step);
            found.map(|found| found["result"].as_str().unwrap_or_default().to_owned())
        };
        let live = explain(gantry, &url)?;
        ensure!(live["source"].to_string().contains("running Gantry"), "{live}");
        let parsed = steps(&live, "parse").unwrap_or_default();
        ensure!(parsed.contains("terminal 1") && parsed.contains(&container.id), "{live}");
        ensure!(steps(&live, "decision").as_deref() == Some("allow"), "{live}");
        ensure!(steps(&live, "answer").as_deref() == Some("forwarded"), "{live}");
        let found = explain(gantry, &gantry.url(&container, "code-2", "/"))?;
        let endpoint = steps(&found, "endpoint").unwrap_or_default();
        ensure!(endpoint.ends_with(":19806"), "{found}");
        let found = explain(gantry, &gantry.url(&container, "desktop-2", "/"))?;
        ensure!(steps(&found, "answer").as_deref() == Some("501"), "{found}");
        let unknown = "https://nobody.local.containers.gantry.localhost:8443/";
        let found = explain(gantry, unknown)?;
        ensure!(steps(&found, "answer").as_deref() == Some("404"), "{found}");
        gantry.stop()?;
        let stored = explain(gantry, &url)?;
        ensure!(stored["source"].to_string().contains("no Gantry runs"), "{stored}");
        ensure!(steps(&stored, "route") == steps(&live, "route"), "{live} {stored}");
        gantry.start_again()
    });
}

#[test]
fn what_an_owner_sets_by_commands_is_in_effect_and_explained() {
    walk(Options::fake(), |gantry| {
        let project = gantry.create_project("gated")?;
        let container = gantry.create_running(&project, &[])?;
        let id = container.id.as_str();
        let made = ["proxy", "create", "--container-id", id, "--alias", "my-shop"];
        let made = gantry.json(&[&made[..], &["--program", "http", "--port", "3000"]].concat())?;
        let url = made["url"].as_str().unwrap_or_default().to_owned();
        ensure!(url.contains("my-shop."), "{made}");
        let listed = gantry.json(&["proxy", "list", "--container-id", id])?;
        ensure!(listed["count"] == 1, "{listed}");
        let edge = gantry.json(&["edge", id, "--wake", "any", "--idle-pause-after", "600"])?;
        ensure!(edge["idle_pause_after"] == 600 && edge["wake"] == "any", "{edge}");

        let state = gantry.state().display().to_string();
        let steps = |gantry: &Gantry| -> Result<String> {
            let set = ["--state", &state, "--set", "edge.https=127.0.0.1:8443"];
            Ok(gantry.json(&[&["explain", &url][..], &set[..]].concat())?["steps"].to_string())
        };
        let open = steps(gantry)?;
        ensure!(open.contains("http port 3000") && open.contains("forwarded"), "{open}");
        let document = gantry.json(&["permissions", "show", id])?;
        ensure!(document["file_version"] == 0, "{document}");
        let file = gantry.state().join("document.json");
        let mut closed = document;
        closed["default"] = "deny".into();
        std::fs::write(&file, closed.to_string())?;
        let file = file.display().to_string();
        let set = || gantry.cli(&["permissions", "set", id, &file]);
        ensure!(set()?.status.success(), "the file is as it was shown");
        let denied = steps(gantry)?;
        ensure!(denied.contains("deny") && denied.contains("403"), "{denied}");
        for (service, counts) in [("http-20001", true), ("desktop-2", true), ("http-3000", false)] {
            let url = gantry.url(&container, service, "/");
            let set = ["--state", &state, "--set", "edge.https=127.0.0.1:8443"];
            let found = gantry.json(&[&["explain", &url][..], &set[..]].concat())?;
            let found = found["steps"].to_string();
            let says = found.contains("the port is that of terminal, which counts, too");
            ensure!(says == counts, "{service}: {found}");
        }
        ensure!(!set()?.status.success(), "the version is over");
        let alias = made["id"].as_str().unwrap_or_default();
        ensure!(gantry.cli(&["--yes", "proxy", "delete", alias])?.status.success());
        let gone = steps(gantry)?;
        ensure!(gone.contains("404"), "{gone}");
        Ok(())
    });
}
