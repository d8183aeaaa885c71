//! The same commands at the front and at sshd: what comes back must be the same.

use std::{
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
};

use crate::{
    bed::{PATIENCE, output, text},
    sshd::{Beside, Case, feed},
};

fn shown(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets.get(..2000).unwrap_or(octets)).into_owned()
}

/// So many octets, all of them in turn.
fn counting(len: usize) -> Vec<u8> {
    (0..=u8::MAX).cycle().take(len).collect()
}

fn same(what: &str, [ours, theirs]: &[Output; 2]) {
    assert_eq!(ours.status.code(), theirs.status.code(), "status of {what}: {ours:?}");
    assert!(
        ours.stdout == theirs.stdout,
        "output of {what}\n ours: {:?}\nsshd: {:?}",
        shown(&ours.stdout),
        shown(&theirs.stdout)
    );
    assert!(
        ours.stderr == theirs.stderr,
        "errors of {what}\n ours: {:?}\nsshd: {:?}",
        shown(&ours.stderr),
        shown(&theirs.stderr)
    );
}

/// Commands without a terminal and without input.
const COMMANDS: &[&str] = &[
    "true",
    "exit 7",
    "exit 255",
    "no-such-program",
    "kill -TERM $$",
    "kill -KILL $$",
    "kill -USR1 $$",
    "echo out; echo err >&2; echo more; exit 3",
    "echo $0 $- \"$*\"; shopt login_shell",
    "pwd; umask; id; ulimit -n; ulimit -Hn; ulimit -c; echo $SHLVL",
    "cat; echo end",
    "grep ^Sig[A-P] /proc/self/status",
    "ls /proc/self/fd | wc -l",
    "cut -d' ' -f 9 /proc/self/oom_score_adj",
    // A session of its own, which it leads, without a terminal.
    "ps -o pid=,pgid=,sid=,tty= -p $$ | awk '{ print ($1 == $2), ($1 == $3), $4 }'",
    "for o in $(seq 0 255); do printf \"\\\\$(printf %03o $o)\"; done",
    "(for o in $(seq 0 255); do printf \"\\\\$(printf %03o $o)\"; done) >&2",
    "sleep 600 >/dev/null 2>&1 </dev/null & echo here; kill $!",
    "exec 1>&-; echo still >&2; exit 4",
    "exec 1>&- 2>&-; sleep 0.2; exit 5",
    "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2",
    "printf '%s' \"$SSH_ORIGINAL_COMMAND\"; echo ${SSH_TTY-none} ${TERM-none}",
    "set -- $SSH_CONNECTION; echo $# $1 $3; set -- $SSH_CLIENT; echo $# $1",
];

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_and_say_the_same() {
    let beside = Beside::new().await;
    for command in COMMANDS {
        // What the files of root's shell say before it is nothing to this.
        let marked = format!("echo begun >&2\n{command}");
        let case = Case { command: marked.as_bytes(), ..Case::default() };
        let both = beside.both(&case).await.map(|mut ended| {
            let mark = ended.stderr.windows(6).position(|piece| piece == b"begun\n");
            ended.stderr.drain(..mark.expect("it begins"));
            ended
        });
        same(command, &both);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn octets_of_commands_and_input_arrive_the_same() {
    let beside = Beside::new().await;
    let all = counting(1_000_000);
    let long = format!("printf %s {} | cksum", "x".repeat(100_000)).into_bytes();
    let cases: &[(&str, &[u8], &[u8])] = &[
        ("input of all octets", b"cksum", &all),
        ("input that comes back", b"cat", &all),
        ("input that nobody reads", b"echo here", &all),
        ("input of which some is read", b"head -c 10 | cksum", &all),
        ("input that is closed", b"exec 0<&-; sleep 0.2; echo here", &all),
        ("a line, and the rest", b"read x; echo \"$x\"; cat | wc -c", b"one\ntwo\nthree"),
        ("a command that is no UTF-8", b"printf %s '\xff\xfe\x80\xc3' | od -c", b""),
        ("a command of many octets", &long, b""),
        ("lines", b"echo 1\necho 2 # x\n\necho 3\n", b""),
        ("a shell without a terminal", b"", b"echo $0; shopt login_shell; tty; exit 9\n"),
    ];
    for (what, command, input) in cases {
        same(what, &beside.both(&Case { input, command, ..Case::default() }).await);
    }
    let case = Case { input: &all, command: b"cksum", ..Case::default() };
    let got = beside.at("gantry", &case).await;
    assert_eq!(got.stdout, feed(Command::new("cksum"), &all).await.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_too_long_harms_nobody() {
    let beside = Beside::new().await;
    let mut other = beside
        .ssh("gantry", &[])
        .arg("echo in; cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 3];
    other.stdout.as_mut().unwrap().read_exact(&mut line).await.unwrap();
    // The kernel takes 128 KiB in one argument; a client's argument is one, too.
    let paramiko = super::clients::python("paramiko");
    let Some(python) = paramiko else { return };
    for host in ["gantry", "sshd"] {
        let said = beside.script(&python, "too_long.py", host).await;
        assert_eq!(said, "131060 True\n140000 False\n170000 False\n", "{host}");
    }
    let mut stdin = other.stdin.take().unwrap();
    stdin.write_all(b"still").await.unwrap();
    drop(stdin);
    let ended = other.wait_with_output().await.unwrap();
    assert!(ended.status.success());
    assert_eq!(ended.stdout, b"still");
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_are_let_in_and_kept_out_the_same() {
    let beside = Beside::new().await;
    let options = ["-oSendEnv=LC_* LANG COLORTERM TERM_PROGRAM* SECRET LD_PRELOAD PATH BASH_ENV"];
    let odd: &[u8] = b"\xff\xfe";
    let env: &[(&str, &[u8])] = &[
        ("LANG", b"C.UTF-8"),
        ("LC_PAPER", b"a  b"),
        ("COLORTERM", b"truecolor"),
        ("TERM_PROGRAM", b"kitty"),
        ("SECRET", b"1"),
        ("BASH_ENV", b"/etc/passwd"),
    ];
    let command = b"printf '%s\\n' \"$LANG\" \"$LC_PAPER\" \"$COLORTERM\" \"$TERM_PROGRAM\" \
        \"${SECRET-none}\" \"${LD_PRELOAD-none}\" \"${BASH_ENV-none}\" \"$PATH\" \"$LC_ODD\" | od -c";
    let case = Case { options: &options, env, command, ..Case::default() };
    let both = beside.both(&case).await;
    assert_eq!(both[0].status.code(), Some(0));
    // The search path is Debian's for root, which its PAM or shells set instead of sshd.
    let path = "\"$PATH\" ";
    let command = String::from_utf8_lossy(command).replace(path, "");
    same("variables", &beside.both(&Case { command: command.as_bytes(), ..case }).await);
    // What is no UTF-8 ends the connection, by the library, which reads names and values as text; not that
    // of others.
    let env = [env, &[("LC_ODD", odd)]].concat();
    let case = Case { options: &options, env: &env, command: b"echo in", ..Case::default() };
    let ended = beside.at("gantry", &case);
    assert_eq!(ended.await.status.code(), Some(255));
}

/// The names of all variables, those that are only in one of both left out.
fn names(output: &Output, without: &[&str]) -> Vec<String> {
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    all.lines().filter(|name| !without.contains(name)).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_has_the_same_names() {
    let beside = Beside::new().await;
    let list = b"env -0 | cut -z -d= -f1 | tr '\\0' '\\n' | LC_ALL=C sort";
    let shell = [list.as_slice(), b"\n"].concat();
    // Of /etc/environment and /etc/default/locale, which Debian's sshd has read by PAM.
    let files = "cat /etc/environment /etc/default/locale 2>/dev/null | sed -n 's/=.*//p'";
    let files = output({
        let mut sh = Command::new("sh");
        sh.args(["-c", files]);
        sh
    });
    let files = String::from_utf8_lossy(&files.await.stdout).into_owned();
    let by_pam: Vec<&str> = files.lines().map(str::trim).collect();
    for (what, case) in [
        ("a command", Case { command: list, ..Case::default() }),
        ("a shell", Case { input: &shell, ..Case::default() }),
    ] {
        let [ours, theirs] = beside.both(&case).await;
        assert!(ours.status.success(), "{what}: {ours:?}");
        let (ours, theirs) = (names(&ours, &by_pam), names(&theirs, &by_pam));
        assert!(ours.iter().any(|name| name == "SSH_CONNECTION"), "{ours:?}");
        assert_eq!(ours, theirs, "{what}");
    }
}

/// An endless command does not end then: OpenSSH's client tells only servers of its own kind that its
/// output is closed (`eow@openssh.com`), and drops what comes from others.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_does_not_hold_the_command() {
    let beside = Beside::new().await;
    for host in ["gantry", "sshd"] {
        let mut ssh = beside.ssh(host, &[]);
        let mut child = ssh.arg("seq 1000000").stdout(Stdio::piped()).spawn().unwrap();
        let mut some = [0; 4000];
        // Its end of the pipe is closed with that.
        child.stdout.take().unwrap().read_exact(&mut some).await.unwrap();
        tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_left_behind_holds_the_output() {
    let beside = Beside::new().await;
    let case = Case { command: b"(sleep 1; echo late) & echo soon", ..Case::default() };
    let began = Instant::now();
    let both = beside.both(&case).await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    same("a process left behind", &both);
    assert_eq!(both[0].stdout, b"soon\nlate\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_takes_many_channels() {
    let beside = Beside::new().await;
    for host in ["gantry", "sshd"] {
        let path = format!("-oControlPath={}", beside.bed.path(host).display());
        let opened =
            output(beside.ssh(host, &["-fN", "-oControlMaster=yes", "-oLogLevel=QUIET", &path]));
        assert!(opened.await.status.success(), "{host}: -f");
        for n in 0..110 {
            // Without a shell, whose user's files may take long.
            let mut ssh = beside.ssh(host, &["-s", &path]);
            ssh.arg("sftp");
            let ended = output(ssh).await;
            assert!(ended.status.success(), "{host}: {n}: {}", shown(&ended.stderr));
        }
        let mut all = tokio::task::JoinSet::new();
        for n in 0..20_u8 {
            let mut ssh = beside.ssh(host, &[&path]);
            ssh.arg(format!("head -c {n}00000 /dev/zero | cat; exit {n}"));
            all.spawn(async move { (n, output(ssh).await) });
        }
        while let Some(ended) = all.join_next().await {
            let (n, ended) = ended.unwrap();
            assert_eq!(ended.status.code(), Some(n.into()), "{host}: {}", shown(&ended.stderr));
            assert_eq!(ended.stdout.len(), 100_000 * usize::from(n), "{host}");
        }
        let ended = output(beside.ssh(host, &["-Oexit", &path])).await;
        assert!(ended.status.success(), "{host}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_goes_through_to_another_server() {
    let beside = Beside::new().await;
    // -W: octets of a connection inside, its end too.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let echo = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.write_all(b"end").await.unwrap();
        }
    });
    let direct = format!("-W{to}");
    let case = Case { options: &[&direct], input: b"hello", ..Case::default() };
    let both = beside.both(&case).await;
    same("-W", &both);
    assert_eq!(both[0].stdout, b"helloend");
    echo.abort();
    // -J, through each to the other, and to itself.
    for (through, to) in [("gantry", "sshd"), ("sshd", "gantry"), ("gantry", "gantry")] {
        let mut ssh = beside.ssh(to, &["-J", through]);
        ssh.arg("cat | wc -c; exit 6");
        let ended = feed(ssh, &counting(300_000)).await;
        assert_eq!(ended.status.code(), Some(6), "{through} to {to}: {ended:?}");
        assert_eq!(ended.stdout, b"300000\n", "{through} to {to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_exchanged_anew_while_octets_go_both_ways() {
    let beside = Beside::new().await;
    let data = counting(80_000_000);
    let mut ssh = beside.ssh("gantry", &["-oRekeyLimit=10M", "-v", "-oLogLevel=DEBUG1"]);
    ssh.arg("cat");
    let ended = feed(ssh, &data).await;
    assert!(ended.status.success());
    assert!(ended.stdout == data, "{} octets came back", ended.stdout.len());
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    let exchanges = log.matches("SSH2_MSG_NEWKEYS received").count();
    assert!(exchanges > 4, "{exchanges} key exchanges");
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_it_is_alive_is_answered() {
    let beside = Beside::new().await;
    let options = ["-oServerAliveInterval=1", "-oServerAliveCountMax=3"];
    let case = Case { options: &options, command: b"sleep 5.2; echo alive", ..Case::default() };
    let both = beside.both(&case).await;
    same("keepalives", &both);
    assert_eq!(both[0].stdout, b"alive\n");
    // Without a command, a connection stays until its client ends it.
    let mut idle = beside.ssh("gantry", &["-N", options[0], options[1]]).spawn().unwrap();
    let stays = tokio::time::timeout(Duration::from_millis(5500), idle.wait()).await;
    assert!(stays.is_err(), "{stays:?}");
    idle.kill().await.unwrap();
    assert_eq!(
        text({
            let mut ssh = beside.ssh("gantry", &[]);
            ssh.arg("echo new");
            ssh
        })
        .await,
        "new\n"
    );
}
