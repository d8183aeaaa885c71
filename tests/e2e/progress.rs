//! What a person at a terminal sees of long work, and what programs do not.

use anyhow::{Context, Result, ensure};
use gantry_tests::{Gantry, Options, walk};
use serde_json::Value;

/// What a client command shows on a terminal of this kind, and what it prints.
fn watch(gantry: &Gantry, terminal: &str, env: &[(&str, &str)], args: &[&str]) -> Result<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/watched.py");
    let output = gantry.cli_under("python3", &[script, terminal], env, args)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    let seen: Value = serde_json::from_slice(&output.stdout).context("no JSON")?;
    ensure!(seen["status"] == 0, "{args:?}: {seen}");
    Ok(seen)
}

#[test]
fn a_person_at_a_terminal_sees_where_long_work_stands_and_nobody_else_does() {
    walk(Options::fake(), |gantry| {
        let project = gantry.create_project("watched")?;
        let create = ["containers", "create", "--project", &project, "--wait"];
        let seen = watch(gantry, "xterm", &[], &create)?;
        let (shown, out) = (text(&seen["shown"]), text(&seen["out"]));
        ensure!(shown.contains("Creating a container: "), "{seen}");
        ensure!(shown.contains("0s"), "no time: {seen}");
        // The line is taken away again, and the result is none of it.
        ensure!(shown.trim_end().ends_with("\u{1b}[2K") || shown.ends_with('\r'), "{seen}");
        ensure!(out.contains("running") && !out.contains("Creating"), "{seen}");
        let id = out
            .lines()
            .find_map(|line| line.trim().strip_prefix("id ").map(str::trim))
            .context("no id")?;
        for (args, doing) in [
            (&["containers", "manage", id, "stop", "--wait"][..], "Waiting for container"),
            (&["containers", "manage", id, "start", "--wait"], "Waiting for container"),
            (&["snapshots", "create", "-c", id, "--alias", "one"], "Making a snapshot"),
            (&["containers", "copy", id, "--target-project-id", &project, "--wait"], "Copying"),
        ] {
            let seen = watch(gantry, "xterm", &[], args)?;
            ensure!(text(&seen["shown"]).contains(doing), "{args:?}: {seen}");
        }
        let snapshots = gantry.json(&["snapshots", "list"])?;
        let name = text(&snapshots["snapshots"][0]["name"]);
        let restore = ["--yes", "snapshots", "restore", "-c", id, "--name", name, "--wait"];
        ensure!(text(&watch(gantry, "xterm", &[], &restore)?["shown"]).contains("Restoring"));
        let restart = ["containers", "manage", id, "restart", "--wait"];
        for (terminal, env, more) in [
            ("none", &[][..], &[][..]),
            ("dumb", &[], &[]),
            ("xterm", &[("NO_COLOR", "1")], &[]),
            ("xterm", &[], &["-o", "json"]),
        ] {
            let seen = watch(gantry, terminal, env, &[more, &restart].concat())?;
            ensure!(seen["shown"] == "", "{terminal} {env:?} {more:?}: {seen}");
            ensure!(text(&seen["out"]).contains("running"), "{seen}");
        }
        Ok(())
    });
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
