// What must hold for every input, however it was made. Included by the fuzz target and by the test
// that replays its seeds; both have the module of the PROXY protocol at `crate::proxy_protocol`.

use crate::proxy_protocol::{HEADER_MAX, parse, write};

/// Octets are no header, not yet a whole one, or one that ends where it says: what follows changes
/// nothing, nothing shorter is one, and what it says can be written and read again.
pub(crate) fn proxy_protocol(data: &[u8]) {
    let Ok(Some(header)) = parse(data) else { return };
    assert!(header.len <= data.len() && header.len <= HEADER_MAX);
    let (whole, _) = data.split_at(header.len);
    assert_eq!(parse(whole), Ok(Some(header)));
    for end in 0..whole.len() {
        let (part, _) = whole.split_at(end);
        assert_eq!(parse(part), Ok(None));
    }
    if let Some(ends) = header.ends {
        let mut written = Vec::new();
        write(ends, &mut written);
        let again = parse(&written).ok().flatten().and_then(|header| header.ends);
        let canonical = again.map(|again| again.source.ip().to_canonical());
        assert_eq!(canonical, Some(ends.source.ip().to_canonical()));
    }
}
