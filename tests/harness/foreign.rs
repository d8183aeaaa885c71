//! Programs in Python of libraries that others wrote, as clients that know nothing of Gantry.

use std::{
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{Gantry, repository};

/// A running program; it ends when dropped.
#[derive(Debug)]
pub struct Foreign {
    child: Child,
    output: BufReader<ChildStdout>,
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
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start Python")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, output })
    }

    /// The line that the program says next; an error if it has ended.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "the program has ended");
        Ok(line.trim_end().to_owned())
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
