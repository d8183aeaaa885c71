//! Outbound networks, from the command line to the packet.

use std::{net::TcpListener, time::Duration};

use anyhow::{Context as _, Result, ensure};
use gantry_tests::{Container, Gantry, Options, walk};

const SERVER: &[&str] = &["python3", "-m", "http.server", "3000"];
/// The host's address, as a container sees it.
const GATEWAY: &str = "\
import socket, struct
routes = [line.split() for line in open('/proc/net/route')][1:]
[gateway] = [int(route[2], 16) for route in routes if route[1] == '00000000']
print(socket.inet_ntoa(struct.pack('<L', gateway)))
";
const DIAL: &str =
    "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)";
const SOON: Duration = Duration::from_mins(1);

fn network(gantry: &Gantry, container: &Container, args: &[&str]) -> Result<serde_json::Value> {
    gantry.json(&[&["network"], args, &["--container", &container.id, "--yes"]].concat())
}

#[test]
fn a_shut_container_is_reached_and_reaches_nobody_and_stays_so() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("ways")?;
        let container = gantry.create_running(&project, &[])?;
        gantry.start_inside(&container, SERVER)?;
        let url = gantry.url(&container, "http-3000", "/");
        gantry.wait_200(&url, SOON)?;
        let port = url.split(':').nth(2).and_then(|rest| rest.split('/').next());
        let port = port.context("the URL has a port")?;
        let gateway = gantry.inside(&container, &["python3", "-c", GATEWAY])?;
        let gateway = String::from_utf8(gateway.stdout)?.trim().to_owned();
        // Every container may reach that port of the host.
        let _open = TcpListener::bind((gateway.as_str(), port.parse()?))?;
        let dials = |gantry: &Gantry| -> Result<bool> {
            let dialled = gantry.inside(&container, &["python3", "-c", DIAL, &gateway, port])?;
            Ok(dialled.status.success())
        };
        ensure!(dials(gantry)?, "it is open at first");

        let set = network(gantry, &container, &["set", "--type", "block", "--comment", "quiet"])?;
        ensure!(set["status"] == "running" && set["type"] == "block", "{set}");
        ensure!(!dials(gantry)?, "nothing leaves it");
        gantry.curl().fetch(&url)?.expect(200)?;
        gantry.kill()?;
        gantry.start_again()?;
        ensure!(!dials(gantry)?, "nor after a crash");
        gantry.wait_200(&url, SOON)?;

        let stopped = network(gantry, &container, &["stop"])?;
        ensure!(stopped["status"] == "stopped" && dials(gantry)?, "{stopped}");
        let started = network(gantry, &container, &["start"])?;
        ensure!(started["is_running"] == true && !dials(gantry)?, "{started}");
        let cleared = gantry.cli(&["network", "clear", "--container", &container.id, "--yes"])?;
        ensure!(cleared.status.success() && dials(gantry)?, "it is open again");
        let shown = network(gantry, &container, &["get"])?;
        ensure!(shown["configured"] == false, "{shown}");
        Ok(())
    });
}
