//! Writes entries.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::{Head, Kind, PAX_BYTES_MAX, XATTR, invalid};

/// The unit of the form, in bytes.
const BLOCK: usize = 512;

/// The longest name that fits into a header.
const NAME_MAX: usize = 100;

/// The least numbers that do not fit into a header's digits.
const ID_END: u32 = 1 << 21;
const SIZE_END: u64 = 1 << 33;

/// Writes an archive.
pub(crate) struct Writer<W> {
    output: W,
    /// What every name begins with.
    prefix: &'static str,
}

impl<W: Write> Writer<W> {
    /// One whose names begin with `prefix`, as `.`.
    pub(crate) fn new(output: W, prefix: &'static str) -> Self {
        Self { output, prefix }
    }

    /// Adds a file that is not of the tree, with this whole name.
    pub(crate) fn add_beside(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        let size = contents.len() as u64;
        let mut header =
            header(EntryType::Regular, &Head::new(name, Kind::file(size), 0o644), size);
        name_it(&mut header, name.as_bytes());
        self.write_header(header)?;
        self.output.write_all(contents)?;
        self.pad(size)
    }

    /// Adds an entry. Of a file's `data`, only what is in its ranges is read: one after the other.
    pub(crate) fn add(&mut self, head: &Head, data: impl Read) -> io::Result<()> {
        let mut pax = Vec::new();
        let mut name = self.name(&head.path);
        let mut map = Vec::new();
        let (kind, size) = match &head.kind {
            Kind::Directory => {
                name.push(b'/');
                (EntryType::Directory, 0)
            }
            Kind::File { size, ranges } if is_dense(*size, ranges) => (EntryType::Regular, *size),
            Kind::File { size, ranges } => {
                map = sparse_map(*size, ranges);
                record(&mut pax, b"GNU.sparse.major", b"1");
                record(&mut pax, b"GNU.sparse.minor", b"0");
                record(&mut pax, b"GNU.sparse.name", &name);
                record(&mut pax, b"GNU.sparse.realsize", size.to_string().as_bytes());
                name = b"./GNUSparseFile.0/file".to_vec();
                let length: u64 = ranges.iter().map(|(_, length)| *length).sum();
                (EntryType::Regular, map.len() as u64 + length)
            }
            Kind::Symlink(_) => (EntryType::Symlink, 0),
            Kind::Link(_) => (EntryType::Link, 0),
            Kind::Fifo => (EntryType::Fifo, 0),
        };
        let mut header = header(kind, head, size);
        if name.len() > NAME_MAX {
            record(&mut pax, b"path", &name);
        }
        name_it(&mut header, &name);
        let target = match &head.kind {
            Kind::Symlink(target) => Some(target.clone()),
            Kind::Link(target) => Some(self.name(target)),
            Kind::Directory | Kind::File { .. } | Kind::Fifo => None,
        };
        if let Some(target) = target {
            if target.len() > NAME_MAX {
                record(&mut pax, b"linkpath", &target);
            }
            let octets = header.as_old_mut().linkname.iter_mut();
            octets.zip(&target).for_each(|(place, octet)| *place = *octet);
        }
        describe(&mut pax, head, size);
        self.write_pax(&pax)?;
        self.write_header(header)?;
        self.output.write_all(&map)?;
        let left = size - map.len() as u64;
        let copied = io::copy(&mut data.take(left), &mut self.output)?;
        if copied != left {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file became shorter"));
        }
        self.pad(size)
    }

