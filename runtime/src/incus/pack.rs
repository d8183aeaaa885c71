//! Packs an unpacked root file system as an image of Incus: one tar stream of `metadata.yaml` and
//! `rootfs/`, with the owners that the container sees.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Write},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;

use crate::embedded::image::Mapping;

/// How much is handed over at a time, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// The attribute that carries file capabilities, and its prefix in archives.
const CAPABILITY: &str = "security.capability";

/// No capability's form is longer.
const CAPABILITY_BYTES_MAX: usize = 64;

/// Writes the image to `pieces`, the last of which is an error if it is not whole. Blocks.
pub(super) fn pack(
    rootfs: &Path,
    mapping: Mapping,
    metadata: &str,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
) {
    let mut output = Output { pieces, buffer: Vec::with_capacity(PIECE_BYTES) };
    let packed = write(rootfs, mapping, metadata, &mut output).and_then(|()| output.flush());
    if let Err(error) = packed
        && pieces.blocking_send(Err(error)).is_err()
    {
        tracing::debug!("nobody reads the image that was being packed");
    }
}

fn write(rootfs: &Path, mapping: Mapping, metadata: &str, output: impl Write) -> io::Result<()> {
    let mut packer = Packer { tar: Builder::new(output), mapping, links: HashMap::new() };
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(u64::try_from(metadata.len()).unwrap_or(0));
    packer.tar.append_data(&mut header, "metadata.yaml", metadata.as_bytes())?;
    // Directories before what is in them, without recursion.
    let mut left = vec![(rootfs.to_owned(), PathBuf::from("rootfs"))];
    while let Some((path, name)) = left.pop() {
        let found = fs::symlink_metadata(&path)?;
        packer.add(&path, &name, &found)?;
        if found.is_dir() {
            for entry in fs::read_dir(&path)? {
                let entry = entry?.file_name();
                left.push((path.join(&entry), name.join(&entry)));
            }
        }
    }
    packer.tar.finish()
}

struct Packer<W: Write> {
    tar: Builder<W>,
    mapping: Mapping,
    /// Files with several names, by device and number, with the first of them.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn add(&mut self, path: &Path, name: &Path, found: &Metadata) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(found.mode() & 0o7777);
        header.set_uid(self.inner(found.uid(), path)?);
        header.set_gid(self.inner(found.gid(), path)?);
        header.set_mtime(u64::try_from(found.mtime()).unwrap_or(0));
        header.set_size(0);
        let kind = found.file_type();
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            return self.tar.append_data(&mut header, name, io::empty());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            return self.tar.append_link(&mut header, name, fs::read_link(path)?);
        }
        if kind.is_fifo() {
            header.set_entry_type(EntryType::Fifo);
            return self.tar.append_data(&mut header, name, io::empty());
        }
        if !kind.is_file() {
            // Sockets mean nothing in an image, and devices are not in ours.
            return Ok(());
        }
        if found.nlink() > 1 {
            let first = self.links.entry((found.dev(), found.ino()));
            if let std::collections::hash_map::Entry::Occupied(first) = &first {
                header.set_entry_type(EntryType::Link);
                return self.tar.append_link(&mut header, name, first.get());
            }
            first.or_insert_with(|| name.to_owned());
        }
        if let Some(capability) = capability(path)? {
            let key = format!("SCHILY.xattr.{CAPABILITY}");
            self.tar.append_pax_extensions([(key.as_str(), capability.as_slice())])?;
        }
        header.set_entry_type(EntryType::Regular);
        header.set_size(found.size());
        self.tar.append_data(&mut header, name, File::open(path)?)
    }

    /// The id in the container.
    fn inner(&self, id: u32, path: &Path) -> io::Result<u64> {
        let inner = id.checked_sub(self.mapping.base).filter(|id| *id < self.mapping.size);
        inner.map(u64::from).ok_or_else(|| {
            let text = format!("{} belongs to {id}, who is not the container's", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}

/// A file's capabilities, in the form that names no user namespace (revision 2).
fn capability(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut value = [0; CAPABILITY_BYTES_MAX];
    match rustix::fs::lgetxattr(path, CAPABILITY, &mut value) {
        Ok(length) => Ok(value.get(..length).map(without_root)),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Revision 3 ends with the namespace's root, which Incus adds for its own.
fn without_root(value: &[u8]) -> Vec<u8> {
    match value.split_first_chunk::<4>() {
        Some((magic, sets)) if u32::from_le_bytes(*magic) >> 24 == 3 => {
            let magic = (u32::from_le_bytes(*magic) & 0x00ff_ffff) | 0x0200_0000;
            let sets = sets.get(..16).unwrap_or(sets);
            magic.to_le_bytes().iter().chain(sets).copied().collect()
        }
        Some(_) | None => value.to_vec(),
    }
}

struct Output<'a> {
    pieces: &'a mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE_BYTES));
        let sent = self.pieces.blocking_send(Ok(piece.into()));
        sent.map_err(|_closed| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads it"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_links_and_owners_are_those_of_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/one"), "1").unwrap();
        fs::hard_link(root.join("etc/one"), root.join("etc/two")).unwrap();
        symlink("/etc/one", root.join("link")).unwrap();
        let me = rustix::process::getuid().as_raw();
        let mapping = Mapping { base: me, size: 65_536 };
        let mut bytes = Vec::new();
        write(root, mapping, "architecture: x86_64\n", &mut bytes).unwrap();
        let mut tar = tar::Archive::new(bytes.as_slice());
        let seen: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert_eq!(entry.header().uid().unwrap(), 0);
                (entry.path().unwrap().display().to_string(), entry.header().entry_type())
            })
            .collect();
        assert_eq!(seen[0], ("metadata.yaml".to_owned(), EntryType::Regular));
        assert_eq!(seen[1], ("rootfs".to_owned(), EntryType::Directory));
        let kinds = |kind| seen.iter().filter(|(_, found)| *found == kind).count();
        assert_eq!((kinds(EntryType::Link), kinds(EntryType::Symlink)), (1, 1), "{seen:?}");
        let outside = Mapping { base: me + 1, size: 65_536 };
        assert!(write(root, outside, "", io::sink()).is_err(), "an owner of the host's");
    }

    #[test]
    fn a_capability_loses_the_namespace_that_it_was_for() {
        let mut three = vec![1, 0, 0, 3];
        three.extend([7; 16]);
        three.extend(1_000_000_u32.to_le_bytes());
        let two = without_root(&three);
        assert_eq!((two.len(), &two[..4]), (20, &[1, 0, 0, 2][..]));
        assert_eq!(without_root(&two), two);
    }
}
