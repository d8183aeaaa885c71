//! SSH public keys, held against what OpenSSH itself wrote.
//!
//! `keys` beside this file holds keys made by `ssh-keygen` 9.2 and the fingerprints that `ssh-keygen -l`
//! prints for them; the two `sk-` keys were put together by hand and read back by it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gantry_model::ssh::{KeyFingerprint, SshPublicKey};
use proptest::prelude::*;

macro_rules! key {
    ($name:literal) => {
        (
            include_str!(concat!("keys/", $name, ".pub")),
            include_str!(concat!("keys/", $name, ".fingerprint")).trim(),
        )
    };
}

const ED25519: &str = include_str!("keys/ed25519.pub");

fn accepted() -> [(&'static str, &'static str); 9] {
    [
        key!("ed25519"),
        key!("ecdsa256"),
        key!("ecdsa384"),
        key!("ecdsa521"),
        key!("rsa2048"),
        key!("rsa3072"),
        key!("rsa4096"),
        key!("sk-ed25519"),
        key!("sk-ecdsa256"),
    ]
}

fn refusal(line: &str) -> String {
    let error = SshPublicKey::parse("ssh_public_key", line).expect_err(line);
    assert_eq!(error.field, "ssh_public_key");
    error.rule
}

/// A `string` of RFC 4251.
fn string(octets: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(octets.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(octets);
    out
}

fn line(kind: &str, parts: &[&[u8]]) -> String {
    let mut blob = string(kind.as_bytes());
    for part in parts {
        blob.extend(string(part));
    }
    format!("{kind} {}", STANDARD.encode(blob))
}

#[test]
fn keys_of_openssh_are_read_and_have_its_fingerprints() {
    for (text, fingerprint) in accepted() {
        let key = SshPublicKey::parse("key", text).expect(text);
        assert_eq!(key.fingerprint().to_string(), fingerprint, "{text}");
        assert_eq!(KeyFingerprint::of_blob(key.blob()), key.fingerprint());
        assert_eq!(SshPublicKey::from_blob(key.blob()).as_ref(), Some(&key));
        let normal = key.to_string();
        let words: Vec<&str> = text.split_whitespace().take(2).collect();
        assert_eq!(normal, words.join(" "), "type and data stay as they were");
        assert_eq!(key.kind(), words[0]);
        assert_eq!(SshPublicKey::parse("key", &normal).expect(&normal), key);
    }
}

#[test]
fn spacing_and_comment_make_no_other_key() {
    let plain = SshPublicKey::parse("key", ED25519).unwrap();
    let [kind, data] = [0, 1].map(|at| ED25519.split_whitespace().nth(at).unwrap());
    for spelling in [
        format!("{kind} {data}"),
        format!("  {kind}\t {data}\r\n"),
        format!("{kind} {data} two words and \"quotes\", ü"),
    ] {
        assert_eq!(SshPublicKey::parse("key", &spelling).unwrap(), plain, "{spelling:?}");
    }
}

#[test]
fn every_refusal_says_what_would_be_right() {
    let [kind, data] = [0, 1].map(|at| ED25519.split_whitespace().nth(at).unwrap());
    let rsa = include_str!("keys/rsa2048.pub").split_whitespace().nth(1).unwrap();
    let tail = data.get(data.len() - 4..).unwrap();
    let long = format!("{kind} {data} {}", "c".repeat(17_000));
    for (text, says) in [
        ("", "empty"),
        (" \n\t", "empty"),
        ("hello", "OpenSSH public key line"),
        ("hello world", "OpenSSH public key line"),
        (long.as_str(), "at most 16384 octets"),
        (&format!("{ED25519}{ED25519}"), "one line"),
        (&format!("{kind} {data} a\0b"), "one line"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "not a private key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519", "not a private key"),
        (include_str!("keys/ecdsa256-cert.pub"), "certificates"),
        (include_str!("keys/dsa.pub"), "DSA"),
        (include_str!("keys/rsa1024.pub"), "at least 2048 bits"),
        (&format!("no-pty {ED25519}"), "options"),
        (&format!("command=\"echo hi\",no-pty {ED25519}"), "options"),
        (&format!("ssh-xmss@openssh.com {data}"), "not accepted"),
        (kind, "missing or not base64"),
        (&format!("{kind} ****"), "missing or not base64"),
        (&format!("{kind} {}", data.strip_suffix(tail).unwrap()), "damaged"),
        (&format!("{kind} {rsa}"), "is not the one in front"),
        (&format!("ssh-rsa {data}"), "is not the one in front"),
        (&format!("SSH-ED25519 {data}"), "OpenSSH public key line"),
    ] {
        let rule = refusal(text);
        assert!(rule.contains(says), "{text:.60}: {rule}");
    }
}

#[test]
fn the_data_must_be_what_its_type_demands_and_nothing_more() {
    let sk = "sk-ssh-ed25519@openssh.com";
    let p256 = "ecdsa-sha2-nistp256";
    let mut point = [7; 65];
    point[0] = 4;
    let mut modulus = [0x55; 257];
    (modulus[0], modulus[1]) = (0, 0x80);
    let e: &[u8] = &[1, 0, 1];
    let negative = &modulus[1..];
    let even = { modulus.map(|octet| octet & 0xfe) };
    let compressed = {
        let mut it = point;
        it[0] = 2;
        it
    };
    let huge = [0x7f; 2049];
    for (why, text) in [
        ("short point", line("ssh-ed25519", &[&[1; 31]])),
        ("long point", line("ssh-ed25519", &[&[1; 33]])),
        ("no point", line("ssh-ed25519", &[])),
        ("something behind it", line("ssh-ed25519", &[&[1; 32], b""])),
        ("another curve", line(p256, &[b"nistp384", &point])),
        ("a point too short", line(p256, &[b"nistp256", &point[..64]])),
        ("a compressed point", line(p256, &[b"nistp256", &compressed])),
        ("no application", line(sk, &[&[1; 32]])),
        ("an empty application", line(sk, &[&[1; 32], b""])),
        ("a long application", line(sk, &[&[1; 32], &[b'a'; 256]])),
        ("no modulus", line("ssh-rsa", &[e])),
        ("a negative modulus", line("ssh-rsa", &[e, negative])),
        ("an even modulus", line("ssh-rsa", &[e, &even])),
        ("an even exponent", line("ssh-rsa", &[&[2], &modulus])),
        ("the exponent 1", line("ssh-rsa", &[&[1], &modulus])),
        ("the exponent 0", line("ssh-rsa", &[&[], &modulus])),
        ("a needless zero", line("ssh-rsa", &[&[0, 1, 0, 1], &modulus])),
        ("too many bits", line("ssh-rsa", &[e, &huge])),
        ("a length past the end", format!("ssh-ed25519 {}", STANDARD.encode([255, 255, 255, 255]))),
    ] {
        let rule = refusal(&text);
        assert!(rule.contains("damaged") || rule.contains("at most 16384 bits"), "{why}: {rule}");
    }
    let good = line("ssh-rsa", &[e, &modulus]);
    assert!(SshPublicKey::parse("key", &good).is_ok(), "2048 bits exactly are enough");
    modulus[1] = 0x40;
    let short = line("ssh-rsa", &[e, &modulus[1..]]);
    assert!(refusal(&short).contains("at least 2048 bits"), "2047 bits are not");
}

proptest! {
    /// Whatever a client sends, there is an answer; and what is taken prints as it is read.
    #[test]
    fn parse_never_panics_and_print_is_its_inverse(
        text in "\\PC{0,200}", at in 0_usize..9, cut in 0_usize..800, flip: u8,
    ) {
        if let Ok(key) = SshPublicKey::parse("key", &text) {
            prop_assert!(text.contains(key.kind()));
        }
        let mut octets = accepted()[at].0.as_bytes().to_vec();
        let cut = cut % octets.len();
        octets[cut] ^= flip & 0x7f;
        if let Ok(damaged) = String::from_utf8(octets)
            && let Ok(key) = SshPublicKey::parse("key", &damaged)
        {
            prop_assert_eq!(SshPublicKey::parse("key", &key.to_string()).unwrap(), key);
        }
    }
}
