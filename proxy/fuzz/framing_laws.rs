// What must hold for every input, however it was made. Included by the fuzz target and by the test
// that replays its seeds; both have the module of HTTP/1's framing at `crate::framing`.

use crate::framing::{ChunkScan, Framing, HeadLimits, HeadScan, Piece};

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
    fields(head, lines.len(), limits);
    let (lengths, codings) = (count(b"content-length:"), count(b"transfer-encoding:"));
    assert!(lengths + codings <= 1);
    assert_eq!(codings == 1, framing == Framing::Chunked);
    if framing == Framing::Chunked {
        chunks(rest);
    }
}

/// The fields of a head stand where they are said to stand: one on each line, in their order, the name up
/// to its colon, and the value without the blanks around it.
fn fields(head: &[u8], lines: usize, limits: HeadLimits) {
    let mut fields = Vec::new();
    let scanned = HeadScan::default().scan_fields(head, limits, &mut |at| fields.push(at));
    assert!(scanned.is_ok_and(|scanned| scanned.is_some()));
    let empty = usize::from(head.starts_with(b"\r\n"));
    // The request line and the one that ends the head are none.
    assert_eq!(fields.len() + 2 + empty, lines);
    let mut end = 0;
    for at in fields {
        assert!(at.name.0 > end && at.name.1 > at.name.0 && at.value.0 > at.name.1);
        assert!(at.value.1 >= at.value.0 && head.get(at.name.1) == Some(&b':'));
        assert_eq!(head.get(at.name.0 - 1), Some(&b'\n'));
        end = at.value.1;
        let value = head.get(at.value.0..end).expect("it lies in the head");
        let is_blank = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
        assert!(!is_blank(value.first()) && !is_blank(value.last()) && !value.contains(&b'\r'));
        let around = [head.get(at.name.1 + 1..at.value.0), head.get(end..)];
        let [Some(before), Some(behind)] = around else { panic!("both lie in the head") };
        assert!(before.iter().all(|octet| is_blank(Some(octet))));
        let line = behind.iter().take_while(|octet| **octet != b'\r').count();
        assert!(behind.iter().take(line).all(|octet| is_blank(Some(octet))));
    }
}

/// The data and the trailers of a chunked body that comes in such pieces, if it is one.
fn data(pieces: &mut dyn Iterator<Item = &[u8]>) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut scan = ChunkScan::default();
    let mut data = Vec::new();
    for mut octets in pieces {
        loop {
            match scan.piece(octets).ok()? {
                Piece::Data(framing, count) => {
                    let (piece, rest) = octets.split_at(framing).1.split_at(count);
                    data.extend_from_slice(piece);
                    octets = rest;
                }
                Piece::Nothing => break,
                Piece::End(_) => return Some((data, scan.trailers().to_vec())),
            }
        }
    }
    None
}

/// A chunked body ends where it ends, however it is cut, and is its own whole.
fn chunks(octets: &[u8]) {
    let whole = ChunkScan::default().scan(octets);
    let mut scan = ChunkScan::default();
    let mut taken = 0;
    let mut by_octets = Ok((octets.len(), false));
    for octet in octets.chunks(1) {
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
    assert_eq!(data(&mut [octets].into_iter()), data(&mut octets.chunks(1)));
    if let Ok((len, true)) = whole {
        assert!(octets.split_at(len).0.ends_with(b"\r\n\r\n"));
    }
}
