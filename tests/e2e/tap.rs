//! `gantry tap`: the owner sees the requests, and nobody else does.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};
use gantry_tests::{Options, walk};

#[test]
fn the_owner_taps_the_requests_to_a_container_whatever_its_gate_says() {
    walk(Options::fake(), |gantry| {
        let project = gantry.create_project("tapped")?;
        let container = gantry.create_running(&project, &[])?;
        let id = container.id.as_str();
        let file = gantry.state().with_extension("json");
        std::fs::write(
            &file,
            r#"{"groups":{},"permissions":{},"default":"allow","enable_proxy":true}"#,
        )?;
        let file = file.display().to_string();
        let set = gantry.cli(&["permissions", "set", id, &file])?;
        ensure!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
        let mut child =
            gantry.cli_goes_on(&["tap", id, "--service", "http", "--level", "error"])?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        // The fake runtime runs nothing, so that nothing listens.
        gantry.curl().fetch(&gantry.url(&container, "files-1", "/elsewhere"))?;
        gantry
            .curl()
            .fetch(&gantry.url(&container, "http-3000", "/a?token=s3cret&b=c"))?
            .expect(502)?;
        let line = lines.next().context("the tap has ended")??;
        for part in ["GET", "http-3000", "502", "/a?token=REDACTED&b=c", "PORT_CLOSED"] {
            ensure!(line.contains(part), "{part} is not in {line}");
        }
        ensure!(line.split("  ").any(is_duration), "no duration in {line}");
        let killed =
            std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
        ensure!(killed.success() && child.wait()?.success(), "Ctrl-C is a good end");
        // What has been is shown first, as JSON for programs; a closed pipe ends it.
        let mut child =
            gantry.cli_goes_on(&["tap", id, "--json", "--last", "1", "--status", "5xx"])?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let entry: serde_json::Value = serde_json::from_str(&lines.next().context("no entry")??)?;
        ensure!(entry["data"]["error"] == "PORT_CLOSED" && entry["containerId"] == id, "{entry}");
        drop(lines);
        gantry.curl().fetch(&gantry.url(&container, "http-3000", "/b"))?;
        ensure!(child.wait()?.success(), "a closed pipe is a good end");
        denied(gantry, id)
    });
}

/// Whether this is a figure and a unit of time; a refused port may take less than a millisecond.
fn is_duration(column: &str) -> bool {
    column.trim().split_once(' ').is_some_and(|(figure, unit)| {
        figure.parse::<f64>().is_ok() && ["us", "ms", "s"].contains(&unit)
    })
}

/// Without a credential, for another container, and when the container goes.
fn denied(gantry: &gantry_tests::Gantry, id: &str) -> Result<()> {
    for (output, code, said) in [
        (gantry.cli_anonymous(&["tap", id])?, 3, "gantry login"),
        (gantry.cli(&["tap", "0123456789abcdef01234567"])?, 4, "not found"),
        (gantry.cli(&["tap", id, "--level", "high"])?, 6, "must be one of"),
        (gantry.cli(&["tap", id, "--status", "4x"])?, 2, "from 100 to 599"),
    ] {
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code) && text.contains(said), "{code} {said}: {text}");
    }
    let child = gantry.cli_goes_on(&["tap", id])?;
    let deleted = gantry.cli(&["--yes", "containers", "delete", id, "--wait"])?;
    ensure!(deleted.status.success(), "{deleted:?}");
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    // It may have begun after the end, and then there is nothing to tap.
    ensure!(text.contains("was deleted") || text.contains("not found"), "{text}");
    Ok(())
}
