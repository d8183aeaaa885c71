//! What OpenSSH adds to the protocol: see its file `PROTOCOL`.

use std::{
    ffi::OsStr,
    fs::File as OpenFile,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use russh_sftp::protocol::{ExtendedReply, FileAttributes, Packet, StatusCode};
use rustix::fs::{AtFlags, CWD, StatVfs, StatVfsMountFlags, fstat, linkat};

use super::{
    DATA_LEN_MAX, PACKET_LEN_MAX, Server, attributes,
    handles::HANDLES_MAX,
    requests::{one_name, pread, real, write_all},
    status::{Failure, checked, done},
};
use crate::helper::account::Account;

/// Their names and versions.
pub(super) const ALL: [(&str, &str); 11] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
    ("copy-data", "1"),
    ("home-directory", "1"),
    ("users-groups-by-id@openssh.com", "1"),
];

/// How much is copied at once, in octets.
const PIECE: usize = 256 * 1024;

impl Server {
    pub(super) fn extension(
        &mut self,
        id: u32,
        request: &str,
        data: &[u8],
    ) -> Result<Packet, Failure> {
        let mut fields = Fields(data);
        match request {
            "posix-rename@openssh.com" => {
                let (from, to) = (fields.path()?, fields.path()?);
                rustix::fs::rename(from, to)?;
            }
            "hardlink@openssh.com" => {
                let (from, to) = (fields.path()?, fields.path()?);
                linkat(CWD, from, CWD, to, AtFlags::empty())?;
            }
            "statvfs@openssh.com" => {
                return Ok(statvfs(id, &rustix::fs::statvfs(fields.path()?)?));
            }
            "fstatvfs@openssh.com" => {
                let file = self.handles.file(fields.text()?)?;
                return Ok(statvfs(id, &rustix::fs::fstatvfs(file)?));
            }
            "fsync@openssh.com" => rustix::fs::fsync(self.handles.file(fields.text()?)?)?,
            "lsetstat@openssh.com" => {
                let path = fields.path()?;
                attributes::set(&path, &fields.attributes()?, false)?;
            }
            "limits@openssh.com" => return Ok(limits(id)),
            "expand-path@openssh.com" => {
                let path = self.expand(fields.octets()?)?;
                return Ok(one_name(id, &real(&path)?).into());
            }
            "home-directory" => {
                let home = self.home_of(fields.text()?)?;
                return Ok(one_name(id, &home).into());
            }
            "copy-data" => self.copy(&mut fields)?,
            "users-groups-by-id@openssh.com" => return self.owners(id, &mut fields),
            _ => return Err(Failure::with(StatusCode::OpUnsupported)),
        }
        Ok(done(id).into())
    }

    /// A path in which `~` at the beginning means a home.
    fn expand(&self, path: &[u8]) -> Result<PathBuf, Failure> {
        let Some(rest) = path.strip_prefix(b"~") else { return checked(path) };
        let end = rest.iter().position(|octet| *octet == b'/').unwrap_or(rest.len());
        let (user, below) = rest.split_at(end);
        let user = std::str::from_utf8(user).map_err(|_error| Failure::malformed())?;
        let below = below.strip_prefix(b"/").unwrap_or(below);
        Ok(self.home_of(user)?.join(checked(below)?))
    }

    /// The home of a user; of this one for an empty name.
    fn home_of(&self, user: &str) -> Result<PathBuf, Failure> {
        if user.is_empty() {
            return Ok(self.home.clone());
        }
        let account = Account::look_up(Path::new("/"), user);
        // Any other name means root elsewhere, but not here.
        if account.name != user {
            return Err(Failure::words(StatusCode::NoSuchFile, "No such user"));
        }
        Ok(account.home)
    }

