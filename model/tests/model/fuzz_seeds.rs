//! The seeds of the fuzz targets, and whatever fuzzing once found, replayed.

use std::{fs, path::Path};

#[path = "../../fuzz/laws.rs"]
mod laws;

fn replay(target: &str, law: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        law(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 10, "{count} seeds in {}", corpus.display());
}

#[test]
fn authority_seeds_hold_the_law() {
    replay("authority", laws::authority);
}

#[test]
fn hostname_seeds_hold_the_law() {
    replay("hostname", laws::hostname);
}

#[test]
fn ssh_key_seeds_hold_the_law() {
    replay("ssh_key", laws::ssh_key);
}

#[test]
fn document_seeds_hold_the_law() {
    replay("document", laws::document);
}
