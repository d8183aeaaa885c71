//! Processes without a terminal.

use std::{
    io::Read as _,
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::Path,
    time::Duration,
};

use gantry_session::protocol::{Exit, FromHelper, Process, Reason, Run, ToHelper};
use rustix::io::Errno;
use rustix::process::{WaitOptions, getpid, set_child_subreaper, waitpid};
use tokio::task::spawn_blocking;

use crate::edge::{ANN, Edge, command, pipe, process, read_all};

#[tokio::test]
async fn a_command_ends_as_it_ends() {
    let mut edge = Edge::new().await;
    for (line, exit) in [
        ("true", Exit::Status(0)),
        ("exit 7", Exit::Status(7)),
        ("exit 255", Exit::Status(255)),
        ("kill -TERM $$", Exit::Signal("TERM".to_owned(), false)),
        ("kill -KILL $$", Exit::Signal("KILL".to_owned(), false)),
        ("no-such-program", Exit::Status(127)),
        ("/etc/passwd", Exit::Status(126)),
    ] {
        assert_eq!(edge.run(line, b"").await.2, exit, "{line}");
    }
}

#[tokio::test]
async fn input_ends_and_outputs_are_two() {
    let mut edge = Edge::new().await;
    let line = "read first; echo \"$first\" >&2; wc -c";
    let (output, errors, exit) =
        edge.run(line, &[b"one\n".to_vec(), vec![0; 300_000]].concat()).await;
    assert_eq!((output.trim(), errors.as_str()), ("300000", "one\n"));
    assert_eq!(exit, Exit::Status(0));
}

/// Whose reader has gone gets SIGPIPE, as anywhere else: this program ignores it.
#[tokio::test]
async fn a_writer_without_a_reader_is_ended_by_the_signal() {
    let mut edge = Edge::new().await;
    let (id, pipes) = edge.start(command("exec yes")).await;
    drop(pipes.output);
    assert_eq!(edge.exited(id).await, Exit::Signal("PIPE".to_owned(), false));
}

#[tokio::test]
async fn a_program_is_found_by_its_path_and_has_its_directory() {
    let mut edge = Edge::new().await;
    let argv =
        ["sh", "-c", "pwd; echo \"$0|$1\"", "a b", "c'd"].map(|word| word.as_bytes().to_vec());
    let run = Run::Program { argv: argv.to_vec(), directory: Some(b"/usr/bin".to_vec()) };
    let (id, pipes) = edge.start(process(run)).await;
    assert_eq!(pipes.talk(b"").await.0, b"/usr/bin\na b|c'd\n");
    assert_eq!(edge.exited(id).await, Exit::Status(0));

    for (program, code, words) in [
        ("no-such-program", 127, "no-such-program: No such file or directory\n"),
        ("/etc/passwd", 126, "/etc/passwd: Permission denied\n"),
    ] {
        let run = Run::Program { argv: vec![program.into()], directory: None };
        let (id, pipes) = edge.start(process(run)).await;
        assert_eq!(String::from_utf8(pipes.talk(b"").await.1).unwrap(), words);
        assert_eq!(edge.exited(id).await, Exit::Status(code));
    }
}

#[tokio::test]
async fn variables_are_those_of_a_login_and_of_the_client() {
    let mut edge = Edge::with(&[], |command| {
        command.env("OF_THE_HELPER", "1");
    })
    .await;
    let env = vec![(b"LANG".to_vec(), b"C.\xff".to_vec()), (b"LD_PRELOAD".to_vec(), b"".to_vec())];
    let connection = Some(["192.0.2.1", "4711", "198.51.100.2", "22"].map(str::to_owned));
    let process = Process { env, connection, ..command("env -0") };
    let (id, pipes) = edge.start(process).await;
    let (output, errors) = pipes.talk(b"").await;
    assert_eq!(edge.exited(id).await, Exit::Status(0));
    assert_eq!(String::from_utf8_lossy(&errors), "");
    let lines: Vec<&[u8]> = output.split(|octet| *octet == 0).collect();
    for wanted in [
        b"USER=root".as_slice(),
        b"LOGNAME=root",
        b"HOME=/root",
        b"MAIL=/var/mail/root",
        b"SSH_CLIENT=192.0.2.1 4711 22",
        b"SSH_CONNECTION=192.0.2.1 4711 198.51.100.2 22",
        b"LANG=C.\xff",
        b"LD_PRELOAD=",
    ] {
        assert!(lines.contains(&wanted), "{:?} in {lines:?}", String::from_utf8_lossy(wanted));
    }
    let is = |name: &[u8]| lines.iter().any(|line| line.starts_with(name));
    assert!(is(b"SHELL=/") && is(b"PATH=/"));
    for other in [b"OF_THE_HELPER".as_slice(), b"CARGO", b"SSH_TTY", b"TERM", b"SSH_AUTH_SOCK"] {
        assert!(!is(other), "{:?}", String::from_utf8_lossy(other));
    }
    let (output, ..) = edge.run("env | grep -c SSH_", b"").await;
    assert_eq!(output, "0\n", "without a connection");
}