    fn copy(&self, fields: &mut Fields<'_>) -> Result<(), Failure> {
        let from = self.handles.file(fields.text()?)?;
        let (from_offset, length) = (fields.u64()?, fields.u64()?);
        let to = self.handles.file(fields.text()?)?;
        let to_offset = fields.u64()?;
        let (one, other) = (fstat(from)?, fstat(to)?);
        if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) {
            return Err(Failure::words(StatusCode::Failure, "Source and target are one file"));
        }
        // No length means: to its end.
        copy(from, to, from_offset, to_offset, if length == 0 { u64::MAX } else { length })
    }

    /// The names of users and groups; empty for those without.
    fn owners(&self, id: u32, fields: &mut Fields<'_>) -> Result<Packet, Failure> {
        let mut data = Vec::new();
        for known in [&self.users, &self.groups] {
            let mut ids = Fields(fields.octets()?);
            let mut names = Vec::new();
            while !ids.0.is_empty() {
                let wanted = ids.u32()?;
                let found = known.iter().find(|(id, _)| *id == wanted);
                put(&mut names, found.map_or(b"", |(_, name)| name.as_bytes()));
            }
            put(&mut data, &names);
        }
        Ok(ExtendedReply { id, data }.into())
    }
}

fn copy(
    from: &OpenFile,
    to: &OpenFile,
    mut from_offset: u64,
    mut to_offset: u64,
    mut left: u64,
) -> Result<(), Failure> {
    let mut piece = vec![0; PIECE];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let read = pread(from, piece.get_mut(..most).unwrap_or_default(), from_offset)?;
        if read == 0 {
            break;
        }
        write_all(to, piece.get(..read).unwrap_or_default(), to_offset)?;
        let read = read as u64;
        (from_offset, to_offset, left) = (from_offset + read, to_offset + read, left - read);
    }
    Ok(())
}

fn limits(id: u32) -> Packet {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // A few are the process's own.
    let handles = files.unwrap_or(u64::MAX).saturating_sub(8).min(HANDLES_MAX as u64);
    let [packet, data] = [PACKET_LEN_MAX, DATA_LEN_MAX].map(u64::from);
    numbers(id, &[packet, data, data, handles])
}

fn statvfs(id: u32, stat: &StatVfs) -> Packet {
    let mut flags = 0;
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        flags |= 1;
    }
    if stat.f_flag.contains(StatVfsMountFlags::NOSUID) {
        flags |= 2;
    }
    let of = |s: &StatVfs| {
        [
            s.f_bsize,
            s.f_frsize,
            s.f_blocks,
            s.f_bfree,
            s.f_bavail,
            s.f_files,
            s.f_ffree,
            s.f_favail,
            s.f_fsid,
            flags,
            s.f_namemax,
        ]
    };
    numbers(id, &of(stat))
}

fn numbers(id: u32, all: &[u64]) -> Packet {
    let data = all.iter().flat_map(|number| number.to_be_bytes()).collect();
    ExtendedReply { id, data }.into()
}

fn put(into: &mut Vec<u8>, octets: &[u8]) {
    let length = u32::try_from(octets.len()).unwrap_or(u32::MAX);
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(octets);
}

/// Fields of a request, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (first, rest) = self.0.split_first_chunk().ok_or_else(Failure::malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u32(&mut self) -> Result<u32, Failure> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Failure> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn octets(&mut self) -> Result<&'a [u8], Failure> {
        let length = usize::try_from(self.u32()?).map_err(|_error| Failure::malformed())?;
        let (octets, rest) = self.0.split_at_checked(length).ok_or_else(Failure::malformed)?;
        self.0 = rest;
        Ok(octets)
    }

    fn text(&mut self) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.octets()?).map_err(|_error| Failure::malformed())
    }

    /// As octets, any name will do.
    fn path(&mut self) -> Result<PathBuf, Failure> {
        let octets = self.octets()?;
        if octets.contains(&0) {
            return Err(Failure::malformed());
        }
        Ok(PathBuf::from(OsStr::from_bytes(octets)))
    }

    fn attributes(&mut self) -> Result<FileAttributes, Failure> {
        let flags = self.u32()?;
        let mut attributes = FileAttributes::empty();
        if flags & 1 != 0 {
            attributes.size = Some(self.u64()?);
        }
        if flags & 2 != 0 {
            (attributes.uid, attributes.gid) = (Some(self.u32()?), Some(self.u32()?));
        }
        if flags & 4 != 0 {
            attributes.permissions = Some(self.u32()?);
        }
        if flags & 8 != 0 {
            (attributes.atime, attributes.mtime) = (Some(self.u32()?), Some(self.u32()?));
        }
        Ok(attributes)
    }
}
