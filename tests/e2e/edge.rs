//! What the edge does before any container is asked.

use anyhow::{Result, ensure};
use gantry_tests::{Gantry, Options, walk};

#[test]
fn the_plain_port_redirects_to_https() {
    walk(Options::fake(), |gantry| {
        let host = "anything.local.containers.gantry.localhost";
        let plain = gantry.curl_plain();
        let answer = plain.fetch(&format!("http://{host}:8080/a/path?q=1"))?.expect(308)?;
        let location = answer.header("location").unwrap_or_default();
        ensure!(location == format!("https://{host}:8443/a/path?q=1"), "{location}");
        Ok(())
    });
}

#[test]
fn the_development_ca_is_trusted_for_its_domain_and_kept_across_runs() {
    walk(Options::fake(), |gantry| {
        let openapi = "https://api.gantry.localhost:8443/openapi.json";
        gantry.curl().fetch(openapi)?.expect(200)?;
        let before = std::fs::read(gantry.ca_path())?;
        gantry.stop()?;
        gantry.start_again()?;
        ensure!(std::fs::read(gantry.ca_path())? == before, "the CA has changed");
        gantry.curl().fetch(openapi)?.expect(200)?;
        // Another program's view of the chain.
        let address = format!("{}:8443", gantry.address());
        let ca = gantry.ca_path();
        let output = std::process::Command::new("openssl")
            .args(["s_client", "-connect", &address, "-servername", "api.gantry.localhost"])
            .args(["-verify_hostname", "api.gantry.localhost", "-verify_return_error", "-CAfile"])
            .arg(ca)
            .stdin(std::process::Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(said.contains("Verify return code: 0"), "{said}");
        Ok(())
    });
}

#[test]
fn the_admin_listener_tells_metrics_and_health() {
    walk(Options::fake(), |gantry| {
        let admin = |path: &str| -> Result<String> {
            let url = format!("http://{}:9090{path}", gantry.address());
            let output = std::process::Command::new("curl").args(["-fsS", &url]).output()?;
            ensure!(output.status.success(), "{path}: {output:?}");
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        admin("/livez")?;
        admin("/readyz")?;
        let metrics = admin("/metrics")?;
        for name in
            ["gantry_routes ", "gantry_routes_age_seconds ", "gantry_memory_resident_bytes "]
        {
            ensure!(metrics.contains(name), "no {name}in {metrics}");
        }
        // Names of the installation are few; no other hostname is a label.
        let of_others = metrics.lines().filter(|line| !line.starts_with("gantry_certificate_"));
        let named: Vec<_> = of_others.filter(|line| line.contains("localhost")).collect();
        ensure!(named.is_empty(), "a hostname is a label: {named:?}");
        Ok(())
    });
}

#[test]
fn heads_that_are_not_http_are_refused() {
    walk(Options::fake(), |gantry| {
        let api = "https://api.gantry.localhost:8443/api/v1/ip";
        let curl = gantry.curl().with(["--http1.1"]);
        let huge = format!("X-Padding: {}", "a".repeat(70_000));
        for (args, statuses) in [
            (vec!["-H", "Host:"], &[400][..]),
            (vec!["-H", "Host: [::1]"], &[400, 421]),
            (vec!["-H", "Host: elsewhere.example"], &[421]),
            (vec!["-H", huge.as_str()], &[431, 400]),
        ] {
            let answer = curl.with(args.clone()).fetch(api)?;
            // Closing at once is an answer to a head that is too large.
            let closed = answer.status == 0 && args.iter().any(|arg| arg.len() > 60_000);
            ensure!(closed || statuses.contains(&answer.status), "{}: {answer:?}", args[1].len());
        }
        curl.fetch(api)?.expect(200)?;
        Ok(())
    });
}

#[test]
fn bad_input_is_answered_field_by_field_and_leaves_nothing() {
    walk(Options::fake(), |gantry| {
        let project = gantry.create_project("strict")?;
        for (body, field) in [
            (r#"{"server_id":"#, ""),
            (r#"{"server_id": 5}"#, "server_id"),
            (r#"{"server_id": "0123456789ABCDEF01234567"}"#, "server_id"),
            (r#"{"name": "ab"}"#, "name"),
            (r#"{"color": "reddish"}"#, "color"),
            (r#"{"container_image": "ubuntu:22.04"}"#, "container_image"),
            (r#"{"ssh_public_key": "ssh-rsa AAAA"}"#, "ssh_public_key"),
            (r#"{"environment_vars": {"1A": "x"}}"#, "environment_vars"),
            (r#"{"hoody_kit": "yes"}"#, "hoody_kit"),
        ] {
            let body = with_server(gantry, body)?;
            let post =
                gantry.curl_api().with(["-H", "Content-Type: application/json", "-d", &body]);
            let url = gantry.api_url(&format!("projects/{project}/containers"));
            let answer = post.fetch(&url)?.expect(400)?;
            let told = answer.json()?;
            ensure!(told["statusCode"] == 400 && told["message"].is_string(), "{told}");
            ensure!(told.to_string().contains(field), "{body}: {told}");
        }
        let list = gantry.json(&["containers", "list"])?;
        ensure!(list["pagination"]["total"] == 0, "{list}");
        Ok(())
    });
}

/// Gives a body the right server, unless it is about the server.
fn with_server(gantry: &Gantry, body: &str) -> Result<String> {
    if body.contains("server_id") {
        return Ok(body.to_owned());
    }
    let servers = gantry.json(&["servers", "list"])?;
    let id = servers[0]["server_id"].as_str().unwrap_or_default();
    Ok(body.replacen('{', &format!("{{\"server_id\": \"{id}\", "), 1))
}
