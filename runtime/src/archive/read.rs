//! Reads entries. What an archive holds was not ours to choose: everything that is kept in memory has
//! a bound, and what is not understood is refused.

use std::io::{self, ErrorKind, Read};

use tar::{EntryType, Header};

use super::{Head, Kind, PAX_BYTES_MAX, RANGES_MAX, XATTR, XATTRS_BYTES_MAX, invalid, is_kept};

/// The unit of the form, in bytes.
const BLOCK: usize = 512;

/// What may follow the mark of the end, in bytes: writers fill up their last piece.
const TAIL_BYTES_MAX: u64 = 1 << 20;

/// The file that tells one machine from others.
const MACHINE_ID: &[u8] = b"etc/machine-id";

/// Reads an archive. After each [`Head`] it reads the data of that file, range after range.
pub(crate) struct Reader<R> {
    input: R,
    /// What is left of the data of the entry that was read last.
    data: u64,
    /// What follows that up to the next header.
    padding: u64,
}

/// What the records before a header say.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The name and the length of a file with holes.
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
}

impl<R: Read> Reader<R> {
    /// Reads nothing yet.
    pub(crate) fn new(input: R) -> Self {
        Self { input, data: 0, padding: 0 }
    }

    /// The next entry; `None` when there was the mark of the end and, after it, the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Head>> {
        let mut pax = Pax::default();
        loop {
            skip(&mut self.input, self.data.saturating_add(self.padding))?;
            (self.data, self.padding) = (0, 0);
            let mut block = [0; BLOCK];
            self.input.read_exact(&mut block).map_err(cut_off)?;
            if block.iter().all(|octet| *octet == 0) {
                return self.end().map(|()| None);
            }
            let header = Header::from_byte_slice(&block);
            check(header)?;
            let size = header.entry_size()?;
            let is_said =
                matches!(header.entry_type(), EntryType::XHeader | EntryType::XGlobalHeader);
            self.data = if is_said { size } else { pax.size.unwrap_or(size) };
            self.padding = self
                .data
                .checked_next_multiple_of(BLOCK as u64)
                .unwrap_or(0)
                .saturating_sub(self.data);
            let kind = header.entry_type();
            if kind.is_pax_local_extensions() {
                pax = self.pax()?;
            } else if kind.is_character_special() || kind.is_block_special() {
                // The runtime gives a container its devices, and no others are any use.
                pax = Pax::default();
            } else if !kind.is_pax_global_extensions() {
                return self.head(header, kind, pax).map(Some);
            }
        }
    }

    fn head(&mut self, header: &Header, kind: EntryType, pax: Pax) -> io::Result<Head> {
        let path = pax.sparse_name.or(pax.path).unwrap_or_else(|| header.path_bytes().into_owned());
        let path = normal(&path)?;
        let target = pax.target.or_else(|| header.link_name_bytes().map(Into::into));
        let target = target.ok_or_else(|| invalid("a link leads nowhere"));
        let kind = match kind {
            EntryType::Directory => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => match pax.sparse_size {
                Some(size) => Kind::File { size, ranges: self.ranges(size)? },
                None => Kind::file(self.data),
            },
            EntryType::Symlink => Kind::Symlink(target?),
            EntryType::Link => Kind::Link(normal(&target?)?),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char
            | EntryType::Block
            | EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::GNUSparse
            | EntryType::XGlobalHeader
            | EntryType::XHeader => return Err(unknown(kind)),
            _ => return Err(unknown(kind)),
        };
        let id = |said: Option<u64>, else_: io::Result<u64>| {
            let id = said.map_or(else_, Ok)?;
            u32::try_from(id).map_err(|error| invalid(format!("the owner {id}: {error}")))
        };
        let seconds = || i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0);
        Ok(Head {
            path,
            kind,
            mode: header.mode()? & 0o7777,
            uid: id(pax.uid, header.uid())?,
            gid: id(pax.gid, header.gid())?,
            modified: pax.modified.unwrap_or_else(|| (seconds(), 0)),
            xattrs: pax.xattrs,
        })
    }

    /// Reads the records that are the data of this entry.
    fn pax(&mut self) -> io::Result<Pax> {
        if self.data > PAX_BYTES_MAX {
            return Err(invalid("what is said of an entry is too long"));
        }
        let mut octets = Vec::new();
        self.read_to_end(&mut octets)?;
        let mut pax = Pax::default();
        let mut rest = octets.as_slice();
        let mut left = XATTRS_BYTES_MAX;
        while !rest.is_empty() {
            let (key, value, after) =
                record(rest).ok_or_else(|| invalid("what is said of an entry is malformed"))?;
            rest = after;
            let number = || text(value).and_then(|text| text.parse().ok());
            match key {
                b"path" => pax.path = Some(value.to_vec()),
                b"linkpath" => pax.target = Some(value.to_vec()),
                b"size" => {
                    pax.size = Some(number().ok_or_else(|| invalid("a length is no number"))?);
                }
                b"uid" => pax.uid = Some(number().ok_or_else(|| invalid("an owner is no number"))?),
                b"gid" => pax.gid = Some(number().ok_or_else(|| invalid("a group is no number"))?),
                b"mtime" => {
                    let time = text(value).and_then(time);
                    pax.modified = Some(time.ok_or_else(|| invalid("a time is no number"))?);
                }
                b"GNU.sparse.name" => pax.sparse_name = Some(value.to_vec()),
                b"GNU.sparse.realsize" => {
                    let size = number().ok_or_else(|| invalid("a length is no number"))?;
                    pax.sparse_size = Some(size);
                }
                b"GNU.sparse.major" if value != b"1" => {
                    return Err(invalid("a file with holes is in a form that is not known"));
                }
                key => {
                    let Some(name) = key.strip_prefix(XATTR).map(unescaped) else { continue };
                    if !is_kept(&name) {
                        continue;
                    }
                    left = left
                        .checked_sub(name.len() + value.len())
                        .ok_or_else(|| invalid("the attributes of an entry are too long"))?;
                    pax.xattrs.push((name, value.to_vec()));
                }
            }
        }
        Ok(pax)
    }

    /// Reads where a file with holes has data, which stands before the data.
    fn ranges(&mut self, size: u64) -> io::Result<Vec<(u64, u64)>> {
        let bad = || invalid("where a file has holes is malformed");
        let mut taken = 0;
        let count = self.number(&mut taken)?;
        if count > RANGES_MAX as u64 + 1 {
            return Err(invalid("a file has too many holes"));
        }
        let (mut ranges, mut end, mut data) = (Vec::new(), 0_u64, 0_u64);
        for _ in 0..count {
            let (begin, length) = (self.number(&mut taken)?, self.number(&mut taken)?);
            if begin < end {
                return Err(bad());
            }
            end = begin.checked_add(length).filter(|end| *end <= size).ok_or_else(bad)?;
            data = data.checked_add(length).ok_or_else(bad)?;
            if length > 0 {
                ranges.push((begin, length));
            }
        }
        let padding = taken.next_multiple_of(BLOCK as u64) - taken;
        if self.data.checked_sub(padding) != Some(data) {
            return Err(bad());
        }
        skip(&mut self.input, padding)?;
        self.data = data;
        Ok(ranges)
    }

    /// Reads a number that ends with its line, and counts what was read.
    fn number(&mut self, taken: &mut u64) -> io::Result<u64> {
        let mut number = 0_u64;
        loop {
            let mut octet = [0];
            self.read_exact(&mut octet).map_err(cut_off)?;
            *taken += 1;
            match octet {
                [b'\n'] => return Ok(number),
                [digit @ b'0'..=b'9'] => {
                    let next = number.checked_mul(10);
                    let next = next.and_then(|next| next.checked_add(u64::from(digit - b'0')));
                    number = next.ok_or_else(|| invalid("a number is too large"))?;
                }
                _ => return Err(invalid("where a file has holes is malformed")),
            }
        }
    }

    /// Reads what follows the mark of the end: whoever makes the archive may still fail.
    fn end(&mut self) -> io::Result<()> {
        let tail = io::copy(&mut self.input.by_ref().take(TAIL_BYTES_MAX), &mut io::sink())?;
        if tail == TAIL_BYTES_MAX {
            return Err(invalid("the archive goes on after its end"));
        }
        Ok(())
    }
}

