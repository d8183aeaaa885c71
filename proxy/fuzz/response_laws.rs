// What must hold for every input, however it was made. Included by the fuzz target and by the test
// that replays its seeds; both have the module of a container's answers around it.

use bytes::Bytes;

use crate::upstream::response::{Body, Fault, HEAD_MAX, Piece, parse};

/// A container's octets are heads and bodies whose ends do not depend on where the network cuts, and a
/// head that passes says its length once.
pub(crate) fn response(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let brief = |end: usize| match parse(&data.slice(..end), false) {
        Ok(None) => None,
        Ok(Some((len, head))) => Some(Ok((len, head.status, head.headers, head.keeps))),
        Err(fault) => Some(Err(fault)),
    };
    let first = (0..=data.len()).find_map(brief);
    match (&first, brief(data.len())) {
        // What is wrong further on may show first.
        (Some(Err(_)), whole) => assert!(matches!(whole, Some(Err(_)))),
        (first, whole) => assert_eq!(*first, whole),
    }
    let Ok(Some((len, head))) = parse(&data, false) else { return };
    assert!(len <= data.len() && len <= HEAD_MAX);
    assert!(head.headers.get_all("content-length").iter().count() <= 1);
    assert!(head.headers.get_all("transfer-encoding").iter().count() <= 1);
    let rest = data.slice(len..);
    let whole = read(head.body, &rest, rest.len().max(1));
    let Ok(Some((_, again))) = parse(&data, false) else { return };
    assert_eq!(read(again.body, &rest, 1), whole);
}

/// The data of a body, whether it has trailers, and whether it is whole.
type Read = Result<(Vec<u8>, bool, Result<(), Fault>), Fault>;

fn read(mut body: Body, octets: &[u8], size: usize) -> Read {
    let (mut data, mut has_trailers) = (Vec::new(), false);
    for part in octets.chunks(size) {
        let mut part = Bytes::copy_from_slice(part);
        while !body.is_ended() && !part.is_empty() {
            match body.next(&mut part)? {
                Some(Piece::Data(piece)) => data.extend_from_slice(&piece),
                Some(Piece::Trailers(_)) => has_trailers = true,
                None => {}
            }
        }
    }
    let whole = body.close();
    Ok((data, has_trailers, whole))
}
