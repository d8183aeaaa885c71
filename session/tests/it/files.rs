//! Files by SFTP, by clients that others wrote.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Output},
};

use gantry_session::protocol::{Exit, Process, Run};

use crate::edge::{Edge, PROGRAM, process};

/// Runs OpenSSH's `sftp` with a batch in this directory.
fn sftp(directory: &Path, batch: &str) -> Output {
    let file = directory.join("batch");
    fs::write(&file, batch).unwrap();
    let server = format!("{PROGRAM} sftp");
    let mut command = Command::new("sftp");
    command.args(["-q", "-D", &server, "-b"]).arg(&file).current_dir(directory).env("TZ", "UTC");
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(both).unwrap()
}

#[test]
fn openssh_moves_links_and_lists() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let content: Vec<u8> =
        (0..5_000_000_u32).map(|n| n.to_le_bytes()[usize::from(n % 4 == 0)]).collect();
    fs::write(path.join("local"), &content).unwrap();
    fs::set_permissions(path.join("local"), fs::Permissions::from_mode(0o640)).unwrap();
    let output = sftp(
        path,
        "mkdir a\nput -p local a/one\nget a/one back\nrename a/one a/two\nln a/two a/hard\n\
        ln -s two a/link\nchmod 4711 a/two\nchown 4242 a/two\nchgrp 4243 a/two\n",
    );
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fs::read(path.join("back")).unwrap(), content);
    assert_eq!(fs::read_link(path.join("a/link")).unwrap(), Path::new("two"));
    let of = fs::metadata(path.join("a/hard")).unwrap();
    // To give a file away takes the bit off that runs it as its owner.
    assert_eq!((of.uid(), of.gid(), of.nlink(), of.mode()), (4242, 4243, 2, 0o100_711));

    let output = sftp(
        path,
        "cd a\npwd\ncopy two copied\nls -la\ndf\nchmod -h 600 copied\n-rm none\nls -l\nrm copied\n",
    );
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    for wanted in [
        &format!("{}/a\n", path.display()),
        "-rwx--x--x    ? 4242     4243      5000000 ",
        "lrwxrwxrwx    ? root     root            3 ",
        "-rw-------    ? root     root      5000000 ",
        "%Capacity",
        "No such file",
    ] {
        assert!(text.contains(wanted), "{wanted:?} in {text}");
    }
    assert!(!path.join("a/copied").exists());
    // An upload that was cut off goes on.
    fs::write(path.join("a/part"), &content[..1_234_567]).unwrap();
    let output = sftp(path, "reput local a/part\n");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fs::read(path.join("a/part")).unwrap(), content);
}

/// `scp` goes by SFTP today, and has `~` expanded by the server.
#[test]
fn scp_finds_homes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let ssh = path.join("ssh");
    fs::write(&ssh, format!("#!/bin/sh\ncd {}\nexec {PROGRAM} sftp\n", path.display())).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(path.join("tree")).unwrap();
    for name in ["a b", "ü", "c'd\"*"] {
        fs::write(path.join("tree").join(name), name).unwrap();
    }
    let scp = |from: &str, to: &str| {
        let output = Command::new("scp")
            .args(["-q", "-r", "-s", "-p", "-S"])
            .arg(&ssh)
            .args([from, to])
            .current_dir(path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{from} to {to}: {}", said(&output));
    };
    scp("tree", "host:copy");
    scp("host:copy", "again");
    for name in ["a b", "ü", "c'd\"*"] {
        assert_eq!(fs::read_to_string(path.join("again").join(name)).unwrap(), name);
    }
    let name = format!("gantry-session-{}", std::process::id());
    let home = Path::new("/root").join(&name);
    scp("tree/ü", &format!("host:~root/{name}"));
    let there = fs::read_to_string(&home);
    scp(&format!("host:~root/{name}"), "home");
    fs::remove_file(&home).unwrap();
    assert_eq!(there.unwrap(), "ü");
    assert_eq!(fs::read_to_string(path.join("home")).unwrap(), "ü");
}

#[test]
fn paramiko_does_all_of_version_three() {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python/bin/python3");
    let found = Command::new(&python).args(["-c", "import paramiko"]).output();
    if !found.is_ok_and(|found| found.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "no paramiko for {}", python.display());
        eprintln!("not run: no paramiko for {}", python.display());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/files.py");
    let path = directory.path().canonicalize().unwrap();
    let output =
        Command::new(python).arg("-B").arg(script).arg(PROGRAM).arg(path).output().unwrap();
    assert_eq!(said(&output), "done\n");
}

/// A packet of the protocol.
fn packet(kind: u8, rest: &[&[u8]]) -> Vec<u8> {
    let rest = rest.concat();
    let length = u32::try_from(rest.len() + 1).unwrap();
    [length.to_be_bytes().as_slice(), &[kind], &rest].concat()
}

fn text(octets: &[u8]) -> Vec<u8> {
    [u32::try_from(octets.len()).unwrap().to_be_bytes().as_slice(), octets].concat()
}

/// The kind of the next answer, and what follows its number.
fn answer(from: &mut fs::File) -> (u8, Vec<u8>) {
    let mut length = [0; 4];
    from.read_exact(&mut length).unwrap();
    let mut octets = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut octets).unwrap();
    (octets[0], octets[5..].to_vec())
}

#[tokio::test]
async fn files_are_served_as_the_user() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut edge = Edge::with_ann(home.path()).await;
    let process = Process { user: "ann".to_owned(), ..process(Run::Sftp) };
    let (id, mut pipes) = edge.start(process).await;
    let open = |name: &[u8]| packet(3, &[&[0, 0, 0, 1], &text(name), &[0, 0, 0, 1], &[0; 4]]);
    let real = packet(16, &[&[0, 0, 0, 2], &text(b".")]);
    // All at once: answers come in order.
    let all = [packet(1, &[&[0, 0, 0, 3]]), open(b"/etc/shadow"), open(b"/etc/passwd"), real];
    pipes.input.write_all(&all.concat()).unwrap();
    assert_eq!(answer(&mut pipes.output).0, 2);
    let (kind, rest) = answer(&mut pipes.output);
    assert_eq!((kind, &rest[..4]), (101, [0, 0, 0, 3].as_slice()), "permission denied");
    assert_eq!(answer(&mut pipes.output).0, 102);
    let (kind, rest) = answer(&mut pipes.output);
    assert_eq!(kind, 104);
    assert!(rest[4..].starts_with(&text(home.path().as_os_str().as_encoded_bytes())));
    // A packet that is none ends nothing, and neither does one that is too long for anybody's good.
    pipes.input.write_all(&packet(99, &[])).unwrap();
    assert_eq!(answer(&mut pipes.output).0, 101);
    assert_eq!(pipes.talk(b"").await, (Vec::new(), Vec::new()));
    assert_eq!(edge.exited(id).await, Exit::Status(0));
}
