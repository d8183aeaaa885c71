//! Firewall rules, from the command line to the packet.

use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_tests::{Container, Gantry, Options, walk};

/// It keeps its connections open, as the edge likes.
const SERVER: &str = "\
import http.server as h
h.SimpleHTTPRequestHandler.protocol_version = 'HTTP/1.1'
h.ThreadingHTTPServer(('', 3000), h.SimpleHTTPRequestHandler).serve_forever()
";
const SOON: Duration = Duration::from_mins(1);

fn firewall(gantry: &Gantry, container: &Container, args: &[&str]) -> Result<serde_json::Value> {
    gantry.json(&[&["firewall"], args, &["--container", &container.id, "--yes"]].concat())
}

#[test]
fn a_rule_closes_the_url_of_a_port_at_once_and_outlives_gantry() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("walls")?;
        let container = gantry.create_running(&project, &[])?;
        gantry.start_inside(&container, &["python3", "-c", SERVER])?;
        let url = gantry.url(&container, "http-3000", "/");
        gantry.wait_200(&url, SOON)?;

        let close = ["add", "ingress", "--action", "reject", "--protocol", "tcp"];
        let close = [&close[..], &["--destination-port", "3000"]].concat();
        let rules = firewall(gantry, &container, &close)?;
        ensure!(rules["ingress"][0]["destination_port"] == "3000", "{rules}");
        // The edge has a connection to the container from before.
        gantry.curl().fetch(&url)?.expect(502)?;

        gantry.kill()?;
        gantry.start_again()?;
        gantry.curl().fetch(&url)?.expect(502)?;
        let listed = firewall(gantry, &container, &["list"])?;
        ensure!(listed["rule_count"] == 1, "{listed}");

        let off = firewall(gantry, &container, &["disable", "ingress", "--action", "reject"])?;
        ensure!(off["updated"] == 1, "{off}");
        gantry.wait_200(&url, SOON)?;
        firewall(gantry, &container, &["enable", "ingress", "--action", "reject"])?;
        gantry.curl().fetch(&url)?.expect(502)?;
        let removed = firewall(gantry, &container, &["remove", "ingress", "--all"])?;
        ensure!(removed["removed_count"] == 1, "{removed}");
        gantry.wait_200(&url, SOON)
    });
}
