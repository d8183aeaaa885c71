//! Channels that stand still or are slow, beside others of the same connection.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::{Child, ChildStdin, ChildStdout},
};

use crate::{
    bed::{Bed, PATIENCE, output, text},
    forwards::{BlackHole, socks},
    hangs::{resident, shell},
    master::{Master, ask, echo_tcp, free_port},
};

/// An interactive shell answers within this time.
const PROMPT: Duration = Duration::from_secs(1);
const MEMORY: usize = 64 << 20;

struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Shell {
    async fn new(master: &Master<'_>) -> Self {
        let mut ssh = master.ssh(&["-tt"]);
        ssh.arg("stty -echo; exec sh").env("PS1", "").env("TERM", "dumb");
        let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shell = Self { child, stdin, stdout };
        shell.ask("begin").await;
        shell
    }

    /// How long an answer took.
    async fn ask(&mut self, word: &str) -> Duration {
        let began = Instant::now();
        // The shell joins it, so that no echo looks like the answer.
        let line = format!("echo '<'{word}'>'\n");
        self.stdin.write_all(line.as_bytes()).await.unwrap();
        let want = format!("<{word}>");
        let mut said = Vec::new();
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&said).contains(&want) {
            let read = tokio::time::timeout(PATIENCE, self.stdout.read(&mut buffer)).await;
            let read = read.expect("the shell answers").unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&buffer[..read]);
        }
        began.elapsed()
    }

    async fn end(mut self) {
        self.stdin.write_all(b"exit\n").await.unwrap();
        self.child.wait().await.unwrap();
    }
}

