//! Pictures of images, which an operator puts beside the tarballs.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// The longest that is shown, in octets.
const OCTETS_MAX: u64 = 256 << 10;

/// What every PNG begins with.
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Reads a PNG; what is none, or too long, is told to the operator and not shown.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut octets = Vec::new();
    file.take(OCTETS_MAX + 1).read_to_end(&mut octets)?;
    if octets.starts_with(SIGNATURE) && octets.len() as u64 <= OCTETS_MAX {
        return Ok(Some(octets));
    }
    let path = path.display();
    tracing::warn!(%path, "this icon is not shown: it must be a PNG of at most {OCTETS_MAX} octets");
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_png_that_is_not_too_long_is_an_icon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("13.png");
        assert_eq!(read(&path).unwrap(), None);
        let whole = [SIGNATURE, b"rest"].concat();
        for (content, is_shown) in [
            (whole, true),
            (b"<svg/>".to_vec(), false),
            ([SIGNATURE, &vec![0; 256 << 10]].concat(), false),
        ] {
            std::fs::write(&path, &content).unwrap();
            assert_eq!(read(&path).unwrap(), is_shown.then_some(content));
        }
    }
}