impl<R: Read> Read for Reader<R> {
    /// The data of the last entry; an end before all of it is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.by_ref().take(self.data).read(buffer)?;
        if count == 0 && self.data > 0 && !buffer.is_empty() {
            return Err(cut_off(ErrorKind::UnexpectedEof.into()));
        }
        self.data -= count as u64;
        Ok(count)
    }
}

/// Makes the file that tells a machine from others empty, so that a copy gets a number of its own. Another name
/// of a file, which keeps what it holds, becomes a file of its own.
pub(crate) fn forgetful(head: &mut Head) {
    if head.path == MACHINE_ID && matches!(head.kind, Kind::File { .. } | Kind::Link(_)) {
        head.kind = Kind::file(0);
    }
}

fn unknown(kind: EntryType) -> io::Error {
    let text = format!("an entry of kind {:?} is not known", char::from(kind.as_byte()));
    io::Error::new(ErrorKind::Unsupported, text)
}

fn cut_off(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::UnexpectedEof {
        return io::Error::new(ErrorKind::UnexpectedEof, "the archive is cut off");
    }
    error
}

fn skip(input: impl Read, count: u64) -> io::Result<()> {
    if io::copy(&mut input.take(count), &mut io::sink())? != count {
        return Err(cut_off(ErrorKind::UnexpectedEof.into()));
    }
    Ok(())
}

