//! What a client has open.

use std::{
    collections::HashMap,
    fs::{File, ReadDir},
    path::PathBuf,
};

use russh_sftp::protocol::StatusCode;

use super::status::Failure;

/// The most at once; the limit of open files may be lower.
pub(super) const HANDLES_MAX: usize = 10_000;

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) entries: ReadDir,
    /// Whether the two that every directory has were named.
    pub(super) begun: bool,
}

#[derive(Debug)]
enum Handle {
    File(File),
    Directory(Directory),
}

/// By numbers, none of which is used twice.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: HashMap<u64, Handle>,
    next: u64,
}

impl Handles {
    pub(super) fn file(&self, handle: &str) -> Result<&File, Failure> {
        match self.open.get(&number(handle)?) {
            Some(Handle::File(file)) => Ok(file),
            Some(Handle::Directory(_)) | None => Err(unknown()),
        }
    }

    pub(super) fn directory(&mut self, handle: &str) -> Result<&mut Directory, Failure> {
        match self.open.get_mut(&number(handle)?) {
            Some(Handle::Directory(directory)) => Ok(directory),
            Some(Handle::File(_)) | None => Err(unknown()),
        }
    }

    pub(super) fn add_file(&mut self, file: File) -> Result<String, Failure> {
        self.add(Handle::File(file))
    }

    pub(super) fn add_directory(&mut self, directory: Directory) -> Result<String, Failure> {
        self.add(Handle::Directory(directory))
    }

    fn add(&mut self, handle: Handle) -> Result<String, Failure> {
        if self.open.len() >= HANDLES_MAX {
            return Err(Failure::words(StatusCode::Failure, "Too many open files"));
        }
        self.next += 1;
        self.open.insert(self.next, handle);
        Ok(self.next.to_string())
    }

    pub(super) fn close(&mut self, handle: &str) -> Result<(), Failure> {
        self.open.remove(&number(handle)?).map(drop).ok_or_else(unknown)
    }
}

fn number(handle: &str) -> Result<u64, Failure> {
    handle.parse().map_err(|_error| unknown())
}

fn unknown() -> Failure {
    Failure::words(StatusCode::Failure, "Invalid handle")
}