#[tokio::test]
async fn a_process_is_its_user_in_a_session_of_its_own_and_has_nothing_else() {
    // Numbers beyond the standard ones, and an ignored signal, which the helper is started with.
    let mut edge = Edge::by_script(
        "trap '' HUP INT QUIT TERM USR1; exec 7</etc/passwd 9>&2; umask 077; cd /tmp",
    )
    .await;
    let (output, errors, _) = edge
        .run(
            "cd /proc/self/fd && echo 0 1 2; for n in *; do test $n -gt 2 && readlink $n; done",
            b"",
        )
        .await;
    // The shell's own directory, while it lists it, is closed by the time it is read.
    assert_eq!((output.as_str(), errors.as_str()), ("0 1 2\n", ""));
    let (output, ..) = edge.run("umask; ps -o pid=,pgid=,sid=,tty= -p $$; echo $$", b"").await;
    let words: Vec<&str> = output.split_whitespace().collect();
    let [umask, numbers @ .., tty, shell] = words.as_slice() else { panic!("{output}") };
    assert_eq!((*umask, *tty), ("0022", "?"));
    assert_eq!(numbers, [*shell; 3], "process, group and session");

    let (output, ..) = edge.run("grep -E '^Sig(Blk|Ign)' /proc/self/status", b"").await;
    for line in output.lines() {
        let mask = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
        // But 32 and 33, which belong to the C library and cannot be changed by its ways.
        assert_eq!(mask & !(0b11 << 31), 0, "{output}");
    }
}

#[tokio::test]
async fn a_user_has_the_rights_of_the_account_alone() {
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut edge = Edge::with_ann(home.path()).await;
    let line = "id -u; id -g; id -G; pwd; echo $HOME $PATH; grep -E '^(CapEff|Uid)' /proc/self/status; touch /etc/x";
    for (directory, here) in
        [(true, home.path().to_str().unwrap().to_owned()), (false, "/".to_owned())]
    {
        if !directory {
            std::fs::remove_dir(home.path()).unwrap();
        }
        let process = Process { user: "ann".to_owned(), ..command(line) };
        let (id, pipes) = edge.start(process).await;
        let (output, errors) = pipes.talk(b"").await;
        assert_eq!(edge.exited(id).await, Exit::Status(1));
        let home = home.path().display();
        assert_eq!(
            String::from_utf8(output).unwrap(),
            format!(
                "{ANN}\n{ANN}\n{ANN} 4243\n{here}\n{home} /usr/local/bin:/usr/bin:/bin:/usr/games\n\
                Uid:\t{ANN}\t{ANN}\t{ANN}\t{ANN}\nCapEff:\t0000000000000000\n"
            )
        );
        let errors = String::from_utf8(errors).unwrap();
        assert!(errors.contains("/etc/x"), "{errors}");
        let words =
            format!("Could not chdir to home directory {home}: No such file or directory\n");
        assert_eq!(errors.contains(&words), !directory, "{errors}");
    }
}

/// As with sshd: what is in the file goes to all but root, who comes in.
#[tokio::test]
async fn nobody_but_root_comes_in_while_logins_are_closed() {
    let home = tempfile::tempdir().unwrap();
    let mut edge = Edge::with_ann(home.path()).await;
    edge.run("echo closed for now > /etc/nologin", b"").await;
    let process = Process { user: "ann".to_owned(), ..command("echo in") };
    let (id, pipes) = edge.start(process).await;
    assert_eq!(pipes.talk(b"").await, (Vec::new(), b"closed for now\n".to_vec()));
    assert_eq!(edge.exited(id).await, Exit::Status(254));
    assert_eq!(edge.run("echo in", b"").await.0, "in\n");
}

