//! Two servers in one Gantry: the embedded runtime and Incus beside each other.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use gantry_tests::{Container, Gantry, Options, free_subnet, wait_until, walk};
use serde_json::Value;

use crate::incus::socket;

/// The first start hands the image over, which takes seconds.
const SOON: Duration = Duration::from_mins(2);
/// The port of the page that every container with the Kit shows.
const WELCOME: &str = "http-19800";

#[test]
fn two_servers_run_their_own_containers_under_their_own_names() {
    let Some(socket) = socket() else { return };
    let (pid, subnet) = (std::process::id(), free_subnet(78).unwrap());
    let file = format!(
        "[[servers]]\nname = \"lxc\"\n[servers.runtime]\nkind = \"incus\"\nbridge = \"gs{pid}\"\n\
         subnet = \"{subnet}\"\nincus_socket = \"{socket}\"\nincus_pool = \"gantry-btrfs\"\n\
         incus_project = \"gantrytest-{pid}\"\n"
    );
    walk(Options::embedded().file(file), |gantry| {
        let project = gantry.create_project("both")?;
        let here = gantry.create(&project, &["--server", "local", "--name", "here"])?;
        let there = gantry.create_running(&project, &["--server", "lxc", "--name", "there"])?;
        gantry.wait_status(&here, "running", SOON)?;
        for (container, own, other) in [(&here, "local", "lxc"), (&there, "lxc", "local")] {
            ensure!(gantry.field(container, "server_name")? == own);
            gantry.wait_200(&url(gantry, container, own), SOON)?;
            gantry.curl().fetch(&url(gantry, container, other))?.expect(404)?;
        }
        are_apart(gantry, &here, &there, &socket)?;
        moves_over(gantry, &here)
    });
}

/// A container of the embedded runtime is copied to Incus, with its snapshot, and synchronised.
fn moves_over(gantry: &Gantry, here: &Container) -> Result<()> {
    write(gantry, here, "kept")?;
    let made = gantry.json(&["snapshots", "create", "-c", &here.id, "--alias", "kept"])?;
    write(gantry, here, "now")?;
    let args = ["containers", "copy", &here.id, "--target-project-id", &here.project];
    let more = ["--target-server", "lxc", "--name", "moved", "--wait", "--timeout", "600"];
    let copied = gantry.json(&[&args[..], &more[..]].concat())?;
    let id = copied["id"].as_str().context("no id")?.to_owned();
    ensure!(copied["status"] == "running" && copied["server_name"] == "lxc", "{copied}");
    let moved = Container { project: here.project.clone(), id };
    gantry.wait_200(&url(gantry, &moved, "lxc"), SOON)?;
    ensure!(read(gantry, &moved)? == "now", "the copy has other files");
    let restore = ["-y", "snapshots", "restore", "-c", &moved.id, "--name", "kept", "--wait"];
    // It comes when the copy runs.
    wait_until("its snapshot is there", SOON, || {
        gantry.cli(&restore).is_ok_and(|output| output.status.success())
    })
    .with_context(|| made.to_string())?;
    gantry.wait_200(&url(gantry, &moved, "lxc"), SOON)?;
    ensure!(read(gantry, &moved)? == "kept", "its snapshot has other files");
    write(gantry, here, "newer")?;
    let output = gantry.cli(&["containers", "sync", &moved.id, "--wait"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    gantry.wait_200(&url(gantry, &moved, "lxc"), SOON)?;
    ensure!(read(gantry, &moved)? == "newer", "it was not synchronised");
    ensure!(read_here(gantry, here)? == "newer", "its source has changed");
    Ok(())
}

fn write(gantry: &Gantry, here: &Container, text: &str) -> Result<()> {
    gantry.inside(here, &["sh", "-c", &format!("echo {text} > /root/note")]).map(drop)
}

fn read_here(gantry: &Gantry, here: &Container) -> Result<String> {
    let output = gantry.inside(here, &["cat", "/root/note"])?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// By the Kit's files, which start with the first request.
fn read(gantry: &Gantry, moved: &Container) -> Result<String> {
    let url = gantry.url(moved, "files-1", "/root/note");
    let url = url.replace(".local.containers.", ".lxc.containers.");
    gantry.wait_200(&url, SOON)?;
    Ok(gantry.curl().fetch(&url)?.expect(200)?.text().trim().to_owned())
}

fn url(gantry: &Gantry, container: &Container, server: &str) -> String {
    gantry
        .url(container, WELCOME, "/")
        .replace(".local.containers.", &format!(".{server}.containers."))
}

/// A container does not reach one of the other server, though its own page it does.
fn are_apart(gantry: &Gantry, here: &Container, there: &Container, socket: &str) -> Result<()> {
    let answer = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "30", "--unix-socket", socket])
        .arg("http://incus/1.0/instances?recursion=1&all-projects=true")
        .output()?;
    let answer: Value = serde_json::from_slice(&answer.stdout)?;
    let instances = answer["metadata"].as_array().context("no instances")?;
    let its = |one: &&Value| one["name"].as_str().is_some_and(|name| name.contains(&there.id));
    let one = instances.iter().find(its).context("it is not one of Incus")?;
    let address = one["devices"]["eth0"]["ipv4.address"].as_str().context("no address")?;
    let reach = |address: &str| -> Result<bool> {
        let script = format!("exec 3<>/dev/tcp/{address}/19800");
        Ok(gantry.inside(here, &["timeout", "3", "bash", "-c", &script])?.status.success())
    };
    ensure!(reach("127.0.0.1")?, "what is asked does not work");
    ensure!(!reach(address)?, "{address} is reached from the other server");
    Ok(())
}
