//! Attributes of files, and a file's line as `ls -l` has it.

use std::{fs::File as OpenFile, os::fd::AsRawFd as _, path::Path};

use russh_sftp::protocol::{File, FileAttributes};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chmodat,
        chownat, fstat, open, utimensat,
    },
    io::Errno,
};
use time::OffsetDateTime;

use super::status::Failure;

/// What is older, in seconds, is shown by its year.
const HALF_A_YEAR: i64 = 182 * 24 * 3600;

/// As the protocol has them: 32 bits for times.
pub(super) fn of(stat: &Stat) -> FileAttributes {
    let seconds = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
    FileAttributes {
        size: Some(stat.st_size.unsigned_abs()),
        uid: Some(stat.st_uid),
        user: None,
        gid: Some(stat.st_gid),
        group: None,
        permissions: Some(stat.st_mode),
        atime: Some(seconds(stat.st_atime)),
        mtime: Some(seconds(stat.st_mtime)),
    }
}

/// Changes what is given, all that can be; the first failure is told. A link itself is changed if it is not
/// to be followed.
pub(super) fn set(path: &Path, attributes: &FileAttributes, follow: bool) -> Result<(), Failure> {
    let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    let mut done = Ok(());
    let mut note = |result: Result<(), Failure>| {
        if done.is_ok() {
            done = result;
        }
    };
    if let Some(size) = attributes.size {
        note(if follow { truncate(path, size) } else { Err(Failure::malformed()) });
    }
    if let Some(mode) = attributes.permissions {
        note(if follow { chmod_at(path, mode) } else { chmod_itself(path, mode) });
    }
    if let Some(times) = times(attributes) {
        note(utimensat(CWD, path, &times, flags).map_err(Failure::from));
    }
    if let (Some(uid), Some(gid)) = (attributes.uid, attributes.gid) {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        note(chownat(CWD, path, Some(uid), Some(gid), flags).map_err(Failure::from));
    }
    done
}

/// The same for an open file.
pub(super) fn set_open(file: &OpenFile, attributes: &FileAttributes) -> Result<(), Failure> {
    let mut done = Ok(());
    let mut note = |result: Result<(), Errno>| {
        if done.is_ok() {
            done = result.map_err(Failure::from);
        }
    };
    if let Some(size) = attributes.size {
        note(rustix::fs::ftruncate(file, size));
    }
    if let Some(mode) = attributes.permissions {
        note(rustix::fs::fchmod(file, mode_of(mode)));
    }
    if let Some(times) = times(attributes) {
        note(rustix::fs::futimens(file, &times));
    }
    if let (Some(uid), Some(gid)) = (attributes.uid, attributes.gid) {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        note(rustix::fs::fchown(file, Some(uid), Some(gid)));
    }
    done
}

fn chmod_at(path: &Path, mode: u32) -> Result<(), Failure> {
    Ok(chmodat(CWD, path, mode_of(mode), AtFlags::empty())?)
}

/// The kernel follows a link when it changes a mode; so the file is held first.
fn chmod_itself(path: &Path, mode: u32) -> Result<(), Failure> {
    let held = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&held)?.st_mode) == FileType::Symlink {
        return Err(Errno::OPNOTSUPP.into());
    }
    chmod_at(Path::new(&format!("/proc/self/fd/{}", held.as_raw_fd())), mode)
}

fn truncate(path: &Path, size: u64) -> Result<(), Failure> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = open(path, flags, Mode::empty())?;
    rustix::fs::ftruncate(file, size)?;
    Ok(())
}

/// What may be set of a mode.
pub(super) fn mode_of(bits: u32) -> Mode {
    Mode::from_raw_mode(bits & 0o7777)
}

fn times(attributes: &FileAttributes) -> Option<Timestamps> {
    let time = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    Some(Timestamps {
        last_access: time(attributes.atime?),
        last_modification: time(attributes.mtime?),
    })
}

/// The names of owners.
pub(super) struct Names<'a> {
    pub(super) users: &'a [(u32, String)],
    pub(super) groups: &'a [(u32, String)],
}

impl Names<'_> {
    /// An entry of a list.
    pub(super) fn entry(&self, name: String, stat: &Stat, now: OffsetDateTime) -> File {
        let user = name_of(self.users, stat.st_uid);
        let group = name_of(self.groups, stat.st_gid);
        let longname = format!(
            "{} {:3} {user:<8} {group:<8} {:8} {} {name}",
            mode_text(stat.st_mode),
            stat.st_nlink,
            stat.st_size,
            date(stat.st_mtime, now),
        );
        File { filename: name, longname, attrs: of(stat) }
    }
}

fn name_of(names: &[(u32, String)], id: u32) -> String {
    let found = names.iter().find(|(known, _)| *known == id);
    found.map_or_else(|| id.to_string(), |(_, name)| name.clone())
}

/// When a file was changed, in UTC: the program knows no time zones.
fn date(seconds: i64, now: OffsetDateTime) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(seconds) else { return "?".to_owned() };
    let month = time.month().to_string();
    let month = month.get(..3).unwrap_or_default();
    let age = now.unix_timestamp() - seconds;
    if (0..HALF_A_YEAR).contains(&age) {
        format!("{month} {:2} {:02}:{:02}", time.day(), time.hour(), time.minute())
    } else {
        format!("{month} {:2}  {}", time.day(), time.year())
    }
}

fn mode_text(mode: u32) -> String {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::RegularFile => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Unknown => '?',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => set,
            (false, true) => unset,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_ls_writes_them() {
        for (mode, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "lrwxrwxrwx"),
            (0o104_755, "-rwsr-xr-x"),
            (0o102_644, "-rw-r-Sr--"),
            (0o041_777, "drwxrwxrwt"),
            (0o020_620, "crw--w----"),
        ] {
            assert_eq!(mode_text(mode), text);
        }
    }

    #[test]
    fn dates_have_a_year_when_they_are_old_or_to_come() {
        let now = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        for (seconds, text) in [
            (1_699_999_000, "Nov 14 21:56"),
            (1_600_000_000, "Sep 13  2020"),
            (1_700_100_000, "Nov 16  2023"),
            (0, "Jan  1  1970"),
        ] {
            assert_eq!(date(seconds, now), text);
        }
    }
}
