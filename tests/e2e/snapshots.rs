//! The whole workflow of a container and its files, by curl and by the client commands: what it is
//! made of, how it is changed, and how its files come back.

use std::{thread, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use gantry_tests::{Container, Gantry, Options, wait_until, walk};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(2);
/// The port of the page that every container with the Kit shows.
const WELCOME: &str = "http-19800";

#[test]
fn the_whole_workflow_succeeds_by_curl_and_by_client_commands() {
    walk(Options::embedded(), |gantry| {
        // Beside each other: two users at once take little longer than one.
        thread::scope(|scope| {
            let curl = scope.spawn(|| workflow(&Client { gantry, by_curl: true, name: "curl" }));
            let commands =
                workflow(&Client { gantry, by_curl: false, name: "commands" }).context("commands");
            let curl = curl.join().map_err(|panic| anyhow!("curl's user panicked: {panic:?}"))?;
            let curl = curl.context("curl");
            commands.and(curl)
        })
    });
}

fn workflow(client: &Client<'_>) -> Result<()> {
    let gantry = client.gantry;
    let project = client.project("first")?;
    let other = client.project("second")?;
    let one = client.create(&project)?;
    client.until(&one, "running")?;
    let shown = client.get(&one)?;
    ensure!(shown["name"] == "one" && shown["project_id"] == project.as_str(), "{shown}");
    gantry.wait_200(&gantry.url(&one, WELCOME, "/"), SOON)?;

    client.operate(&one, "stop", "stopped")?;
    let args = ["containers", "update", &one.id, "--name", "renamed"];
    let path = format!("containers/{}", one.id);
    let changed = client.ask(&args, "PATCH", &path, &json!({ "name": "renamed" }))?;
    ensure!(changed["name"] == "renamed", "{changed}");
    client.operate(&one, "start", "running")?;
    write(gantry, &one, "before")?;
    let name = client.snapshot(&one)?;
    names_and_permissions(client, &one)?;

    write(gantry, &one, "after")?;
    client.restore(&one, &name)?;
    ensure!(read(gantry, &one)? == "before", "the file is not back");
    gantry.wait_200(&gantry.url(&one, WELCOME, "/"), SOON)?;

    let copy = client.copy(&one, &other, None)?;
    ensure!(read(gantry, &copy)? == "before", "the copy has other files");
    gantry.wait_200(&gantry.url(&copy, WELCOME, "/"), SOON)?;
    write(gantry, &one, "newer")?;
    let path = format!("containers/{}/sync?wait=running&timeout=120", copy.id);
    client.ask(&["containers", "sync", &copy.id, "--wait"], "POST", &path, &Value::Null)?;
    client.until(&copy, "running")?;
    ensure!(read(gantry, &copy)? == "newer", "it was not synchronised");

    let path = format!("containers/{}?wait=deleted&timeout=60", one.id);
    let args = ["-y", "containers", "delete", &one.id, "--wait"];
    client.ask(&args, "DELETE", &path, &Value::Null)?;
    gantry.curl().fetch(&gantry.url(&one, WELCOME, "/"))?.expect(404)?;
    let path = format!("snapshots?container_id={}", one.id);
    let kept = client.ask(&["snapshots", "list", "-c", &one.id], "GET", &path, &Value::Null)?;
    ensure!(kept["snapshots"][0]["name"] == name.as_str(), "{kept}");
    let back = client.copy(&one, &project, Some(&name))?;
    ensure!(read(gantry, &back)? == "before", "the files did not outlive their container");
    gantry.wait_200(&gantry.url(&back, WELCOME, "/"), SOON)
}

/// An alias leads to the container, and its owner closes and opens it.
fn names_and_permissions(client: &Client<'_>, one: &Container) -> Result<()> {
    let gantry = client.gantry;
    let alias = format!("shown-{}", client.name);
    let target = ["--program", "http", "--port", "19800", "--alias", &alias];
    let args = [&["proxy", "create", "--container-id", &one.id], &target[..]].concat();
    let body = json!({ "container_id": one.id, "program": "http", "port": 19800, "alias": alias });
    let made = client.ask(&args, "POST", "proxy/aliases", &body)?;
    ensure!(made["alias"] == alias.as_str(), "{made}");
    let url = format!("https://{alias}.local.containers.gantry.localhost:8443/");
    gantry.wait_200(&url, SOON)?;
    let path = format!("containers/{}/proxy/settings", one.id);
    for (default, status) in [("deny", 403), ("allow", 200)] {
        let args = ["permissions", "settings", &one.id, "--default", default];
        let set = client.ask(&args, "PATCH", &path, &json!({ "default": default }))?;
        ensure!(set["default"] == default, "{set}");
        for url in [&url, &gantry.url(one, WELCOME, "/")] {
            let json = gantry.curl().with(["-H", "Accept: application/json"]);
            wait_until(&format!("{url} gives {status}"), SOON, || json.status(url) == status)?;
        }
    }
    Ok(())
}

/// A user of one kind of client.
struct Client<'g> {
    gantry: &'g Gantry,
    by_curl: bool,
    /// What its things are called by.
    name: &'static str,
}

