//! Terminals at the front and at sshd: modes, sizes, keys and signals.

use std::{path::Path, process::Output};

use crate::sshd::{Beside, Case};

/// A program without libraries.
const PYTHON: &str = "/usr/bin/python3";

#[tokio::test(flavor = "multi_thread")]
async fn a_person_at_a_terminal_sees_the_same() {
    let beside = Beside::new().await;
    let python = Path::new(PYTHON);
    let (ours, theirs) = tokio::join!(
        beside.script(python, "person.py", "gantry"),
        beside.script(python, "person.py", "sshd"),
    );
    for needed in [
        "rows 33; columns 101",
        "33 101 1010 660",
        "-ixon",
        "erase = ^H",
        "intr = ^G",
        "9600 baud",
        "interrupted 130",
        "Stopped",
        "quit 131",
        "resized 20 70",
        "eof 7",
    ] {
        assert!(ours.contains(needed), "{needed}: {ours}");
    }
    assert_eq!(ours, theirs);
}

/// Without `stderr`, where the client itself says what it thinks of its input.
fn same(what: &str, [ours, theirs]: &[Output; 2]) {
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text(ours), text(theirs), "{what}");
    assert_eq!(ours.status.code(), theirs.status.code(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_without_one_at_the_client_is_the_same() {
    let beside = Beside::new().await;
    let cases: &[(&str, &[u8])] = &[
        ("modes", b"stty -a; stty size"),
        ("line ends", b"echo one; printf 'two\\r\\n'; echo err >&2; exit 3"),
        ("names", b"test -t 0 && test -t 1 && test -t 2 && echo all; echo $TERM; [ $SSH_TTY = $(tty) ] && echo it"),
        ("owner", b"stat -c '%U %G %a' $(tty)"),
        ("a signal", b"kill -TERM $$"),
        ("a background process", b"sleep 600 & echo here"),
        ("a leader", b"ps -o pid=,pgid=,sid=,tpgid= -p $$ | awk '{ print ($1 == $2), ($1 == $3), ($1 == $4) }'"),
        ("much", b"head -c 1000000 /dev/zero | base64 | cksum; seq 100000"),
        ("raw", b"stty raw; printf 'a\\nb'"),
    ];
    for (what, command) in cases {
        let env: &[(&str, &[u8])] = &[("TERM", b"xterm-kitty")];
        let case = Case { options: &["-tt"], env, command, ..Case::default() };
        same(what, &beside.both(&case).await);
    }
    // A terminal that is not asked for.
    let command = b"tty; echo ${SSH_TTY-none}";
    same("-T", &beside.both(&Case { options: &["-T"], command, ..Case::default() }).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_ahead_is_read() {
    let beside = Beside::new().await;
    let case = Case {
        options: &["-tt"],
        input: b"echo $((20 + 22))\nexit 5\n",
        command: b"stty -echo; exec bash --norc --noprofile --noediting 2>/dev/null",
        ..Case::default()
    };
    let both = beside.both(&case).await;
    for ended in &both {
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(said.ends_with("42\r\n"), "{said:?}");
        assert_eq!(ended.status.code(), Some(5));
    }
}
