//! The development CA on disk.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use crate::support::{domain, now, open};
use gantry_certs::{CaError, DevCa, IssueError};
use time::Duration;

fn refusal(dir: &Path) -> CaError {
    DevCa::open_or_create(dir, &domain(), now()).expect_err("refused")
}

#[test]
fn a_ca_is_kept_across_runs_and_its_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("deep/ca");
    let first = open(&dir).ca_pem().to_owned();
    let again = open(&dir);
    assert_eq!(again.ca_pem(), first);
    assert_eq!(fs::read_to_string(again.ca_path()).unwrap(), first);
    let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().mode() & 0o777;
    assert_eq!(mode("ca.key"), 0o600);
    assert_eq!(mode("ca.pem"), 0o644);
    let mut files: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, [".lock", "ca.key", "ca.pem"], "nothing temporary stays");
}

#[test]
fn many_that_start_at_once_get_one_ca() {
    let dir = tempfile::tempdir().unwrap();
    let roots: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..8).map(|_| scope.spawn(|| open(dir.path()).ca_pem().to_owned())).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]));
}

#[test]
fn a_crash_between_the_two_files_leaves_a_usable_directory() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    fs::remove_file(dir.path().join("ca.pem")).unwrap();
    let key = fs::read(dir.path().join("ca.key")).unwrap();
    drop(open(dir.path()));
    assert_eq!(fs::read(dir.path().join("ca.key")).unwrap(), key, "the key is taken on");
}

#[test]
fn a_damaged_directory_is_refused_with_a_word_on_what_helps() {
    let other = tempfile::tempdir().unwrap();
    drop(open(other.path()));
    let copy = |name: &str| fs::read(other.path().join(name)).unwrap();
    for (name, contents, says) in [
        ("ca.pem", Some(b"nonsense".to_vec()), "no certificate in PEM form"),
        ("ca.pem", Some(Vec::new()), "no certificate in PEM form"),
        ("ca.pem", Some(vec![0xff; 100]), "damaged"),
        ("ca.pem", Some(vec![b'a'; 70_000]), "damaged"),
        ("ca.pem", Some(copy("ca.key")), "no certificate in PEM form"),
        ("ca.pem", Some(copy("ca.pem")), "do not belong together"),
        ("ca.key", Some(b"nonsense".to_vec()), "no P-256 key"),
        ("ca.key", Some(copy("ca.key")), "do not belong together"),
        ("ca.key", None, "missing"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        match contents {
            // The file's permissions stay as they are.
            Some(contents) => fs::write(dir.path().join(name), contents).unwrap(),
            None => fs::remove_file(dir.path().join(name)).unwrap(),
        }
        let error = refusal(dir.path());
        assert!(matches!(error, CaError::Corrupt { .. }), "{name}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(says) && text.contains("delete the directory"), "{name}: {text}");
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
    }
}

#[test]
fn one_flipped_bit_in_the_root_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let pem = open(dir.path()).ca_pem().to_owned();
    let mut lines: Vec<String> = pem.lines().map(str::to_owned).collect();
    let last = lines.len() - 2;
    let flipped = if lines[last].starts_with('A') { "B" } else { "A" };
    lines[last].replace_range(..1, flipped);
    fs::write(dir.path().join("ca.pem"), lines.join("\n")).unwrap();
    assert!(matches!(refusal(dir.path()), CaError::Corrupt { .. }));
}

#[test]
fn a_directory_of_another_domain_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let other = "example.test".parse().unwrap();
    let error = DevCa::open_or_create(dir.path(), &other, now()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, CaError::ForeignDomain { .. }), "{text}");
    assert!(text.contains("for gantry.localhost, not for example.test"), "{text}");
}

#[test]
fn an_exposed_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let key = dir.path().join("ca.key");
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let text = refusal(dir.path()).to_string();
        assert!(text.contains("chmod 600"), "{mode:o}: {text}");
    }
}

#[test]
fn a_root_that_is_not_valid_now_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    for (away, valid) in [
        (Duration::days(-2), false),
        (Duration::hours(-23), true),
        (Duration::days(3600), true),
        (Duration::days(3640), false), // a leaf would outlive it
    ] {
        let opened = DevCa::open_or_create(dir.path(), &domain(), now() + away);
        match opened {
            Ok(_) => assert!(valid, "{away}"),
            Err(CaError::NotValidNow { .. }) => assert!(!valid, "{away}"),
            Err(error) => panic!("{away}: {error}"),
        }
    }
}

#[test]
fn an_unwritable_place_is_an_error_that_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = refusal(&file.path().join("ca")).to_string();
    assert!(text.contains(&file.path().display().to_string()), "{text}");
}

#[test]
fn only_names_under_the_domain_are_issued() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path());
    let issue = |name: &str| ca.issue(&[name.to_owned()], now());
    for name in ["gantry.localhost", "api.gantry.localhost", "*.a.b.gantry.localhost"] {
        assert!(issue(name).is_ok(), "{name}");
    }
    for name in
        ["localhost", "*.localhost", "evilgantry.localhost", "example.com", "gantry.localhost.evil"]
    {
        assert!(matches!(issue(name), Err(IssueError::Outside { .. })), "{name}");
    }
    for name in ["", "*.", "*", "a.*.gantry.localhost", "127.0.0.1", "::1", "a b.gantry.localhost"]
    {
        assert!(matches!(issue(name), Err(IssueError::Name { .. })), "{name}");
    }
    assert!(matches!(ca.issue(&[], now()), Err(IssueError::Count { count: 0 })));
    let many = vec!["gantry.localhost".to_owned(); 101];
    assert!(matches!(ca.issue(&many, now()), Err(IssueError::Count { count: 101 })));
}
