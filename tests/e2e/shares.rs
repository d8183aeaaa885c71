//! Storage shares, from the command line to the file on the other side.

use std::time::Duration;

use anyhow::ensure;
use gantry_tests::{Container, Gantry, Options, walk};

const SOON: Duration = Duration::from_mins(1);

/// What a command in a container prints; nothing if it fails.
fn said(gantry: &Gantry, container: &Container, argv: &[&str]) -> Option<String> {
    let output = gantry.inside(container, argv).ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

fn read(gantry: &Gantry, container: &Container) -> Option<String> {
    said(gantry, container, &["cat", "/hoody/shares/data/file"])
}

#[test]
fn a_directory_is_seen_in_another_container_and_outlives_gantry() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("shared")?;
        let source = gantry.create_running(&project, &[])?;
        let target = gantry.create_running(&project, &[])?;
        let write = |gantry: &Gantry, text: &str| {
            let script = format!("mkdir -p /srv/data && echo {text} >/srv/data/file");
            said(gantry, &source, &["sh", "-c", &script]).is_some()
        };
        ensure!(write(gantry, "one"), "the file is there");
        let create = ["shares", "create", "--container", &source.id, "--source-path", "/srv/data"];
        let to = ["--target-container-id", &target.id, "--mode", "readonly", "--alias", "data"];
        let share = gantry.json(&[&create[..], &to].concat())?;
        let id = share["id"].as_str().unwrap_or_default().to_owned();
        let is_one = |gantry: &Gantry| read(gantry, &target).as_deref() == Some("one");
        gantry_tests::wait_until("the share is there", SOON, || is_one(gantry))?;
        let touch = ["touch", "/hoody/shares/data/new"];
        ensure!(said(gantry, &target, &touch).is_none(), "it can only be read");

        gantry.kill()?;
        gantry.start_again()?;
        ensure!(write(gantry, "two"), "the file is written again");
        let two = read(gantry, &target);
        ensure!(two.as_deref() == Some("two"), "{two:?}");
        let incoming = gantry.json(&["shares", "incoming", "--container", &target.id])?;
        ensure!(incoming[0]["mount_path"] == "/hoody/shares/data", "{incoming}");

        gantry.json(&[
            "shares",
            "update",
            &id,
            "--container",
            &source.id,
            "--mode",
            "readwrite",
        ])?;
        let can_write = || said(gantry, &target, &touch).is_some();
        gantry_tests::wait_until("it can be written", SOON, can_write)?;
        gantry.json(&["shares", "unmount", &id, "--container", &target.id])?;
        gantry_tests::wait_until("it is gone", SOON, || read(gantry, &target).is_none())?;
        gantry.json(&["shares", "mount", &id, "--container", &target.id])?;
        gantry_tests::wait_until("it is back", SOON, || read(gantry, &target).is_some())?;
        let deleted = gantry.cli(&["shares", "delete", &id, "--yes"])?;
        ensure!(deleted.status.success(), "{deleted:?}");
        gantry_tests::wait_until("it is gone for good", SOON, || read(gantry, &target).is_none())
    });
}