impl Client<'_> {
    /// The same request in both ways; gives what it is answered with.
    fn ask(&self, args: &[&str], method: &str, path: &str, body: &Value) -> Result<Value> {
        if !self.by_curl {
            return self.gantry.json(args);
        }
        // Longer than the API is asked to wait.
        let mut curl = self.gantry.curl_api().with(["-X", method, "--max-time", "150"]);
        if method == "PATCH" && path.contains("/proxy/") {
            // What was read is what is changed.
            let now = self.gantry.curl_api().fetch(&self.gantry.api_url(path))?.expect(200)?;
            let etag = now.json()?["data"]["etag"].as_str().context("no etag")?.to_owned();
            curl = curl.with([format!("-HIf-Match: {etag}")]);
        }
        if !body.is_null() {
            let body = body.to_string();
            curl = curl.with(["-H", "Content-Type: application/json", "-d", &body]);
        }
        let answer = curl.fetch(&self.gantry.api_url(path))?;
        let (status, text) = (answer.status, answer.text());
        ensure!((200..300).contains(&status), "{method} {path}: {status} {text}");
        Ok(answer.json()?["data"].clone())
    }

    fn project(&self, alias: &str) -> Result<String> {
        let alias = format!("{alias}-{}", self.name);
        let args = ["projects", "create", "--alias", &alias];
        id(&self.ask(&args, "POST", "projects", &json!({ "alias": alias }))?)
    }

    fn create(&self, project: &str) -> Result<Container> {
        let servers = self.ask(&["servers", "list"], "GET", "servers", &Value::Null)?;
        let server = servers[0]["server_id"].as_str();
        let server = server.with_context(|| format!("no server: {servers}"))?;
        let args =
            ["containers", "create", "--project", project, "--server-id", server, "--name", "one"];
        let body = json!({ "server_id": server, "name": "one" });
        let path = format!("projects/{project}/containers");
        let made = self.ask(&args, "POST", &path, &body)?;
        Ok(Container { project: project.to_owned(), id: id(&made)? })
    }

    fn get(&self, one: &Container) -> Result<Value> {
        let path = format!("containers/{}", one.id);
        self.ask(&["containers", "get", &one.id], "GET", &path, &Value::Null)
    }

    fn until(&self, one: &Container, status: &str) -> Result<()> {
        wait_until(&format!("{} is {status}", one.id), SOON, || {
            self.get(one).is_ok_and(|shown| shown["status"] == status)
        })
    }

    fn operate(&self, one: &Container, operation: &str, status: &str) -> Result<()> {
        let path = format!("containers/{}/{operation}", one.id);
        let args = ["containers", "manage", &one.id, operation, "--wait"];
        self.ask(&args, "POST", &path, &Value::Null)?;
        self.until(one, status)
    }

    /// Gives its name.
    fn snapshot(&self, one: &Container) -> Result<String> {
        let args = ["snapshots", "create", "-c", &one.id, "--alias", "good state"];
        let path = format!("containers/{}/snapshots", one.id);
        let made = self.ask(&args, "POST", &path, &json!({ "alias": "good state" }))?;
        let made = made.get("snapshot").unwrap_or(&made);
        ensure!(made["name"] == "goodstate" && made["status"] == "ready", "{made}");
        Ok("goodstate".to_owned())
    }

    fn restore(&self, one: &Container, name: &str) -> Result<()> {
        let args = ["-y", "snapshots", "restore", "-c", &one.id, "--name", name, "--wait"];
        let path = format!("containers/{}/snapshots/{name}?wait=running&timeout=120", one.id);
        self.ask(&args, "PATCH", &path, &json!({}))?;
        self.until(one, "running")
    }

    fn copy(&self, of: &Container, into: &str, snapshot: Option<&str>) -> Result<Container> {
        let mut args = vec!["containers", "copy", &of.id, "--target-project-id", into, "--wait"];
        let mut body = json!({ "target_project_id": into });
        if let Some(name) = snapshot {
            args.extend(["--source-snapshot", name]);
            body["source_snapshot"] = json!(name);
        }
        let path = format!("containers/{}/copy?wait=running&timeout=120", of.id);
        let made = self.ask(&args, "POST", &path, &body)?;
        ensure!(made["status"] == "running", "{made}");
        Ok(Container { project: into.to_owned(), id: id(&made)? })
    }
}

fn id(made: &Value) -> Result<String> {
    made["id"].as_str().map(str::to_owned).with_context(|| format!("no id: {made}"))
}

fn write(gantry: &Gantry, container: &Container, text: &str) -> Result<()> {
    gantry.inside(container, &["sh", "-c", &format!("echo {text} > /root/note")]).map(drop)
}

fn read(gantry: &Gantry, container: &Container) -> Result<String> {
    let output = gantry.inside(container, &["cat", "/root/note"])?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
