//! The six operations, update and delete, by the client commands.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::{Container, Gantry, Options, walk};

const SOON: Duration = Duration::from_mins(1);

#[test]
fn a_container_goes_through_its_life_by_client_commands() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("life")?;
        let container = a_warm_container_is_claimed(gantry, &project)?;
        let url = gantry.url(&container, "http-19800", "/");
        gantry.inside(
            &container,
            &["sh", "-c", "echo kept > /ramdisk/note; echo kept > /root/note"],
        )?;

        variables_change_while_it_runs(gantry, &container)?;
        what_runs_inside_is_shown(gantry, &container)?;

        manage(gantry, &container, "pause", "paused")?;
        gantry.curl().with(["-H", "Accept: application/json"]).fetch(&url)?.expect(503)?;
        manage(gantry, &container, "resume", "running")?;
        gantry.wait_200(&url, SOON)?;

        let before = gantry.init_pid(&container)?;
        manage(gantry, &container, "restart", "running")?;
        ensure!(gantry.init_pid(&container)? != before, "the same init runs after a restart");
        gantry.wait_200(&url, SOON)?;

        manage(gantry, &container, "stop", "stopped")?;
        let answer = gantry.curl().fetch(&url)?.expect(503)?;
        ensure!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
        an_update_needs_a_stopped_container(gantry, &container)?;
        manage(gantry, &container, "start", "running")?;
        gantry.wait_200(&url, SOON)?;
        let notes = gantry.inside(&container, &["cat", "/ramdisk/note", "/root/note"])?;
        ensure!(notes.stdout == b"kept\nkept\n", "{notes:?}");
        let init = gantry.inside(&container, &["sh", "-c", "tr '\\0' '\\n' < /proc/1/environ"])?;
        let environment = String::from_utf8_lossy(&init.stdout).into_owned();
        ensure!(environment.contains("GREETING=hej"), "{environment}");

        manage(gantry, &container, "force-stop", "stopped")?;
        refused_operations_say_why(gantry, &container)?;
        what_happened_is_logged(gantry, &container)?;
        deletion_leaves_nothing(gantry, &container)
    });
}

fn a_warm_container_is_claimed(gantry: &Gantry, project: &str) -> Result<Container> {
    let warm = gantry.create_running(project, &["--prespawn"])?;
    let url = gantry.url(&warm, "http-19800", "/");
    let init = gantry.init_pid(&warm)?;
    gantry_tests::wait_until("it serves its page", SOON, || {
        let asked = gantry.inside(&warm, &["curl", "-sf", "http://localhost:19800/"]);
        asked.is_ok_and(|output| output.status.success())
    })?;
    gantry.curl().fetch(&url)?.expect(404)?;
    ensure!(gantry.json(&["ps"])?["containers"].as_array().is_some_and(Vec::is_empty));
    let refused = gantry.cli(&["snapshots", "create", "-c", &warm.id])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("warm pool"), "{said}");

    let more = ["--name", "one", "--environment-vars", "GREETING=hello"];
    let args = [&["containers", "create", "--project", project], more.as_slice()].concat();
    let claimed = gantry.json(&args)?;
    ensure!(claimed["id"] == warm.id.as_str() && claimed["status"] == "running", "{claimed}");
    gantry.curl().fetch(&url)?.expect(200)?;
    ensure!(gantry.init_pid(&warm)? == init, "it was started again");
    let inside = ["sh", "-c", "hostname; cat /etc/hostname; grep -c one /etc/hosts"];
    let names = gantry.inside(&warm, &inside)?;
    ensure!(names.stdout == b"one\none\n1\n", "{names:?}");

    let listed = gantry.json(&["containers", "list", "--include-prespawn"])?;
    let containers = listed["containers"].as_array().context("no containers")?;
    let next = containers.iter().find(|one| one["prespawn"] == true).context("no refill")?;
    let next = next["id"].as_str().context("no id")?;
    let output = gantry.cli(&["containers", "delete", next, "--wait"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(warm)
}

fn variables_change_while_it_runs(gantry: &Gantry, container: &Container) -> Result<()> {
    let before = gantry.init_pid(container)?;
    let id = container.id.as_str();
    let set = gantry.json(&["containers", "env", "set", id, "COLOUR=green", "MORE=1"])?;
    ensure!(set["synced"] == true, "{set}");
    let left = gantry.json(&["containers", "env", "delete", id, "MORE"])?;
    let want = serde_json::json!({ "COLOUR": "green", "GREETING": "hello" });
    ensure!(left["environment_vars"] == want, "{left}");
    let logins = gantry.inside(container, &["cat", "/etc/environment"])?;
    let logins = String::from_utf8_lossy(&logins.stdout).into_owned();
    ensure!(logins.contains("COLOUR=\"green\"") && !logins.contains("MORE"), "{logins}");
    ensure!(gantry.init_pid(container)? == before, "it was restarted");
    Ok(())
}

fn what_runs_inside_is_shown(gantry: &Gantry, container: &Container) -> Result<()> {
    let shown = gantry.json(&["containers", "get", &container.id, "--runtime", "true"])?;
    let info = &shown["runtime_info"];
    let services = info["services"].as_array().context("no services")?;
    let journal = services.iter().find(|unit| unit["unit"] == "systemd-journald.service");
    let journal = journal.with_context(|| format!("no journal in {info}"))?;
    ensure!(journal["active"] == "active" && journal["pid"].is_u64(), "{journal}");
    let ports = info["network_services"].as_array().context("no ports")?;
    let welcome = ports.iter().find(|port| port["port"] == 19800);
    let welcome = welcome.with_context(|| format!("nobody listens at 19800: {info}"))?;
    ensure!(welcome["protocol"] == "tcp" && welcome["program"].is_string(), "{welcome}");
    Ok(())
}

fn manage(gantry: &Gantry, container: &Container, operation: &str, status: &str) -> Result<()> {
    let args = ["containers", "manage", &container.id, operation, "--wait"];
    let after = gantry.json(&args)?;
    ensure!(after["status"] == status, "{operation}: {after}");
    Ok(())
}

fn an_update_needs_a_stopped_container(gantry: &Gantry, container: &Container) -> Result<()> {
    let args = [
        "containers",
        "update",
        &container.id,
        "--name",
        "two",
        "--environment-vars",
        "GREETING=hej",
    ];
    let changed = gantry.json(&args)?;
    ensure!(changed["name"] == "two", "{changed}");
    manage(gantry, container, "start", "running")?;
    let args = ["containers", "update", &container.id, "--name", "three"];
    let output = gantry.cli(&args)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(6), "exit {:?}: {said}", output.status.code());
    ensure!(said.to_lowercase().contains("stop"), "{said}");
    let args = ["containers", "update", &container.id, "--comment", "while it runs"];
    ensure!(gantry.json(&args)?["comment"] == "while it runs");
    manage(gantry, container, "stop", "stopped")
}

