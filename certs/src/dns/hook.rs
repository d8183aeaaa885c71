//! A program of the operator's that changes TXT records, for whatever has no provider here.
//!
//! It is run as `PROGRAM append NAME VALUE` or `PROGRAM remove NAME VALUE`, without a shell, in `/`, with
//! nothing in its environment but `PATH` and the same three words as `GANTRY_DNS_ACTION`, `GANTRY_DNS_NAME` and
//! `GANTRY_DNS_VALUE`. Status 0 is success; of anything else the operator is told the end of what it
//! has written to its standard error.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    time::{Instant, timeout, timeout_at},
};

use super::{
    DnsError, DnsProvider, Txt,
    config::{ExecConfig, Fault, bounded, noted},
    seconds,
};

/// Where a program finds others; that of Gantry may be anything.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of the standard error an error shows, in octets.
const TAIL_LEN: usize = 1024;

/// How long a program that has ended may still hold its standard error open, by what it has left
/// running.
const LEFT_OPEN_MAX: Duration = Duration::from_millis(500);

/// Changes TXT records by a program.
#[derive(Debug)]
pub struct Hook {
    program: PathBuf,
    bound: Duration,
}

impl Hook {
    /// The provider of a configuration; otherwise everything that is wrong with it.
    pub fn new(config: &ExecConfig) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let bound = noted(&mut faults, bounded("timeout_s", config.timeout_s, 1..=600));
        let program = noted(&mut faults, executable(&config.program));
        match (program, bound) {
            (Some(program), Some(bound)) => Ok(Self { program: program.to_owned(), bound }),
            _ => Err(faults),
        }
    }

    async fn run(&self, action: &'static str, record: &Txt) -> Result<(), DnsError> {
        let call = format!("{} {action} {}", self.program.display(), record.name);
        let error = |why: String| DnsError::new(format!("{call}: {why}"));
        let mut command = Command::new(&self.program);
        command.args([action, &record.name, &record.value]);
        command.env_clear().env("PATH", PATH).env("GANTRY_DNS_ACTION", action);
        command.env("GANTRY_DNS_NAME", &record.name).env("GANTRY_DNS_VALUE", &record.value);
        command.current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|why| error(format!("cannot be started: {why}")))?;
        let mut running = Running::new(child);
        match running.end(self.bound).await {
            Ended::Well => Ok(()),
            Ended::Badly(status) => {
                Err(error(format!("has failed ({status}){}", running.last_words())))
            }
            Ended::Not => {
                let bound = seconds(self.bound);
                Err(error(format!("was killed after {bound}{}", running.last_words())))
            }
            Ended::Unknown(why) => Err(error(format!("cannot be waited for: {why}"))),
        }
    }
}

/// Whether a path is a program's; otherwise what is wrong.
fn executable(path: &Path) -> Result<&Path, Fault> {
    let fault = |rule: String| Fault::new("program", format!("{}: {rule}", path.display()));
    if !path.is_absolute() {
        return Err(fault("must be an absolute path".to_owned()));
    }
    let metadata = fs::metadata(path).map_err(|error| fault(error.to_string()))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(fault("must be a file that may be executed: chmod +x".to_owned()));
    }
    Ok(path)
}

/// A program under way. Dropped before its end, it is killed with all that is in its group.
struct Running {
    child: Child,
    /// Until it is known to have ended.
    group: Option<Pid>,
    tail: Vec<u8>,
}

enum Ended {
    Well,
    Badly(ExitStatus),
    Not,
    Unknown(std::io::Error),
}

impl Running {
    fn new(child: Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self { child, group: id.and_then(Pid::from_raw), tail: Vec::new() }
    }

    async fn end(&mut self, bound: Duration) -> Ended {
        let end = Instant::now() + bound;
        let stderr = self.child.stderr.take();
        let tail = &mut self.tail;
        let mut reading = Box::pin(async {
            if let Some(stderr) = stderr {
                read_tail(stderr, tail).await;
            }
        });
        let mut is_read = false;
        let status = loop {
            tokio::select! {
                status = timeout_at(end, self.child.wait()) => break status,
                () = &mut reading, if !is_read => is_read = true,
            }
        };
        match (&status, self.group) {
            // The number may be somebody else's from now on.
            (Ok(Ok(_)), _) => self.group = None,
            (Err(_), Some(group)) => kill(group),
            (Ok(Err(_)) | Err(_), _) => {}
        }
        if !is_read && timeout(LEFT_OPEN_MAX, &mut reading).await.is_err() {
            tracing::debug!("what a program has left running holds its standard error open");
        }
        drop(reading);
        match status {
            Ok(Ok(status)) if status.success() => Ended::Well,
            Ok(Ok(status)) => Ended::Badly(status),
            Ok(Err(error)) => Ended::Unknown(error),
            Err(_) => match self.child.wait().await {
                Ok(_) => {
                    self.group = None;
                    Ended::Not
                }
                Err(error) => Ended::Unknown(error),
            },
        }
    }

    /// What it has said at last, to be put behind a text.
    fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let words: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if words.is_empty() {
            return ", and has said nothing".to_owned();
        }
        let words = words.join(" / ");
        let shown: String =
            words.chars().map(|one| if one.is_control() { '\u{fffd}' } else { one }).collect();
        format!(": {shown}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            kill(group);
        }
    }
}

fn kill(group: Pid) {
    if let Err(error) = kill_process_group(group, Signal::KILL) {
        tracing::debug!(%error, "a program's group cannot be killed");
    }
}

/// Reads to the end and keeps the last octets.
async fn read_tail(mut from: impl AsyncRead + Unpin, tail: &mut Vec<u8>) {
    let mut part = [0; 4096];
    loop {
        match from.read(&mut part).await {
            Ok(0) => return,
            Ok(len) => {
                tail.extend(part.iter().take(len));
                tail.drain(..tail.len().saturating_sub(TAIL_LEN));
            }
            Err(error) => {
                tracing::debug!(%error, "a program's standard error cannot be read");
                return;
            }
        }
    }
}

#[async_trait::async_trait]
impl DnsProvider for Hook {
    async fn append(&self, record: &Txt) -> Result<(), DnsError> {
        self.run("append", record).await
    }

    async fn remove(&self, record: &Txt) -> Result<(), DnsError> {
        self.run("remove", record).await
    }
}
