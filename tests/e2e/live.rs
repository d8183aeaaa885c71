//! The live feed of the official SDK, through the edge.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gantry_tests::{Foreign, Options, walk};

#[test]
fn a_client_of_socket_io_hears_what_happens_until_the_server_stops() {
    walk(Options::fake().set("edge.drain_timeout_s=40"), |gantry| {
        let host = "api.gantry.localhost";
        let token = gantry.token().to_owned();
        let mut client = Foreign::start(gantry, "live.py", host, &[&token])?;
        client.says("welcome")?;
        let project = gantry.create_project("heard")?;
        gantry.create_running(&project, &[])?;
        for event in ["project.created", "container.creating", "container.running"] {
            client.says(event)?;
        }
        ends_with_the_server(gantry, &mut client)
    });
}

/// The feed does not hold the server up until its deadline for draining.
fn ends_with_the_server(gantry: &mut gantry_tests::Gantry, client: &mut Foreign) -> Result<()> {
    let begun = Instant::now();
    gantry.stop()?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    client.says("disconnect")
}