/// Whether a header is one.
fn check(header: &Header) -> io::Result<()> {
    let sum: u32 = header
        .as_bytes()
        .iter()
        .enumerate()
        .map(|(at, octet)| match at {
            // The sum itself counts as blanks.
            148..156 => u32::from(b' '),
            _ => u32::from(*octet),
        })
        .sum();
    if header.cksum()? == sum { Ok(()) } else { Err(invalid("a header's checksum does not match")) }
}

/// A path without `.`, and without what may stand before the first name or after the last.
fn normal(path: &[u8]) -> io::Result<Vec<u8>> {
    let names = path.split(|octet| *octet == b'/').filter(|name| !matches!(*name, b"" | b"."));
    let names: Vec<&[u8]> = names.collect();
    if names.contains(&&b".."[..]) {
        return Err(invalid("a path leads upwards"));
    }
    if path.starts_with(b"/") {
        return Err(invalid("a path is absolute"));
    }
    Ok(names.join(&b'/'))
}

/// The first record: key, value, and what follows.
fn record(octets: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = octets.iter().take(20).position(|octet| *octet == b' ')?;
    let length = text(octets.get(..blank)?)?.parse().ok()?;
    let (record, after) = octets.split_at_checked(length)?;
    let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let sign = record.iter().position(|octet| *octet == b'=')?;
    Some((record.get(..sign)?, record.get(sign + 1..)?, after))
}

fn text(octets: &[u8]) -> Option<&str> {
    std::str::from_utf8(octets).ok()
}

/// A decimal number of seconds.
fn time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds =
        digits.map(char::from).try_fold(0, |sum, digit| Some(sum * 10 + digit.to_digit(10)?))?;
    if nanoseconds > 0 && whole.starts_with('-') {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

/// A name whose `=` and `%` were spelled out.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((octet, after)) = rest.split_first() {
        let (meant, after) = match (octet, after) {
            (b'%', [b'3', b'D', after @ ..]) => (b'=', after),
            (b'%', [b'2', b'5', after @ ..]) => (b'%', after),
            _ => (*octet, after),
        };
        plain.push(meant);
        rest = after;
    }
    plain
}
