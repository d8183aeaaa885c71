//! The seeds of the fuzz targets, and whatever fuzzing once found, replayed.

use std::{fs, path::Path};

use super::{basic, jwt, query};

#[path = "../../fuzz/credential_laws.rs"]
mod laws;

fn replay(target: &str, law: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        law(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 8, "{count} seeds in {}", corpus.display());
}

#[test]
fn seeds_of_credentials_hold_their_laws() {
    replay("cookies", laws::cookies);
    replay("query", laws::query);
    replay("basic", laws::basic);
    replay("jwt", laws::jwt);
}

proptest::proptest! {
    #[test]
    fn octets_of_any_kind_hold_the_laws_of_credentials(text in "[k%6bB=&;+ .,\"a-c\u{e4}\n]{0,40}") {
        laws::cookies(text.as_bytes());
        laws::query(text.as_bytes());
        laws::basic(format!("Basic {text}").as_bytes());
        laws::jwt(text.as_bytes());
    }
}