/// Pushes at a command that reads nothing, until nothing more goes.
async fn stall(master: &Master<'_>) -> (Child, ChildStdin) {
    let mut command = master.run("echo in; exec sleep 600");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Nothing goes before it has begun.
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).await.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let chunk = vec![0; 1 << 16];
    let mut pushed = 0;
    while tokio::time::timeout(Duration::from_secs(1), stdin.write_all(&chunk)).await.is_ok() {
        pushed += chunk.len();
        assert!(pushed < MEMORY);
    }
    assert!(pushed > 1 << 20, "{pushed}");
    (child, stdin)
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_that_do_not_answer_hold_up_nothing() {
    let bed = Bed::new().await;
    let proxy = free_port().await;
    let master = Master::new(&bed, &["-D", &format!("127.0.0.1:{proxy}")]).await;
    let hole = BlackHole::new().await;
    let mut shell = Shell::new(&master).await;
    let mut waiting = Vec::new();
    for _ in 0..30 {
        waiting.push(socks(proxy, "127.0.0.1", hole.port()).await);
    }
    for n in 0..10 {
        let took = shell.ask(&n.to_string()).await;
        assert!(took < PROMPT, "{took:?}");
    }
    let echo = echo_tcp("127.0.0.1:0").await;
    let mut other = socks(proxy, "127.0.0.1", echo.port()).await;
    other.read_exact(&mut [0; 10]).await.unwrap();
    ask(other, &vec![6; 1_000_000]).await;
    // They still wait: none was answered.
    for stream in waiting {
        let mut reply = [0; 11];
        let ended = tokio::time::timeout(Duration::from_millis(1), async {
            let mut stream = stream;
            stream.read_exact(&mut reply).await
        });
        assert!(ended.await.is_err());
    }
    shell.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_of_much_takes_little_memory() {
    let bed = Bed::new().await;
    let before = resident();
    // 1 MB a second for three seconds, then the rest.
    let line = "$SSH 'head -c 100M /dev/zero' | \
                (for n in 1 2 3; do head -c 1M >/dev/null; sleep 1; done; cat) | wc -c";
    let mut client = shell(&bed, line).stdout(Stdio::piped()).spawn().unwrap();
    let mut most = 0;
    let watching = async {
        loop {
            most = most.max(resident().saturating_sub(before));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut said = String::new();
    let mut stdout = client.stdout.take().unwrap();
    tokio::select! {
        read = stdout.read_to_string(&mut said) => { read.unwrap(); }
        () = watching => {}
        () = tokio::time::sleep(PATIENCE) => panic!("it hangs"),
    }
    assert_eq!(said.trim(), ((100 - 3) << 20).to_string());
    assert!(most < MEMORY, "{most}");
}

/// A number that each has another one of, for what it sends.
fn octets(n: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap() ^ n).collect()
}

/// As an editor does that works on a remote machine.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_a_forward_and_a_shell_go_on_beside_a_channel_that_stands_still() {
    const LEN: usize = 24 << 20;
    let bed = Bed::new().await;
    let (mut files, mut sums) = (Vec::new(), Vec::new());
    for n in 0..4 {
        let path = bed.path(&format!("file{n}"));
        std::fs::write(&path, octets(n, LEN)).unwrap();
        let mut sum = tokio::process::Command::new("sha256sum");
        sum.stdin(std::fs::File::open(&path).unwrap());
        sums.push(text(sum).await);
        files.push(path);
    }
    let forwarded = octets(9, LEN / 4);
    let local = bed.path("local");
    let to = echo_tcp("127.0.0.1:0").await.port();
    let forward = format!("{}:127.0.0.1:{to}", local.display());
    let master = Master::new(&bed, &["-L", &forward]).await;
    let mut shell = Shell::new(&master).await;
    let (mut stalled, _stdin) = stall(&master).await;
    // Shells may take long to begin; nothing is sent before.
    let mut commands = Vec::new();
    for path in &files {
        let mut ssh = master.run("echo in; exec sha256sum");
        let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).await.unwrap();
        commands.push((child, tokio::fs::File::open(path).await.unwrap()));
    }
    let before = resident();
    let mut uploads = tokio::task::JoinSet::new();
    for ((mut child, mut file), sum) in commands.into_iter().zip(sums) {
        uploads.spawn(async move {
            let mut stdin = child.stdin.take().unwrap();
            tokio::io::copy(&mut file, &mut stdin).await.unwrap();
            drop(stdin);
            let ended = child.wait_with_output().await.unwrap();
            assert_eq!(String::from_utf8_lossy(&ended.stdout), sum);
        });
    }
    uploads.spawn(async move {
        ask(UnixStream::connect(local).await.unwrap(), &forwarded).await;
    });
    let (mut answers, mut slowest, mut most) = (0, Duration::ZERO, 0);
    let began = Instant::now();
    while !uploads.is_empty() {
        slowest = slowest.max(shell.ask("there").await);
        answers += 1;
        most = most.max(resident().saturating_sub(before));
        let next = uploads.join_next();
        if let Ok(Some(ended)) = tokio::time::timeout(Duration::from_millis(50), next).await {
            ended.unwrap();
        }
        assert!(began.elapsed() < PATIENCE, "{} go on", uploads.len());
    }
    // The shell was answered all the time, and not when the uploads had ended.
    assert!(answers > 10, "{answers}");
    assert!(slowest < PROMPT, "{slowest:?}");
    // The echo lies in this process, too.
    assert!(most < MEMORY + LEN, "{most}");
    shell.end().await;
    stalled.kill().await.unwrap();
    master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_goes_on_beside_eight_channels_that_stand_still() {
    let bed = Bed::new().await;
    let master = Master::new(&bed, &[]).await;
    let mut shell = Shell::new(&master).await;
    let before = resident();
    let mut children = Vec::new();
    let four = async || {
        let one = || stall(&master);
        let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
        [a, b, c, d]
    };
    for (child, mut stdin) in four().await.into_iter().chain(four().await) {
        // A client that would send more at any time.
        tokio::spawn(async move { while stdin.write_all(&vec![0; 1 << 16]).await.is_ok() {} });
        children.push(child);
    }
    for n in 0..20 {
        let took = shell.ask(&n.to_string()).await;
        assert!(took < PROMPT, "{took:?}");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 2 * MEMORY, "{grown}");
    for mut child in children {
        child.kill().await.unwrap();
    }
    shell.end().await;
    master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_nobody_takes_holds_up_no_other_channel() {
    let bed = Bed::new().await;
    let master = Master::new(&bed, &[]).await;
    let mut shell = Shell::new(&master).await;
    let before = resident();
    let mut stalled =
        master.run("echo in; exec cat /dev/zero").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 3];
    stalled.stdout.as_mut().unwrap().read_exact(&mut line).await.unwrap();
    for n in 0..20 {
        let took = shell.ask(&n.to_string()).await;
        assert!(took < PROMPT, "{took:?}");
    }
    let much = master.run("head -c 50M /dev/zero").stdout(Stdio::piped()).spawn().unwrap();
    let much = tokio::time::timeout(PATIENCE, much.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(much.stdout.len(), 50 << 20);
    drop(much);
    let grown = resident().saturating_sub(before);
    assert!(grown < MEMORY + (50 << 20), "{grown}");
    stalled.kill().await.unwrap();
    shell.end().await;
    master.end().await;
}

/// The processor's time that this process has used, in hundredths of a second.
fn used() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_stands_still_costs_little() {
    let bed = Bed::new().await;
    let master = Master::new(&bed, &[]).await;
    let (mut stalled, mut stdin) = stall(&master).await;
    let chunk = vec![0; 1 << 16];
    // A client that would send more at any time.
    let pushing = tokio::spawn(async move { while stdin.write_all(&chunk).await.is_ok() {} });
    let before = used();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let still = used() - before;
    // A fifth of what one processor has in that time, at most, in a build that nothing was optimised in.
    assert!(still < 60, "{still}");
    stalled.kill().await.unwrap();
    pushing.await.unwrap();
    master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_the_first_and_only_channel() {
    let bed = Bed::new().await;
    let content = octets(1, 3_000_000);
    std::fs::write(bed.path("from"), &content).unwrap();
    let batch = format!("put {} {}\n", bed.path("from").display(), bed.path("to").display());
    std::fs::write(bed.path("batch"), batch).unwrap();
    let file = bed.path("batch").display().to_string();
    let args = ["-q", "-b", &file, "root@127.0.0.1"];
    let ended = output(bed.client("sftp", "-P", &bed.path("id"), &args)).await;
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(std::fs::read(bed.path("to")).unwrap() == content);
}
