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

/// Real keys; a public key as the secret of an HMAC, keys that a token brings, the algorithm of another key,
/// forged signatures.
#[test]
fn signed_tokens_hold_or_not_as_they_are_named() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/jwt");
    let (mut good, mut bad) = (0, 0);
    for entry in fs::read_dir(&corpus).unwrap() {
        let entry = entry.unwrap();
        let holds = laws::holds(&fs::read(entry.path()).unwrap());
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("holds-") {
            assert!(holds, "{name}");
            good += 1;
        } else if name.starts_with("fails-") {
            assert!(!holds, "{name}");
            bad += 1;
        }
    }
    assert!(good >= 4 && bad >= 40, "{good} that hold, {bad} that do not");
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