#[tokio::test]
async fn a_name_that_is_no_account_means_root_or_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let mut edge = Edge::with_ann(home.path()).await;
    for (user, is_strict, want) in [
        ("ann", true, Ok("4242")),
        ("anne", false, Ok("0")),
        ("anne", true, Err("there is no account anne in this container\n")),
        ("root", true, Ok("0")),
        ("", true, Err("there is no account  in this container\n")),
    ] {
        let process = Process { user: user.to_owned(), is_strict, ..command("id -u") };
        let (id, pipes) = edge.start(process).await;
        let (output, errors) = pipes.talk(b"").await;
        let [output, errors] = [output, errors].map(|it| String::from_utf8(it).unwrap());
        match want {
            Ok(uid) => assert_eq!((output.trim(), errors.as_str()), (uid, ""), "{user}"),
            Err(words) => assert_eq!((output.as_str(), errors.as_str()), ("", words), "{user}"),
        }
        let status = if want.is_ok() { 0 } else { 126 };
        assert_eq!(edge.exited(id).await, Exit::Status(status), "{user}");
    }
}

#[tokio::test]
async fn variables_of_the_container_are_there_unless_the_client_says_otherwise() {
    let home = tempfile::tempdir().unwrap();
    let mut edge = Edge::with_ann(home.path()).await;
    let lines = "# of all\nexport GREETING=\"good day\"\nPATH=/opt/bin:/bin\nLANG=C\n";
    edge.run("cat > /etc/environment", lines.as_bytes()).await;
    let env = vec![(b"LANG".to_vec(), b"de_DE".to_vec())];
    let (id, pipes) = edge.start(Process { env, ..command("echo $GREETING $PATH $LANG") }).await;
    assert_eq!(pipes.talk(b"").await.0, b"good day /opt/bin:/bin de_DE\n");
    assert_eq!(edge.exited(id).await, Exit::Status(0));
}

#[tokio::test]
async fn signals_reach_the_group_of_a_process() {
    let mut edge = Edge::new().await;
    let (id, mut pipes) = edge
        .start(command("trap 'echo heard; exit 3' USR1; echo ready; while :; do sleep 0.05; done"))
        .await;
    let mut word = [0; 6];
    pipes.output.read_exact(&mut word).unwrap();
    for name in ["NONE", "USR1"] {
        edge.say(&ToHelper::Signal { id, name: name.to_owned() }, &[]).await;
    }
    assert_eq!(pipes.talk(b"").await.0, b"heard\n");
    assert_eq!(edge.exited(id).await, Exit::Status(3));
    // To one that has ended: nothing happens.
    edge.say(&ToHelper::Signal { id, name: "KILL".to_owned() }, &[]).await;
    edge.run("true", b"").await;
}

#[tokio::test]
async fn the_end_of_a_channel_hangs_its_processes_up() {
    let mut edge = Edge::new().await;
    let (id, pipes) = edge.start(command("sleep 1000 & sleep 1000; echo never")).await;
    edge.say(&ToHelper::End { id }, &[]).await;
    let (output, _) = pipes.talk(b"").await;
    assert_eq!(output, b"", "all that held the output have gone");
    edge.run("true", b"").await;
}

/// And leaves no child to the container's first process, which may look after none.
#[tokio::test]
async fn the_end_of_the_connection_hangs_all_up_and_ends_the_helper() {
    set_child_subreaper(Some(getpid())).unwrap();
    let mut edge = Edge::new().await;
    let agent = Process { agent: true, ..command("echo $SSH_AUTH_SOCK; exec sleep 1000") };
    let (_, mut pipes) = edge.start(agent).await;
    let mut socket = String::new();
    while !socket.ends_with('\n') {
        let mut octet = [0];
        pipes.output.read_exact(&mut octet).unwrap();
        socket.push(char::from(octet[0]));
    }
    let Edge { wire, mut helper, .. } = edge;
    drop(wire);
    assert_eq!(pipes.talk(b"").await.0, b"");
    assert!(helper.wait().await.unwrap().success());
    assert!(!Path::new(socket.trim()).exists());
    let left = waitpid(None, WaitOptions::empty());
    assert!(matches!(left, Err(Errno::CHILD)), "{left:?}");
}

