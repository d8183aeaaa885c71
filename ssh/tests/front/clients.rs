//! Clients that are not OpenSSH's, at the front and at sshd.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::{
    bed::{output, text},
    foreign::program,
    sshd::{Beside, feed},
};

/// The interpreter with the libraries, if it has this one; where everything is installed, it must.
pub(crate) fn python(library: &str) -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python/bin/python3");
    let import = format!("import {library}");
    let found = std::process::Command::new(&python).args(["-c", &import]).output();
    if found.is_ok_and(|found| found.status.success()) {
        return Some(python);
    }
    assert!(std::env::var_os("CI").is_none(), "no {library} for {}", python.display());
    eprintln!("not run: no {library} for {}", python.display());
    None
}

async fn libraries_do(library: &str, script: &str) {
    let Some(python) = python(library) else { return };
    let beside = Beside::new().await;
    let (ours, theirs) = tokio::join!(
        beside.script(&python, script, "gantry"),
        beside.script(&python, script, "sshd"),
    );
    assert!(ours.ends_with("done\n"), "{ours}");
    assert_eq!(ours, theirs);
}

#[tokio::test(flavor = "multi_thread")]
async fn paramiko_is_served_as_by_sshd() {
    libraries_do("paramiko", "by_paramiko.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asyncssh_is_served_as_by_sshd() {
    libraries_do("asyncssh", "by_asyncssh.py").await;
}

/// What is done with each: a command, its input, its status and its output.
const COMMANDS: &[(&str, &[u8], i32, &str)] = &[
    ("echo out; exit 7", b"", 7, "out\n"),
    ("cat | wc -c; exit 3", &[b'x'; 300_000], 3, "300000\n"),
    // The input ends, and the output goes on.
    ("cat >/dev/null; sleep 0.2; seq 3", b"some", 0, "1\n2\n3\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn dropbear_is_served_as_by_sshd() {
    let beside = Beside::new().await;
    let key = beside.bed.path("dropbear");
    let mut convert = Command::new("dropbearconvert");
    convert.args(["openssh", "dropbear"]).arg(beside.bed.path("id")).arg(&key);
    assert!(output(convert).await.status.success());
    for address in [beside.bed.address, beside.sshd] {
        let client = |options: &[&str], command: &str| {
            let mut client = Command::new("dbclient");
            // It keeps the keys of hosts in its user's home, whatever that is.
            client.env("HOME", beside.bed.path("")).args(["-y", "-y", "-i"]).arg(&key);
            client.args(["-p", &address.port().to_string()]).args(options);
            client.args(["root@127.0.0.1", command]);
            client
        };
        for (command, input, status, said) in COMMANDS {
            let ended = feed(client(&[], command), input).await;
            let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(*status), "{address} {command}: {errors}");
            assert_eq!(String::from_utf8_lossy(&ended.stdout), *said, "{address} {command}");
        }
        // Of signals it tells nothing.
        let killed = feed(client(&[], "echo in; kill -TERM $$"), b"").await;
        assert_eq!((killed.status.code(), killed.stdout), (Some(0), b"in\n".to_vec()), "{address}");
        let split = feed(client(&[], "echo out; echo err >&2"), b"").await;
        assert_eq!(split.stdout, b"out\n", "{address}");
        assert!(String::from_utf8_lossy(&split.stderr).ends_with("err\n"), "{address}");
        // It wants a terminal of its own.
        let line = client(&["-t"], "'tty | cut -c1-8'");
        let line: Vec<_> = std::iter::once(line.as_std().get_program())
            .chain(line.as_std().get_args())
            .map(|word| word.to_string_lossy())
            .collect();
        let mut script = Command::new("script");
        script.args(["-qec", &line.join(" "), "/dev/null"]).env("HOME", beside.bed.path(""));
        let terminal = text(script).await;
        assert!(terminal.contains("/dev/pts\r\n"), "{address}: {terminal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn putty_is_served_as_by_sshd() {
    let beside = Beside::new().await;
    let key = beside.bed.path("id.ppk");
    let mut convert = Command::new("puttygen");
    convert.arg(beside.bed.path("id")).arg("-o").arg(&key);
    text(convert).await;
    let known = std::fs::read_to_string(beside.bed.path("known_hosts")).unwrap();
    for (host, address) in [("gantry", beside.bed.address), ("sshd", beside.sshd)] {
        let place = format!("[127.0.0.1]:{} ", address.port());
        let line = known.lines().find_map(|line| line.strip_prefix(place.as_str())).unwrap();
        let file = beside.bed.path(&format!("{host}.host"));
        std::fs::write(&file, line).unwrap();
        let mut fingerprint = Command::new("ssh-keygen");
        fingerprint.arg("-lf").arg(&file);
        let fingerprint = text(fingerprint).await;
        let fingerprint = fingerprint.split(' ').nth(1).unwrap().to_owned();
        let client = |program: &str, more: &[&str]| {
            let mut client = Command::new(program);
            client.env("HOME", beside.bed.path("")).args(["-batch", "-i"]).arg(&key);
            client.args(["-P", &address.port().to_string(), "-hostkey", &fingerprint]);
            client.args(more).stdin(Stdio::null()).kill_on_drop(true);
            client
        };
        for (command, input, status, said) in COMMANDS {
            let ended = feed(client("plink", &["root@127.0.0.1", command]), input).await;
            let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(*status), "{host} {command}: {errors}");
            assert_eq!(String::from_utf8_lossy(&ended.stdout), *said, "{host} {command}");
        }
        let terminal = client("plink", &["-t", "root@127.0.0.1", "tty | cut -c1-8"]);
        assert_eq!(text(terminal).await, "/dev/pts\r\n", "{host}");
        // Files by both of its protocols.
        let data: Vec<u8> = (0..=u8::MAX).cycle().take(500_001).collect();
        std::fs::write(beside.bed.path("sent"), &data).unwrap();
        let sent = beside.bed.path("sent").display().to_string();
        let back = beside.bed.path("back").display().to_string();
        for protocol in ["-sftp", "-scp"] {
            let there = format!("root@127.0.0.1:{}/{host}{protocol}", beside.home.path().display());
            text(client("pscp", &[protocol, "-q", &sent, &there])).await;
            text(client("pscp", &[protocol, "-q", &there, &back])).await;
            assert!(std::fs::read(&back).unwrap() == data, "{host} {protocol}");
            std::fs::remove_file(&back).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ansible_is_served_as_by_sshd() {
    let Some(ansible) = program("ansible-playbook") else { return };
    let beside = Beside::new().await;
    let here = beside.bed.path("");
    std::fs::create_dir(here.join("tree")).unwrap();
    let data: Vec<u8> = (0..=u8::MAX).cycle().take(100_001).collect();
    std::fs::write(here.join("tree/octets"), &data).unwrap();
    std::fs::write(here.join("tree/text"), "text").unwrap();
    let playbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/playbook.yml");
    std::fs::write(here.join("ansible.cfg"), "[defaults]\n").unwrap();
    let root = beside.home.path();
    for host in ["gantry", "sshd"] {
        std::fs::create_dir(root.join(host)).unwrap();
    }
    let mut play = Command::new(&ansible);
    let there = format!("there={}/{{{{ inventory_hostname }}}}", root.display());
    play.args(["-i", "gantry,sshd,", "-e", "ansible_python_interpreter=/usr/bin/python3"]);
    play.args(["-e", &there, "-e", &format!("here={}", here.display())]).arg(&playbook);
    let options = "-oControlMaster=auto -oControlPersist=10";
    let options = format!("-F {} {options}", beside.config().display());
    // Modules by the input of their interpreter; files go by SFTP all the same.
    play.env("ANSIBLE_SSH_ARGS", options).env("ANSIBLE_PIPELINING", "True");
    play.env("ANSIBLE_SSH_CONTROL_PATH_DIR", &here).env("ANSIBLE_REMOTE_TMP", root.join("tmp"));
    play.env("ANSIBLE_CONFIG", here.join("ansible.cfg")).env("ANSIBLE_NOCOLOR", "1");
    play.env("HOME", &here).env("LC_ALL", "C.UTF-8").env_remove("SSH_AUTH_SOCK").kill_on_drop(true);
    let said = text(play).await;
    for host in ["gantry", "sshd"] {
        let recap = said.lines().find(|line| line.starts_with(host) && line.contains("ok="));
        let recap: Vec<&str> = recap.expect(&said).split_whitespace().skip(2).collect();
        assert_eq!(recap[..4], ["ok=9", "changed=3", "unreachable=0", "failed=0"], "{said}");
        let back = std::fs::read(here.join(format!("back-{host}"))).unwrap();
        assert!(back == data, "{host}");
        assert!(std::fs::read(root.join(host).join("tree/octets")).unwrap() == data, "{host}");
    }
}
