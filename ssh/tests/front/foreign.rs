//! Clients in Python, of libraries that others wrote, which do what OpenSSH's client does not.
//!
//! `scripts/test` puts the libraries of `tests/python.txt` into `target/python`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::bed::{Bed, PATIENCE};

/// A program of `target/python`; nothing (only at the desk) if it is missing.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python/bin").join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{} is missing: scripts/test makes it",
        path.display()
    );
    eprintln!("not run: no {}", path.display());
    None
}

/// A script of `ssh/tests/foreign` that speaks with its test line by line.
pub(crate) struct Script {
    child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Script {
    /// Starts one with the front's port, the directory of the bed and these arguments.
    pub(crate) fn start(bed: &Bed, script: &str, args: &[&str]) -> Option<Self> {
        let python = program("python3")?;
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(script);
        let mut child = Command::new(python)
            .arg("-B")
            .arg(file)
            .arg(bed.address.port().to_string())
            .arg(bed.dir.path())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap()).lines();
        Some(Self { child, to, from })
    }

    pub(crate) async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.from.next_line()).await;
        line.expect("it says something").unwrap().expect("it goes on")
    }

    pub(crate) async fn says(&mut self, want: &str) {
        assert_eq!(self.line().await, want);
    }

    pub(crate) async fn tell(&mut self, line: &str) {
        self.to.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    pub(crate) async fn end(mut self) {
        drop(self.to);
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
    }
}
