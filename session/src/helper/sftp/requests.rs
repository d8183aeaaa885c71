//! The requests of the protocol.

use std::{
    collections::HashMap,
    fs::File as OpenFile,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use russh_sftp::{
    protocol::{
        Attrs, Data, File, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode,
        Version,
    },
    server::Handler,
};
use rustix::{
    fs::{AtFlags, CWD, OFlags, RenameFlags, fstat, lstat, renameat_with, stat, unlinkat},
    io::Errno,
};
use time::OffsetDateTime;

use super::{
    DATA_LEN_MAX, Server,
    attributes::{self, Names, mode_of},
    extensions,
    handles::Directory,
    status::{Failure, done, path},
};

/// Entries in one answer to a list, as OpenSSH has them.
const ENTRIES_MAX: usize = 100;

impl Handler for Server {
    type Error = Failure;

    fn unimplemented(&self) -> Failure {
        Failure::with(StatusCode::OpUnsupported)
    }

    async fn init(
        &mut self,
        _version: u32,
        _extensions: HashMap<String, String>,
    ) -> Result<Version, Failure> {
        let mut version = Version::new();
        version.extensions.extend(
            extensions::ALL.iter().map(|(name, of)| ((*name).to_owned(), (*of).to_owned())),
        );
        Ok(version)
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        pflags: OpenFlags,
        attrs: FileAttributes,
    ) -> Result<Handle, Failure> {
        let mode = mode_of(attrs.permissions.unwrap_or(0o666));
        let file = rustix::fs::open(path(&filename)?, open_flags(pflags)?, mode)?;
        Ok(Handle { id, handle: self.handles.add_file(OpenFile::from(file))? })
    }

    async fn close(&mut self, id: u32, handle: String) -> Result<Status, Failure> {
        self.handles.close(&handle)?;
        Ok(done(id))
    }

    async fn read(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        len: u32,
    ) -> Result<Data, Failure> {
        let file = self.handles.file(&handle)?;
        let length = usize::try_from(len.min(DATA_LEN_MAX)).unwrap_or_default();
        let mut data = vec![0; length];
        let read = pread(file, &mut data, offset)?;
        if read == 0 && length > 0 {
            return Err(Failure::with(StatusCode::Eof));
        }
        data.truncate(read);
        Ok(Data { id, data })
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<Status, Failure> {
        write_all(self.handles.file(&handle)?, &data, offset)?;
        Ok(done(id))
    }

    async fn lstat(&mut self, id: u32, name: String) -> Result<Attrs, Failure> {
        Ok(Attrs { id, attrs: attributes::of(&lstat(path(&name)?)?) })
    }

    async fn stat(&mut self, id: u32, name: String) -> Result<Attrs, Failure> {
        Ok(Attrs { id, attrs: attributes::of(&stat(path(&name)?)?) })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Result<Attrs, Failure> {
        let stat = match self.handles.file(&handle) {
            Ok(file) => fstat(file)?,
            // Directories are open, too.
            Err(_) => stat(&self.handles.directory(&handle)?.path)?,
        };
        Ok(Attrs { id, attrs: attributes::of(&stat) })
    }

    async fn setstat(
        &mut self,
        id: u32,
        name: String,
        attrs: FileAttributes,
    ) -> Result<Status, Failure> {
        attributes::set(&path(&name)?, &attrs, true)?;
        Ok(done(id))
    }

    async fn fsetstat(
        &mut self,
        id: u32,
        handle: String,
        attrs: FileAttributes,
    ) -> Result<Status, Failure> {
        match self.handles.file(&handle) {
            Ok(file) => attributes::set_open(file, &attrs)?,
            Err(_) => attributes::set(&self.handles.directory(&handle)?.path, &attrs, true)?,
        }
        Ok(done(id))
    }

    async fn opendir(&mut self, id: u32, name: String) -> Result<Handle, Failure> {
        let path = path(&name)?;
        let directory = Directory { entries: path.read_dir()?, path, begun: false };
        Ok(Handle { id, handle: self.handles.add_directory(directory)? })
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Result<Name, Failure> {
        let names = Names { users: &self.users, groups: &self.groups };
        let files = list(self.handles.directory(&handle)?, &names)?;
        if files.is_empty() {
            return Err(Failure::with(StatusCode::Eof));
        }
        Ok(Name { id, files })
    }

    async fn remove(&mut self, id: u32, name: String) -> Result<Status, Failure> {
        unlinkat(CWD, path(&name)?, AtFlags::empty())?;
        Ok(done(id))
    }

    async fn mkdir(
        &mut self,
        id: u32,
        name: String,
        attrs: FileAttributes,
    ) -> Result<Status, Failure> {
        rustix::fs::mkdir(path(&name)?, mode_of(attrs.permissions.unwrap_or(0o777)))?;
        Ok(done(id))
    }

    async fn rmdir(&mut self, id: u32, name: String) -> Result<Status, Failure> {
        unlinkat(CWD, path(&name)?, AtFlags::REMOVEDIR)?;
        Ok(done(id))
    }

    async fn realpath(&mut self, id: u32, name: String) -> Result<Name, Failure> {
        Ok(one_name(id, &real(&path(&name)?)?))
    }

    async fn rename(&mut self, id: u32, from: String, to: String) -> Result<Status, Failure> {
        rename(&path(&from)?, &path(&to)?)?;
        Ok(done(id))
    }

    async fn readlink(&mut self, id: u32, name: String) -> Result<Name, Failure> {
        Ok(one_name(id, &std::fs::read_link(path(&name)?)?))
    }

    /// OpenSSH has the two the other way than the draft says, and so have all clients by now.
    async fn symlink(&mut self, id: u32, target: String, link: String) -> Result<Status, Failure> {
        std::os::unix::fs::symlink(path(&target)?, path(&link)?)?;
        Ok(done(id))
    }

    async fn extended(
        &mut self,
        id: u32,
        request: String,
        data: Vec<u8>,
    ) -> Result<Packet, Failure> {
        self.extension(id, &request, &data)
    }
}

fn open_flags(flags: OpenFlags) -> Result<OFlags, Failure> {
    let access = match (flags.contains(OpenFlags::READ), flags.contains(OpenFlags::WRITE)) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (true, false) => OFlags::RDONLY,
        (false, false) => return Err(Failure::malformed()),
    };
    let mut all = access | OFlags::CLOEXEC | OFlags::NOCTTY;
    all.set(OFlags::APPEND, flags.contains(OpenFlags::APPEND));
    all.set(OFlags::CREATE, flags.contains(OpenFlags::CREATE));
    all.set(OFlags::TRUNC, flags.contains(OpenFlags::TRUNCATE));
    all.set(OFlags::EXCL, flags.contains(OpenFlags::EXCLUDE));
    Ok(all)
}

pub(super) fn pread(file: &OpenFile, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *into, offset))
}

pub(super) fn write_all(file: &OpenFile, mut data: &[u8], mut offset: u64) -> Result<(), Failure> {
    while !data.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, data, offset))?;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        data = data.get(written..).unwrap_or_default();
        offset += written as u64;
    }
    Ok(())
}

