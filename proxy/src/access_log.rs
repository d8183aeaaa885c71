//! Access lines: formatted by the workers into their own buffers, written in batches by one thread.
//!
//! The queue between them is bounded. A disk that does not keep up costs lines, which are counted,
//! never time of a request.

use std::{
    cell::{Cell, RefCell},
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

use crate::config::AccessLog;

/// A worker hands its lines over when they are so many octets, or at the next tick.
const BATCH: usize = 32 * 1024;
/// The batches that may wait for the writer.
const QUEUE: usize = 64;

/// One worker's lines that are not yet handed over.
#[derive(Debug)]
pub(crate) struct LineBuffer {
    writer: Option<SyncSender<Vec<u8>>>,
    lines: RefCell<Vec<u8>>,
    count: Cell<u64>,
}

impl LineBuffer {
    pub(crate) fn new(writer: Option<SyncSender<Vec<u8>>>) -> Self {
        Self { writer, lines: RefCell::default(), count: Cell::new(0) }
    }

    /// Adds a line. Returns how many lines were lost.
    pub(crate) fn add(&self, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        if self.writer.is_none() {
            return 0;
        }
        let mut lines = self.lines.borrow_mut();
        write(&mut lines);
        self.count.set(self.count.get() + 1);
        let full = lines.len() >= BATCH;
        drop(lines);
        if full { self.flush() } else { 0 }
    }

    /// Hands the lines over to the writer. Returns how many lines were lost.
    pub(crate) fn flush(&self) -> u64 {
        let count = self.count.replace(0);
        let Some(writer) = self.writer.as_ref().filter(|_| count > 0) else { return 0 };
        let batch = self.lines.replace(Vec::with_capacity(BATCH + 1024));
        if writer.try_send(batch).is_ok() { 0 } else { count }
    }
}

/// The way to the writer, and its thread.
type Writer = (SyncSender<Vec<u8>>, JoinHandle<()>);

/// Starts the writer. It ends when all senders are gone.
pub(crate) fn start(target: &AccessLog) -> io::Result<Option<Writer>> {
    let mut sink = match target {
        AccessLog::Off => return Ok(None),
        AccessLog::Stdout => Sink::Stdout,
        AccessLog::File(path) => Sink::File { file: open(path)?, path: path.clone() },
    };
    let (sender, batches) = sync_channel(QUEUE);
    let thread = std::thread::Builder::new()
        .name("gantry-access".to_owned())
        .spawn(move || run(&batches, &mut sink))?;
    Ok(Some((sender, thread)))
}

enum Sink {
    Stdout,
    File { file: File, path: PathBuf },
}

fn run(batches: &Receiver<Vec<u8>>, sink: &mut Sink) {
    let mut failing = false;
    for batch in batches {
        match sink.write(&batch) {
            Ok(()) => failing = false,
            // Once per outage: the log of errors shall not grow with the log of requests.
            Err(error) if !failing => {
                failing = true;
                tracing::error!(%error, "cannot write access lines");
            }
            Err(_) => {}
        }
    }
}

impl Sink {
    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(batch)?;
                out.flush()
            }
            Self::File { file, path } => {
                if !is_same(file, path) {
                    *file = open(path)?;
                }
                file.write_all(batch)
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Its hostnames are credentials: for the owner alone.
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Whether `path` still names `file`; a rotated file has another inode.
fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        (Ok(_) | Err(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_in_a_file_that_was_rotated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let mut sink = Sink::File { file: open(&path).unwrap(), path: path.clone() };
        sink.write(b"one\n").unwrap();
        std::fs::rename(&path, directory.path().join("access.log.1")).unwrap();
        sink.write(b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
    }

    #[test]
    fn a_full_queue_costs_lines_and_they_are_counted() {
        let (sender, _batches) = sync_channel(1);
        let buffer = LineBuffer::new(Some(sender));
        for lost in [0, 1] {
            assert_eq!(buffer.add(|line| line.extend_from_slice(b"x\n")), 0);
            assert_eq!(buffer.flush(), lost);
        }
        assert_eq!(buffer.flush(), 0, "nothing is left to lose");
    }
}