fn refused_operations_say_why(gantry: &Gantry, container: &Container) -> Result<()> {
    for operation in ["pause", "resume"] {
        let output = gantry.cli(&["containers", "manage", &container.id, operation])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{operation} of a stopped container");
        ensure!(said.contains("stopped"), "{operation}: {said}");
    }
    Ok(())
}

fn what_happened_is_logged(gantry: &Gantry, container: &Container) -> Result<()> {
    let logs = gantry.json(&["containers", "status-logs", &container.id, "--limit", "100"])?;
    let logs = logs["logs"].as_array().context("no logs")?;
    let to: Vec<&str> = logs.iter().filter_map(|log| log["to_status"].as_str()).collect();
    for status in ["running", "paused", "stopped"] {
        ensure!(to.contains(&status), "no {status} in {to:?}");
    }
    Ok(())
}

fn deletion_leaves_nothing(gantry: &Gantry, container: &Container) -> Result<()> {
    let home = gantry.state().join("runtime/containers").join(&container.id);
    ensure!(home.exists(), "{} is not where it was", home.display());
    let output = gantry.cli(&["containers", "delete", &container.id, "--wait"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(!home.exists(), "{} is left", home.display());
    ensure!(gantry.runc_list()?.is_empty(), "the runtime still knows it");
    gantry.curl().fetch(&gantry.url(container, "http-19800", "/"))?.expect(404)?;
    let output = gantry.cli(&["containers", "get", &container.id])?;
    ensure!(output.status.code() == Some(4), "exit {:?}", output.status.code());
    Ok(())
}

#[test]
fn a_project_takes_its_containers_with_it() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("all")?;
        let one = gantry.create(&project, &[])?;
        let two = gantry.create(&project, &[])?;
        for container in [&one, &two] {
            gantry.wait_status(container, "running", Duration::from_mins(2))?;
        }
        let output = gantry.cli(&["projects", "delete", &project])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        gantry_tests::wait_until("nothing is left", SOON, || {
            gantry.runc_list().is_ok_and(|ids| ids.is_empty())
        })
    });
}

/// Answers after a while, and says on disk that it was asked.
const SLOW_SERVER: &str = "
import http.server, pathlib, time
class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        pathlib.Path('/run/asked').touch()
        time.sleep(2)
        self.send_response(200)
        self.send_header('Content-Length', '5')
        self.end_headers()
        self.wfile.write(b'late\\n')
http.server.ThreadingHTTPServer(('', 3000), Slow).serve_forever()
";

#[test]
fn a_request_under_way_is_answered_although_gantry_is_asked_to_end() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("drain")?;
        let container = gantry.create_running(&project, &[])?;
        gantry.start_inside(&container, &["python3", "-c", SLOW_SERVER])?;
        let url = gantry.url(&container, "http-3000", "/");
        gantry.wait_200(&url, SOON)?;
        gantry.inside(&container, &["rm", "/run/asked"])?;
        let curl = gantry.curl();
        let answer = std::thread::scope(|scope| {
            let asking = scope.spawn(|| curl.fetch(&url));
            gantry_tests::wait_until("the container was asked", SOON, || {
                let asked = gantry.inside(&container, &["test", "-e", "/run/asked"]);
                asked.is_ok_and(|output| output.status.success())
            })?;
            let status = gantry.stop()?;
            ensure!(status.success(), "{status}");
            asking.join().map_err(|panic| anyhow::anyhow!("the client panicked: {panic:?}"))?
        })?;
        ensure!(answer.status == 200 && answer.text() == "late\n", "{answer:?}");
        // The container is still there, and its start is no new one.
        ensure!(gantry.runc_list()? == std::slice::from_ref(&container.id));
        gantry.start_again()?;
        gantry.wait_200(&url, SOON)
    });
}
