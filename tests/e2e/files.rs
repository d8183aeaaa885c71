//! Files go in and out over HTTP.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gantry_tests::{Container, Gantry, Options, wait_for, walk};

/// Runs a command as the official client does: on the terminal of index 0, asked for what came of it.
fn commands(gantry: &Gantry, container: &Container) -> Result<()> {
    let url = |path: &str| gantry.url(container, "terminal-0", &format!("/api/v1/terminal/{path}"));
    let body = r#"{"command":"sha256sum < /tmp/a","wait":false}"#;
    let post = gantry.curl().with(["-H", "Content-Type: application/json", "-d", body]);
    let execute = url("execute?terminal_id=0&ephemeral=true&skip_display_wait=true");
    let begun = post.fetch(&execute)?.expect(200)?.json()?;
    let id = begun["command_id"].as_str().context("no command_id")?.to_owned();
    let result = wait_for("the command's end", Duration::from_secs(20), || {
        let result = gantry.curl().fetch(&url(&format!("result/{id}"))).ok()?.json().ok()?;
        (result["status"] == "completed").then_some(result)
    })?;
    let sum = gantry.inside(container, &["sha256sum", "/root/a file.bin"])?.stdout;
    let printed = result["stdout"].as_str().unwrap_or_default();
    ensure!(result["exit_code"] == 0 && result["stderr"] == "", "{result}");
    ensure!(printed.as_bytes().get(..64) == sum.get(..64), "{result}");
    Ok(())
}

#[test]
fn files_are_listed_uploaded_and_downloaded() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("files")?;
        let container = gantry.create_running(&project, &[])?;
        let url = |path: &str| gantry.url(&container, "files-1", path);
        gantry.wait_200(&url("/"), Duration::from_mins(1))?;
        let listing = gantry.curl().fetch(&url("/etc/"))?.expect(200)?;
        ensure!(listing.text().contains("hostname"), "{}", listing.text());

        // Larger than any buffer on the way, and of no text.
        let local = tempfile::tempdir()?;
        let sent = local.path().join("sent");
        let bytes: Vec<u8> = (0..5_000_000_u32)
            .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
            .step_by(4)
            .collect();
        std::fs::write(&sent, &bytes)?;
        let upload = gantry.curl().with(["-T".to_owned(), sent.display().to_string()]);
        let put = upload.fetch(&url("/root/a%20file.bin"))?;
        ensure!(matches!(put.status, 200 | 201 | 204), "{} {}", put.status, put.text());
        let inside = gantry.inside(&container, &["sha256sum", "/root/a file.bin"])?;
        let local_sum = std::process::Command::new("sha256sum").arg(&sent).output()?.stdout;
        ensure!(inside.stdout.get(..64) == local_sum.get(..64), "the sums differ");
        let back = gantry.curl().fetch(&url("/root/a%20file.bin"))?.expect(200)?;
        ensure!(back.body == bytes, "{} octets came back", back.body.len());
        let part = gantry.curl().with(["-r", "1000-1999"]).fetch(&url("/root/a%20file.bin"))?;
        ensure!(part.status == 206 && part.body == bytes[1000..2000], "status {}", part.status);

        // As the official client names it.
        let whole = url("/api/v1/files/%2Froot%2Fa%20file.bin");
        let same = gantry.curl().fetch(&whole)?.expect(200)?;
        ensure!(same.body == bytes, "{} octets came back", same.body.len());
        let put = upload.fetch(&url("/api/v1/files/%2Ftmp%2Fa"))?;
        ensure!(matches!(put.status, 200 | 201 | 204), "{} {}", put.status, put.text());
        commands(gantry, &container)?;

        let gone = gantry.curl().with(["-X", "DELETE"]).fetch(&url("/root/a%20file.bin"))?;
        ensure!(matches!(gone.status, 200 | 204), "{} {}", gone.status, gone.text());
        gantry.curl().fetch(&url("/root/a%20file.bin"))?.expect(404)?;
        Ok(())
    });
}
