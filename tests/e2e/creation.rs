//! A container is created and its URLs answer.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use gantry_tests::{Gantry, Options, walk};
use serde_json::json;

/// The port of the page that every container with the Kit shows.
const WELCOME: &str = "http-19800";
const SOON: Duration = Duration::from_mins(1);

#[test]
fn a_created_container_answers_over_https() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("first")?;
        let container = gantry.create_running(&project, &["--name", "box-1"])?;
        for label in [WELCOME, "terminal-1", "files-1"] {
            gantry.wait_200(&gantry.url(&container, label, "/"), SOON)?;
        }
        let answer = gantry.curl().fetch(&gantry.url(&container, WELCOME, "/"))?.expect(200)?;
        ensure!(answer.http_version == "2", "HTTP/{} was spoken", answer.http_version);
        ensure!(answer.header("x-request-id").is_some(), "{:?}", answer.headers);
        let old = gantry.curl().with(["--http1.1"]);
        let answer = old.fetch(&gantry.url(&container, WELCOME, "/"))?.expect(200)?;
        ensure!(answer.http_version == "1.1", "HTTP/{} was spoken", answer.http_version);
        closed_port_is_explained(gantry, &container)?;
        a_port_that_opens_answers(gantry, &container)?;
        unknown_names_look_alike(gantry, &container)
    });
}

/// Running, but nothing listens there: said in the form that the client likes.
fn closed_port_is_explained(gantry: &Gantry, container: &gantry_tests::Container) -> Result<()> {
    let url = gantry.url(container, "http-3000", "/");
    let page = gantry.curl().with(["-H", "Accept: text/html"]).fetch(&url)?;
    ensure!((500..600).contains(&page.status), "status {}", page.status);
    ensure!(page.text().contains("3000"), "the page does not name the port: {}", page.text());
    let kind = page.header("content-type").unwrap_or_default().to_owned();
    ensure!(kind.starts_with("text/html"), "{kind}");
    let answer = gantry.curl().with(["-H", "Accept: application/json"]).fetch(&url)?;
    ensure!(answer.json()?.to_string().contains("3000"), "{}", answer.text());
    ensure!(answer.header("x-gantry-error").is_some(), "{:?}", answer.headers);
    ensure!(answer.header("x-gantry-error") == answer.header("x-hoody-error-code"));
    Ok(())
}

/// Whatever a user starts on a port has a URL at once.
fn a_port_that_opens_answers(gantry: &Gantry, container: &gantry_tests::Container) -> Result<()> {
    let script = "mkdir -p /srv/site && echo 'served from inside' > /srv/site/index.html";
    let output = gantry.inside(container, &["sh", "-c", script])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    gantry.start_inside(container, &["python3", "-m", "http.server", "3000", "-d", "/srv/site"])?;
    let url = gantry.url(container, "http-3000", "/");
    gantry.wait_200(&url, SOON)?;
    let answer = gantry.curl().fetch(&url)?.expect(200)?;
    ensure!(answer.text() == "served from inside\n", "{}", answer.text());
    Ok(())
}

/// Ids cannot be probed: a wrong container, a wrong project and an unknown name look the same.
fn unknown_names_look_alike(gantry: &Gantry, container: &gantry_tests::Container) -> Result<()> {
    let other = "0123456789abcdef01234567";
    let zone = "local.containers.gantry.localhost:8443";
    let mut answers = Vec::new();
    for label in [
        format!("{}-{other}-terminal-1", container.project),
        format!("{other}-{}-terminal-1", container.id),
        format!("{other}-{other}-http-80"),
    ] {
        let plain = gantry.curl().with(["-H", "Accept: application/json"]);
        let answer = plain.fetch(&format!("https://{label}.{zone}/"))?.expect(404)?;
        let mut body = answer.json()?;
        let body = body.as_object_mut().context("no object")?;
        // Each answer has an id of its own, under whatever name.
        body.retain(|name, _| !name.to_lowercase().contains("request"));
        answers.push(json!(body));
    }
    ensure!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    Ok(())
}

#[test]
fn a_container_without_the_kit_has_no_url() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("plain")?;
        let container = gantry.create_running(&project, &["--no-hoody-kit"])?;
        for label in [WELCOME, "terminal-1", "http-80"] {
            gantry.curl().fetch(&gantry.url(&container, label, "/"))?.expect(404)?;
        }
        Ok(())
    });
}

#[test]
fn an_unknown_image_ends_as_failed_with_its_reason() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("wrong")?;
        let container = gantry.create(&project, &["--container-image", "plan9/4"])?;
        gantry.wait_status(&container, "failed", SOON)?;
        let why = gantry.field(&container, "error")?;
        ensure!(why.contains("plan9/4"), "the reason does not name the image: {why}");
        ensure!(gantry.runc_list()?.is_empty(), "something was left in the runtime");
        let waiting = ["containers", "delete", &container.id, "--wait"];
        let output = gantry.cli(&waiting)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    });
}

#[test]
fn a_container_cannot_see_the_host_or_become_its_root() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("fence")?;
        let container = gantry.create_running(&project, &[])?;
        let output = gantry.inside(&container, &["cat", "/proc/self/uid_map"])?;
        let map = String::from_utf8_lossy(&output.stdout).into_owned();
        let first: Vec<&str> = map.split_whitespace().collect();
        ensure!(first.first() == Some(&"0") && first.get(1) != Some(&"0"), "uid_map {map}");
        let init = gantry.init_pid(&container)?;
        let host = Command::new("stat").args(["-c", "%u", &format!("/proc/{init}")]).output()?;
        let owner = String::from_utf8_lossy(&host.stdout).trim().to_owned();
        ensure!(owner == first[1], "init belongs to {owner} on the host, not to {}", first[1]);
        Ok(())
    });
}
