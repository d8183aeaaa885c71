//! Programs in Python of libraries that others wrote, as clients that know nothing of Gantry.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{Gantry, repository};

/// How long a program may take to say its next line.
const PATIENCE: Duration = Duration::from_mins(1);
/// How many lines it may be ahead.
const LINES_MAX: usize = 64;

/// A running program; it ends when dropped.
#[derive(Debug)]
pub struct Foreign {
    child: Child,
    input: ChildStdin,
    lines: Receiver<io::Result<String>>,
}

impl Foreign {
    /// Starts `tests/foreign/<script>` as a client of `host`, with more arguments. The libraries lie
    /// where `scripts/test` puts them.
    pub fn start(gantry: &Gantry, script: &str, host: &str, more: &[&str]) -> Result<Self> {
        let address: Ipv4Addr = gantry.address();
        let mut child = Command::new(interpreter()?)
            .arg("-B")
            .arg(repository::root().join("tests/foreign").join(script))
            .args([&address.to_string(), "8443", host])
            .arg(gantry.ca_path())
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start Python")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        // A read cannot be given up. The thread ends with the program's output, which ends with it.
        let (says, lines) = mpsc::sync_channel(LINES_MAX);
        thread::spawn(move || {
            for line in output.lines() {
                if says.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, input, lines })
    }

    /// Says a line to the program.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.input, "{line}")?)
    }

    /// The line that the program says next, within a minute; an error if it has ended.
    pub fn line(&mut self) -> Result<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(line?.trim_end().to_owned()),
            Err(RecvTimeoutError::Timeout) => bail!("the program says nothing for a minute"),
            Err(RecvTimeoutError::Disconnected) => bail!("the program has ended"),
        }
    }

    /// Waits for this line, which must be the next one.
    pub fn says(&mut self, want: &str) -> Result<()> {
        let line = self.line()?;
        ensure!(line == want, "it says {line:?} instead of {want:?}");
        Ok(())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The interpreter with the libraries.
fn interpreter() -> Result<PathBuf> {
    let test = std::env::current_exe().context("this test's own path")?;
    let target = test.ancestors().nth(3).context("an unusual target directory")?;
    let python = target.join("python/bin/python3");
    ensure!(python.exists(), "{} is missing: scripts/test makes it", python.display());
    Ok(python)
}