#[tokio::test]
async fn an_idle_helper_ends_and_a_busy_one_does_not() {
    let edge = Edge::with(&["0"], |_command| {}).await;
    assert!(edge.gone().await.success());

    let mut edge = Edge::with(&["1"], |_command| {}).await;
    let (output, _, exit) = edge.run("sleep 1.5; echo here", b"").await;
    assert_eq!((output.as_str(), exit), ("here\n", Exit::Status(0)));
    assert!(edge.gone().await.success());
}

/// A job in the background keeps the output open, but not the session.
#[tokio::test]
async fn a_background_job_outlives_its_session() {
    let mut edge = Edge::new().await;
    let (id, mut pipes) = edge.start(command("{ read x; echo later; } <&0 & echo now")).await;
    assert_eq!(edge.exited(id).await, Exit::Status(0));
    edge.say(&ToHelper::End { id }, &[]).await;
    std::io::Write::write_all(&mut pipes.input, b"go\n").unwrap();
    assert_eq!(pipes.talk(b"").await.0, b"now\nlater\n");
}

#[tokio::test]
async fn a_hundred_at_once() {
    let mut edge = Edge::new().await;
    let mut all = Vec::new();
    for number in 0..100_u8 {
        let id = edge.id();
        let (input, output, errors) = (pipe(), pipe(), pipe());
        let process = command(&format!("cat; exit {number}"));
        edge.say(&ToHelper::Start { id, process }, &[input.0, output.1, errors.1]).await;
        all.push((id, number, input.1, output.0));
    }
    let mut ended = Vec::new();
    let mut readers = Vec::new();
    for (_, number, input, output) in &mut all {
        rustix::io::write(input.as_fd(), &[*number; 3]).unwrap();
        let output = std::fs::File::from(output.try_clone().unwrap());
        readers.push((*number, spawn_blocking(|| read_all(output))));
    }
    let ids: Vec<(u64, u8)> = all.iter().map(|(id, number, ..)| (*id, *number)).collect();
    drop(all);
    while ended.len() < 100 {
        if let FromHelper::Exited { id, exit } = edge.hear().await {
            ended.push((id, exit));
        }
    }
    for (id, number) in ids {
        assert!(ended.contains(&(id, Exit::Status(number))));
    }
    for (number, reader) in readers {
        assert_eq!(reader.await.unwrap(), [number; 3]);
    }
}

#[tokio::test]
async fn what_cannot_begin_is_refused_in_words() {
    let mut edge = Edge::new().await;
    let no_program = process(Run::Program { argv: Vec::new(), directory: None });
    let variable = Process { env: vec![(b"A=B".to_vec(), Vec::new())], ..command("true") };
    let long = "x".repeat(140_000);
    for (process, count, words) in [
        (command("true"), 2, "another number of descriptors"),
        (no_program, 3, "no program"),
        (variable, 3, "a variable"),
        (command("a\0b"), 3, "NUL"),
        (command(&long), 3, "Argument list too long"),
    ] {
        let id = edge.id();
        let pipes: Vec<_> = (0..count).map(|_| pipe()).collect();
        let (kept, sent): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
        edge.say(&ToHelper::Start { id, process }, &sent).await;
        drop(sent);
        let heard = edge.hear().await;
        let FromHelper::Refused { id: of, reason, message } = heard else { panic!("{heard:?}") };
        assert_eq!((of, reason), (id, Reason::Failed));
        assert!(message.contains(words), "{message}");
        for end in kept {
            assert_eq!(read_all(std::fs::File::from(end)), b"", "its descriptors are closed");
        }
    }
    // A number that is in use is not taken twice.
    let (id, pipes) = edge.start(command("cat")).await;
    edge.say(&ToHelper::Start { id, process: command("true") }, &[]).await;
    assert!(matches!(edge.hear().await, FromHelper::Refused { id: of, .. } if of == id));
    assert_eq!(pipes.talk(b"still here").await.0, b"still here");
    assert_eq!(edge.exited(id).await, Exit::Status(0));
}

/// Who has sent something else than the protocol is left, with all that it had.
#[tokio::test]
async fn an_impostor_is_left() {
    let edge = Edge::new().await;
    edge.wire.send(&[255_u8; 32], &[]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), edge.gone()).await.unwrap();
}