/// The next entries; none at the end. One that has just gone is left out.
fn list(directory: &mut Directory, names: &Names<'_>) -> Result<Vec<File>, Failure> {
    let now = OffsetDateTime::now_utc();
    let mut files = Vec::new();
    if !directory.begun {
        directory.begun = true;
        for name in [".", ".."] {
            if let Ok(stat) = lstat(directory.path.join(name)) {
                files.push(names.entry(name.to_owned(), &stat, now));
            }
        }
    }
    while files.len() < ENTRIES_MAX {
        let Some(entry) = directory.entries.next() else { break };
        let entry = entry?;
        if let Ok(stat) = lstat(entry.path()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.push(names.entry(name, &stat, now));
        }
    }
    Ok(files)
}

/// An answer of one path; its attributes mean nothing.
pub(super) fn one_name(id: u32, path: &Path) -> Name {
    let filename = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
    let attrs = FileAttributes::empty();
    Name { id, files: vec![File { longname: filename.clone(), filename, attrs }] }
}

/// An absolute path without links; its last part need not exist.
pub(super) fn real(path: &Path) -> Result<PathBuf, Failure> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match path.canonicalize() {
        Ok(real) => Ok(real),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(error.into());
            };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        Err(error) => Err(error.into()),
    }
}

/// Renames; what is there already stays.
fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Not every file system can do it in one step.
        Err(Errno::INVAL | Errno::NOSYS) => match lstat(to) {
            Ok(_) => Err(Errno::EXIST.into()),
            Err(Errno::NOENT) => Ok(rustix::fs::rename(from, to)?),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}
