//! What `/proc/<pid>/mountinfo` says.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its number.
    pub(crate) id: u64,
    /// The number of the mount that it is in.
    pub(crate) parent: u64,
    /// The device, as `0:52`.
    pub(crate) device: String,
    /// Which directory of its file system it shows.
    pub(crate) root: PathBuf,
    /// Where it is.
    pub(crate) point: PathBuf,
    /// Whether it cannot be written.
    pub(crate) read_only: bool,
    /// The group of those that tell each other.
    pub(crate) shared: Option<u64>,
    /// The group that tells it.
    pub(crate) master: Option<u64>,
    /// The kind of file system.
    pub(crate) kind: String,
}

/// The mounts of this process.
#[derive(Debug)]
pub(super) struct Table(Vec<Mount>);

impl Table {
    /// Reads all of them.
    pub(super) fn read() -> io::Result<Self> {
        Ok(Self(parse(&fs::read("/proc/thread-self/mountinfo")?)))
    }

    /// The mounts at exactly this place.
    pub(super) fn of<'t>(&'t self, point: &'t Path) -> impl Iterator<Item = &'t Mount> {
        self.0.iter().filter(move |mount| mount.point == point)
    }

    /// The uppermost mount at this place.
    pub(super) fn at(&self, point: &Path) -> io::Result<Option<&Mount>> {
        let point = canonical(point)?;
        Ok(point.and_then(|point| self.0.iter().rev().find(|mount| mount.point == point)))
    }

    /// The mounts right below a directory.
    pub(super) fn below(&self, dir: &Path) -> io::Result<impl Iterator<Item = &Mount>> {
        let dir = canonical(dir)?;
        Ok(self
            .0
            .iter()
            .filter(move |mount| dir.is_some() && mount.point.parent() == dir.as_deref()))
    }
}

/// How the kernel spells a path; nothing if there is none.
fn canonical(path: &Path) -> io::Result<Option<PathBuf>> {
    match path.canonicalize() {
        Ok(path) => Ok(Some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every line that says what it must.
pub(super) fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|octet| *octet == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|octet| *octet == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let (root, point) = (path(fields.next()?), path(fields.next()?));
    let read_only = fields.next()?.split(|octet| *octet == b',').any(|option| option == b"ro");
    let (mut shared, mut master) = (None, None);
    for field in fields.by_ref().take_while(|field| *field != b"-") {
        let field = std::str::from_utf8(field).ok()?;
        if let Some(group) = field.strip_prefix("shared:") {
            shared = group.parse().ok();
        } else if let Some(group) = field.strip_prefix("master:") {
            master = group.parse().ok();
        }
    }
    let kind = String::from_utf8(fields.next()?.to_vec()).ok()?;
    Some(Mount { id, parent, device, root, point, read_only, shared, master, kind })
}

/// A path, in which what separates fields and lines is written in octal.
fn path(field: &[u8]) -> PathBuf {
    let mut octets = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [octet, tail @ ..] = rest {
        rest = tail;
        match (octet, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                octets.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => octets.push(*octet),
        }
    }
    OsString::from_vec(octets).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_and_without_groups_and_with_odd_paths() {
        let text =
            b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime shared:7 master:1 - ext3 /dev/root rw\n\
                     37 36 0:52 / / ro - overlay gantry rw,lowerdir=/x\n\nbroken line\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].point, Path::new("/mnt 2"));
        assert_eq!((mounts[0].shared, mounts[0].master), (Some(7), Some(1)));
        assert_eq!((mounts[0].read_only, mounts[1].read_only), (false, true));
        assert_eq!((mounts[1].id, mounts[1].parent), (37, 36));
        assert_eq!((mounts[1].device.as_str(), mounts[1].kind.as_str()), ("0:52", "overlay"));
        assert_eq!((mounts[1].shared, mounts[1].master), (None, None));
    }
}
