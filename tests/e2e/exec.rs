//! Commands in containers: by the command line, by curl and by clients of Kubernetes.

use std::{
    io::{Read as _, Write as _},
    process::{Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use gantry_tests::{Container, Foreign, Gantry, Options, walk};

/// Sessions follow what happens within this time: a second, and what a busy machine takes.
const FOLLOWS: Duration = Duration::from_secs(5);
const HOST: &str = "api.gantry.localhost";

#[test]
fn commands_run_in_containers() {
    walk(Options::embedded(), the_walk);
}

#[test]
fn they_do_so_with_incus() {
    let Some(socket) = crate::incus::socket() else { return };
    walk(Options::incus(&socket).set("runtime.incus_pool=gantry-btrfs"), the_walk);
}

fn the_walk(gantry: &mut Gantry) -> Result<()> {
    let project = gantry.create_project("exec")?;
    let one = gantry.create_running(&project, &["--name", "one", "--no-hoody-kit"])?;
    statuses(gantry, &one)?;
    streams(gantry)?;
    at_terminals(gantry, &one)?;
    by_curl(gantry, &one)?;
    sessions(gantry, &one)
}

/// Runs a command with this input.
fn exec(gantry: &Gantry, args: &[&str], input: &[u8]) -> Result<Output> {
    let mut command = gantry.cli_command(&[&["exec"], args].concat())?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("piped")?;
    let input = input.to_vec();
    let feeding = thread::spawn(move || {
        // It may not want all of it.
        drop(stdin.write_all(&input));
    });
    let output = child.wait_with_output()?;
    ensure!(feeding.join().is_ok(), "it is fed");
    Ok(output)
}

/// The exit status, output and errors that a command has.
fn expect(output: &Output, code: i32, out: &str, err: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let is_right = output.status.code() == Some(code) && said == out && errors.contains(err);
    ensure!(is_right, "{code} {out:?} {err:?}: {output:?}");
    Ok(())
}

fn statuses(gantry: &Gantry, one: &Container) -> Result<()> {
    let id = one.id.as_str();
    let sh = |line: &str, code: i32, out: &str, err: &str| {
        expect(&exec(gantry, &["one", "--", "sh", "-c", line], b"")?, code, out, err)
    };
    sh("echo out; echo err >&2", 0, "out\n", "err\n")?;
    sh("exit 7", 7, "", "")?;
    sh("exit 255", 255, "", "")?;
    sh("kill -9 $$", 137, "", "")?;
    sh("kill -TERM $$", 143, "", "")?;
    // What it leaves behind does not hold it.
    sh("sleep 600 & echo left", 0, "left\n", "")?;
    for (args, code, out, err) in [
        (&["one", "no-such-program"][..], 127, "", "no-such-program: No such file"),
        (&["one", "/etc/passwd"], 126, "", "Permission denied"),
        (
            &[
                id,
                "-u",
                "nobody",
                "-w",
                "/srv",
                "-e",
                "A=b c",
                "--",
                "sh",
                "-c",
                "id -un; pwd; echo $A",
            ],
            0,
            "nobody\n/srv\nb c\n",
            "",
        ),
        (&["one", "-u", "no-such-user", "--", "id"], 126, "", "no account no-such-user"),
        (&["one", "-w", "/nowhere", "--", "id"], 1, "", "/nowhere: No such file"),
        (&["one", "hostname"], 0, "one\n", ""),
        // Nothing is read without -i, so that loops of shells keep theirs.
        (&["one", "cat"], 0, "", ""),
        (&["two", "id"], 4, "", "there is no container two"),
        (&["one", "-e", "A", "--", "id"], 2, "", "KEY=VALUE"),
        (&["0123456789abcdef01234567", "id"], 4, "", "not found"),
    ] {
        expect(&exec(gantry, args, b"not read")?, code, out, err)?;
    }
    let anonymous = gantry.cli_anonymous(&["exec", id, "id"])?;
    expect(&anonymous, 3, "", "gantry login")?;
    let line = gantry.cli(&["ssh", "root@one", "--", "echo", "$USER;", "id", "-u; exit 6"])?;
    expect(&line, 6, "root\n0\n", "")?;
    // As with SSH, an account whose shell lets nobody in lets nobody in.
    let shut = gantry.cli(&["ssh", "nobody@one", "--", "id"])?;
    expect(&shut, 1, "This account is currently not available.\n", "")
}

/// Octets as they are, as many as there are, both ways at the same time.
fn streams(gantry: &Gantry) -> Result<()> {
    let all: Vec<u8> = (0..=255).collect();
    let octets = exec(gantry, &["-i", "one", "--", "sh", "-c", "cat; echo end >&2"], &all)?;
    ensure!(octets.stdout == all && octets.stderr == b"end\n", "{octets:?}");
    let much = all.repeat(80_000);
    let begun = Instant::now();
    let back = exec(gantry, &["-i", "one", "cat"], &much)?;
    ensure!(back.status.success() && back.stdout == much, "20 MB: {}", back.stdout.len());
    ensure!(begun.elapsed() < Duration::from_mins(1), "20 MB took {:?}", begun.elapsed());
    // A process that does not want its input is no fault.
    expect(&exec(gantry, &["-i", "one", "true"], &much)?, 0, "", "")?;
    // A reader that has enough ends it.
    let mut endless = gantry.cli_command(&["exec", "one", "--", "yes"])?;
    let mut endless = endless.stdout(Stdio::piped()).spawn()?;
    let mut few = [0; 6];
    endless.stdout.take().context("piped")?.read_exact(&mut few)?;
    ensure!(&few == b"y\ny\ny\n" && endless.wait()?.code() == Some(141), "{few:?}");
    Ok(())
}

fn at_terminals(gantry: &Gantry, one: &Container) -> Result<()> {
    let command = gantry.cli_command(&["exec"])?;
    let binary = command.get_program().to_str().context("a path")?.to_owned();
    let more = [gantry.token(), &binary, &one.id];
    Foreign::start(gantry, "at_terminal.py", HOST, &more)?.says("done")
}

fn by_curl(gantry: &Gantry, one: &Container) -> Result<()> {
    let url = gantry.api_url(&format!("containers/{}/exec", one.id));
    let body = r#"{"command":["sh","-c","cat; echo err >&2; exit 4"],"stdin":"in"}"#;
    let json = ["-H".to_owned(), "content-type: application/json".to_owned()];
    let post = gantry.curl_api().with(json).with(["-d".to_owned(), body.to_owned()]);
    let answer = post.fetch(&url)?.expect(200)?.json()?;
    let data = &answer["data"];
    ensure!(data["stdout"] == "in" && data["stderr"] == "err\n", "{answer}");
    ensure!(data["exit_code"] == 4 && data["truncated"] == false, "{answer}");
    Ok(())
}

/// By the clients of others; and what ends sessions.
fn sessions(gantry: &mut Gantry, one: &Container) -> Result<()> {
    let made = gantry.json(&["tokens", "create", "--alias", "exec"])?;
    let secret = made["token"].as_str().context("a token")?.to_owned();
    let mut client = Foreign::start(gantry, "exec.py", HOST, &[&secret, &one.id])?;
    client.says("done")?;
    let manage = |operation| gantry.cli(&["containers", "manage", &one.id, operation, "--wait"]);
    for (operation, back, words) in
        [("stop", "start", "the container is stop"), ("pause", "resume", "the container is paused")]
    {
        client.tell("again")?;
        client.says("in")?;
        ensure!(manage(operation)?.status.success(), "{operation}");
        let said = client.line()?;
        ensure!(said.contains(words), "{operation}: {said}");
        let shut = exec(gantry, &["one", "true"], b"")?;
        expect(&shut, 5, "", "the container is")?;
        ensure!(manage(back)?.status.success(), "{back}");
    }
    client.tell("again")?;
    client.says("in")?;
    let begun = Instant::now();
    let id = made["id"].as_str().context("an id")?;
    ensure!(gantry.cli(&["--yes", "tokens", "delete", id])?.status.success(), "it is deleted");
    let said = client.line()?;
    let took = begun.elapsed();
    ensure!(said.contains("Invalid authentication token") && took < FOLLOWS, "{took:?}: {said}");
    Ok(())
}
