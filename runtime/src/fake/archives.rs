//! Archives of the files of fake containers, in the form that every runtime reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _},
};

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use super::files::Files;
use crate::{
    Archive, Error, Result,
    archive::{Head, Kind, Reader, Writer, forgetful},
};

/// How long an archive, and a file in it, may be, in bytes; all of it is held in memory.
const BYTES_MAX: u64 = 64 << 20;
const FILE_BYTES_MAX: u64 = 16 << 20;

/// An archive of these files.
pub(super) fn write(files: &Files) -> Archive {
    let written = written(files);
    let stream = futures_util::stream::iter([written.map(Bytes::from)]);
    Archive::new(tokio_util::io::StreamReader::new(stream))
}

fn written(files: &Files) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new(), ".");
    let directory = |path: &str| Head::new(path, Kind::Directory, 0o755);
    writer.add(&directory(""), io::empty())?;
    let mut made = BTreeSet::new();
    for (path, content) in files {
        let path = path.trim_start_matches('/');
        let above = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        for above in above.filter(|above| made.insert((*above).to_owned())) {
            writer.add(&directory(above), io::empty())?;
        }
        let size = u64::try_from(content.len()).map_err(io::Error::other)?;
        writer.add(&Head::new(path, Kind::file(size), 0o644), content.as_ref())?;
    }
    writer.finish()
}

/// The files of an archive; those whose names are no text are left out, as nothing here could name them.
pub(super) async fn read(what: &'static str, archive: Archive) -> Result<Files> {
    let mut octets = Vec::new();
    let read = archive.take(BYTES_MAX).read_to_end(&mut octets).await;
    let files = read.and_then(|_| files(Reader::new(octets.as_slice())));
    files.map_err(|error| Error::failed(what, error))
}

fn files(mut reader: Reader<impl io::Read>) -> io::Result<Files> {
    let mut files = BTreeMap::new();
    while let Some(mut head) = reader.next()? {
        forgetful(&mut head);
        let Ok(path) = String::from_utf8(head.path) else { continue };
        let path = format!("/{path}");
        match head.kind {
            Kind::File { size, ranges } => {
                if size > FILE_BYTES_MAX {
                    return Err(io::Error::other(format!("{path} is too long for a fake runtime")));
                }
                let mut content = vec![0; usize::try_from(size).map_err(io::Error::other)?];
                for (begin, length) in ranges {
                    let range = usize::try_from(begin)
                        .and_then(|begin| Ok(begin..begin + usize::try_from(length)?))
                        .map_err(io::Error::other)?;
                    reader.read_exact(content.get_mut(range).unwrap_or_default())?;
                }
                files.insert(path, content.into());
            }
            Kind::Link(target) => {
                let target = format!("/{}", String::from_utf8_lossy(&target));
                let content: Option<Bytes> = files.get(&target).cloned();
                files.extend(content.map(|content| (path, content)));
            }
            Kind::Directory | Kind::Symlink(_) | Kind::Fifo => {}
        }
    }
    Ok(files)
}
