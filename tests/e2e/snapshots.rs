//! Files that come back: snapshots, copies and synchronisation of real containers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::{Container, Gantry, Options, walk};

const SOON: Duration = Duration::from_mins(1);

#[test]
fn files_come_back_from_snapshots_and_live_on_in_copies() {
    walk(Options::embedded(), |gantry| {
        let (project, other) = (gantry.create_project("first")?, gantry.create_project("second")?);
        let one = gantry.create_running(&project, &["--name", "one"])?;
        write(gantry, &one, "before")?;
        let made = gantry.json(&["snapshots", "create", "-c", &one.id, "--alias", "good state"])?;
        ensure!(made["name"] == "goodstate" && made["status"] == "ready", "{made}");
        write(gantry, &one, "after")?;
        let args = ["-y", "snapshots", "restore", "-c", &one.id, "--name", "goodstate", "--wait"];
        ensure!(gantry.json(&args)?["status"] == "running");
        ensure!(read(gantry, &one)? == "before", "the file is not back");
        gantry.wait_200(&gantry.url(&one, "http-19800", "/"), SOON)?;

        let copy = copied(gantry, &one, &other, &["--name", "two"])?;
        ensure!(read(gantry, &copy)? == "before", "the copy has other files");
        gantry.wait_200(&gantry.url(&copy, "http-19800", "/"), SOON)?;
        write(gantry, &one, "newer")?;
        let args = ["containers", "sync", &copy.id, "--wait"];
        ensure!(gantry.json(&args)?["status"] == "running");
        ensure!(read(gantry, &copy)? == "newer", "it was not synchronised");

        let output = gantry.cli(&["-y", "containers", "delete", &one.id, "--wait"])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        gantry.curl().fetch(&gantry.url(&one, "http-19800", "/"))?.expect(404)?;
        let kept = gantry.json(&["snapshots", "list", "-c", &one.id])?;
        ensure!(kept["snapshots"][0]["name"] == "goodstate", "{kept}");
        let back = copied(gantry, &one, &project, &["--source-snapshot", "goodstate"])?;
        ensure!(read(gantry, &back)? == "before", "the files did not outlive their container");
        gantry.wait_200(&gantry.url(&back, "http-19800", "/"), SOON)
    });
}

fn write(gantry: &Gantry, container: &Container, text: &str) -> Result<()> {
    gantry.inside(container, &["sh", "-c", &format!("echo {text} > /root/note")]).map(drop)
}

fn read(gantry: &Gantry, container: &Container) -> Result<String> {
    let output = gantry.inside(container, &["cat", "/root/note"])?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn copied(gantry: &Gantry, of: &Container, into: &str, more: &[&str]) -> Result<Container> {
    let mut args = vec!["containers", "copy", &of.id, "--target-project-id", into, "--wait"];
    args.extend(more);
    let made = gantry.json(&args)?;
    ensure!(made["status"] == "running", "{made}");
    let id = made["id"].as_str().context("a copy without an id")?.to_owned();
    Ok(Container { project: into.to_owned(), id })
}
