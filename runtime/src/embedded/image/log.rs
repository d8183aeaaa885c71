//! The output of one build: all of it in a file, the end of it in memory.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
};

use tokio::{fs::File, io::AsyncWriteExt};

/// How many lines an error quotes.
const TAIL_LINES: usize = 12;

/// How much of a line is kept; progress bars make long ones.
const LINE_BYTES_MAX: usize = 400;

/// How much of the output goes to the file; a build that says more is broken.
const FILE_BYTES_MAX: usize = 8 << 20;

/// The log of a build.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    written: usize,
    tail: VecDeque<String>,
}

impl Log {
    /// Starts a log, replacing the one of the build before.
    pub(super) async fn create(path: PathBuf) -> io::Result<Self> {
        let file = File::create(&path).await?;
        Ok(Self { path, file, written: 0, tail: VecDeque::with_capacity(TAIL_LINES) })
    }

    /// Adds a line. A full disk costs the file, not the build.
    pub(super) async fn line(&mut self, line: &str) {
        let line = clip(line);
        if self.written < FILE_BYTES_MAX {
            let text = format!("{line}\n");
            self.written += text.len();
            if let Err(error) = self.file.write_all(text.as_bytes()).await {
                tracing::debug!(%error, path = %self.path.display(), "the build log is cut short");
                self.written = FILE_BYTES_MAX;
            }
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
    }

    /// Makes sure that the file holds every line so far.
    pub(super) async fn flush(&mut self) {
        if let Err(error) = self.file.flush().await {
            tracing::debug!(%error, path = %self.path.display(), "the build log is cut short");
        }
    }

    /// The last lines.
    pub(super) fn tail(&self) -> String {
        self.tail.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Where the whole log lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The part of a line that is kept: after the last carriage return, up to the limit.
fn clip(line: &str) -> &str {
    let line = line.trim_end();
    let line = line.rsplit('\r').next().unwrap_or(line);
    let end = (0..=LINE_BYTES_MAX.min(line.len())).rev().find(|&at| line.is_char_boundary(at));
    line.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_at_a_character_and_loses_overwritten_progress() {
        assert_eq!(clip("10%\r20%\r30% done\n"), "30% done");
        let long = "é".repeat(LINE_BYTES_MAX);
        assert_eq!(clip(&long).len(), LINE_BYTES_MAX);
        assert_eq!(clip(&format!("x{long}")).len(), LINE_BYTES_MAX - 1);
    }

    #[tokio::test]
    async fn a_log_keeps_all_lines_in_the_file_and_the_last_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::create(dir.path().join("x.log")).await.unwrap();
        for n in 0..50 {
            log.line(&format!("line {n}")).await;
        }
        log.flush().await;
        assert!(log.tail().starts_with("line 38\n") && log.tail().ends_with("line 49"));
        assert_eq!(std::fs::read_to_string(log.path()).unwrap().lines().count(), 50);
    }
}