    /// Marks the end.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.output.write_all(&[0; 2 * BLOCK])?;
        Ok(self.output)
    }

    fn name(&self, path: &[u8]) -> Vec<u8> {
        let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
        [self.prefix.as_bytes(), slash, path].concat()
    }

    /// Writes what the next header has no room for.
    fn write_pax(&mut self, pax: &[u8]) -> io::Result<()> {
        let size = pax.len() as u64;
        if pax.is_empty() {
            return Ok(());
        }
        if size > PAX_BYTES_MAX {
            return Err(invalid("a name, or what its attributes take, is too long for an archive"));
        }
        let about = Head::new("", Kind::Fifo, 0o644);
        let mut header = header(EntryType::XHeader, &about, size);
        name_it(&mut header, b"./PaxHeaders/entry");
        self.write_header(header)?;
        self.output.write_all(pax)?;
        self.pad(size)
    }

    fn write_header(&mut self, mut header: Header) -> io::Result<()> {
        header.set_cksum();
        self.output.write_all(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0);
        self.output.write_all([0; BLOCK].get(..rest).unwrap_or_default())
    }
}

/// Whether a file has no holes.
fn is_dense(size: u64, ranges: &[(u64, u64)]) -> bool {
    match ranges {
        [] => size == 0,
        [only] => *only == (0, size),
        [_, ..] => false,
    }
}

/// Where a file has data, as it stands before the data.
fn sparse_map(size: u64, ranges: &[(u64, u64)]) -> Vec<u8> {
    // A hole at the end is known by an empty range.
    let end = ranges.last().map_or(0, |(begin, length)| begin + length);
    let last = (end < size).then_some((size, 0));
    let mut text = format!("{}\n", ranges.len() + usize::from(last.is_some())).into_bytes();
    for (begin, length) in ranges.iter().copied().chain(last) {
        text.extend_from_slice(format!("{begin}\n{length}\n").as_bytes());
    }
    text.resize(text.len().next_multiple_of(BLOCK), 0);
    text
}

/// What the header has no room for, but for names.
fn describe(pax: &mut Vec<u8>, head: &Head, size: u64) {
    let (seconds, nanoseconds) = head.modified;
    if nanoseconds != 0 || u64::try_from(seconds).map_or(true, |seconds| seconds >= SIZE_END) {
        record(pax, b"mtime", time(seconds, nanoseconds).as_bytes());
    }
    for (key, id) in [(b"uid", head.uid), (b"gid", head.gid)] {
        if id >= ID_END {
            record(pax, key, id.to_string().as_bytes());
        }
    }
    if size >= SIZE_END {
        record(pax, b"size", size.to_string().as_bytes());
    }
    for (name, value) in &head.xattrs {
        // The sign between key and value must not stand in the key.
        let mut key = XATTR.to_vec();
        for octet in name {
            match octet {
                b'%' => key.extend_from_slice(b"%25"),
                b'=' => key.extend_from_slice(b"%3D"),
                other => key.push(*other),
            }
        }
        record(pax, &key, value);
    }
}

/// Seconds as a decimal number. What is before 1970 is counted from there, too.
fn time(seconds: i64, nanoseconds: u32) -> String {
    if seconds < 0 && nanoseconds > 0 {
        let seconds = seconds.saturating_add(1);
        let sign = if seconds == 0 { "-" } else { "" };
        return format!("{sign}{seconds}.{:09}", 1_000_000_000 - nanoseconds);
    }
    format!("{seconds}.{nanoseconds:09}")
}

/// Adds a record, whose length counts its own digits.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let digits = |number: usize| number.to_string().len();
    let mut length = rest + digits(rest);
    length = rest + digits(length);
    pax.extend_from_slice(length.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        pax.extend_from_slice(part);
    }
}

fn header(kind: EntryType, head: &Head, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(head.mode & 0o7777);
    header.set_uid(head.uid.into());
    header.set_gid(head.gid.into());
    header.set_size(size);
    let seconds = u64::try_from(head.modified.0).unwrap_or(0);
    header.set_mtime(if seconds < SIZE_END { seconds } else { 0 });
    header
}

/// Writes the name, or its beginning.
fn name_it(header: &mut Header, name: &[u8]) {
    let places = header.as_old_mut().name.iter_mut();
    places.zip(name).for_each(|(place, octet)| *place = *octet);
}
