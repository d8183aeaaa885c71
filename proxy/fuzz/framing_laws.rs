// What must hold for every input, however it was made. Included by the fuzz target and by the test
// that replays its seeds; both have the module of HTTP/1's framing at `crate::framing`.

use crate::framing::{ChunkScan, Framing, HeadLimits, HeadScan};

/// A client's octets are heads and bodies whose ends do not depend on where the network cuts, and a
/// head that passes has lines that every reader splits alike.
pub(crate) fn framing(data: &[u8]) {
    let limits = HeadLimits { bytes_max: 4096, fields_max: 32 };
    let whole = HeadScan::default().scan(data, limits);
    let mut scan = HeadScan::default();
    let by_octets = (0..=data.len()).map(|end| scan.scan(data.split_at(end).0, limits));
    let first = by_octets.into_iter().find(|result| *result != Ok(None));
    assert_eq!(first.unwrap_or(Ok(None)), whole);
    let Ok(Some((len, framing))) = whole else { return chunks(data) };
    let (head, rest) = data.split_at(len);
    assert!(len <= limits.bytes_max && head.ends_with(b"\r\n\r\n"));
    let lines: Vec<&[u8]> = head.split(|octet| *octet == b'\n').collect();
    let (last, lines) = lines.split_last().expect("a head has lines");
    assert!(last.is_empty() && lines.len() <= limits.fields_max + 3);
    let is_line = |line: &[u8]| line.strip_suffix(b"\r").is_some_and(|line| !line.contains(&b'\r'));
    assert!(lines.iter().all(|line| is_line(line)));
    let count = |name: &[u8]| {
        let named = |line: &&&[u8]| {
            line.len() > name.len() && line.split_at(name.len()).0.eq_ignore_ascii_case(name)
        };
        lines.iter().filter(named).count()
    };
    let (lengths, codings) = (count(b"content-length:"), count(b"transfer-encoding:"));
    assert!(lengths + codings <= 1);
    assert_eq!(codings == 1, framing == Framing::Chunked);
    if framing == Framing::Chunked {
        chunks(rest);
    }
}

/// A chunked body ends where it ends, however it is cut, and is its own whole.
fn chunks(data: &[u8]) {
    let whole = ChunkScan::default().scan(data);
    let mut scan = ChunkScan::default();
    let mut taken = 0;
    let mut by_octets = Ok((data.len(), false));
    for octet in data.chunks(1) {
        match scan.scan(octet) {
            Ok((count, ended)) => {
                taken += count;
                if ended {
                    by_octets = Ok((taken, true));
                    break;
                }
            }
            Err(refusal) => {
                by_octets = Err(refusal);
                break;
            }
        }
    }
    assert_eq!(by_octets, whole);
    if let Ok((len, true)) = whole {
        assert!(data.split_at(len).0.ends_with(b"\r\n\r\n"));
    }
}
