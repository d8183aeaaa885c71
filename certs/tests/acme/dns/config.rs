//! What a table may say, and what an operator is told about one that is wrong.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::Result;
use gantry_certs::dns::{DnsConfig, KeySecret};
use serde_json::{Value, json};

use super::{propagation, with};

/// The texts of all that is wrong with a table.
fn faults(table: Value) -> Vec<String> {
    let propagation = propagation(&["127.0.0.1:53".to_owned()], 53, 1);
    let config: DnsConfig = match serde_json::from_value(table) {
        Ok(config) => config,
        Err(error) => return vec![error.to_string()],
    };
    match config.provider(&propagation) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_table_of_rfc2136_says_what_is_wrong() {
    let good = json!({
        "provider": "rfc2136", "servers": ["ns1.example.org", "192.0.2.1:5353", "[2001:db8::1]:53", "2001:db8::1"],
        "key_name": "k", "key_secret": "c2VjcmV0",
    });
    assert_eq!(faults(good.clone()), Vec::<String>::new());
    for (key, value, want) in [
        ("servers", json!([]), "servers: must have at least one entry, \"host:port\""),
        ("servers", json!(["a:0"]), "servers: must be host or host:port, found \"a:0\""),
        ("servers", json!(["a b"]), "servers: must be host or host:port, found \"a b\""),
        ("zone", json!("."), "zone: must be the name of a zone, such as \"example.org\""),
        ("zone", json!("a..b"), "zone: must be the name of a zone: \"a..b\" is no name of the DNS"),
        ("key_name", json!(""), "key_name: must be the key's name, as the server knows it"),
        ("key_secret", json!("??"), "must be the key's secret in base64"),
        ("key_secret", json!(""), "must be the key's secret in base64"),
        ("key_secret", Value::Null, "key_secret: is required, unless key_secret_file names a file"),
        ("key_secret_file", json!("/k"), "key_secret_file: goes without key_secret: name one"),
        ("key_algorithm", json!("hmac-md5"), "expected one of `hmac-sha256`, `hmac-sha384`"),
        ("timeout_s", json!(61), "timeout_s: must be 1 to 60 seconds, found 61"),
        ("server", json!("x"), "unknown field `server`"),
        ("provider", json!("route53"), "expected one of `rfc2136`, `acme-dns`, `exec`"),
    ] {
        let found = faults(with(good.clone(), key, value.clone()));
        assert!(found.len() == 1 && found[0].contains(want), "{key} = {value}: {found:?}");
    }
    let both = with(with(good, "servers", json!([])), "timeout_s", 0);
    assert_eq!(faults(both).len(), 2);
}

#[test]
fn a_secret_may_come_from_a_file_of_its_owner() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("key");
    let table = json!({
        "provider": "rfc2136", "servers": ["ns1"], "key_name": "k", "key_secret_file": path,
    });
    let told = |want: &str| {
        let found = faults(table.clone());
        assert!(found.len() == 1 && found[0].contains(want), "{found:?}\nwanted: {want}");
    };
    told("there is no such file");
    fs::write(&path, "c2VjcmV0\n")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
    told("must be readable by its owner only: chmod 600");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    assert_eq!(faults(table.clone()), Vec::<String>::new());
    fs::write(&path, "top secret")?;
    told("must be the key's secret in base64");
    assert!(!faults(table.clone())[0].contains("top"));
    Ok(())
}

#[test]
fn a_secret_does_not_show() {
    let secret: KeySecret = "c2VjcmV0".parse().unwrap();
    assert_eq!(format!("{secret:?}"), "KeySecret(…)");
    let wrong = "hunter2!".parse::<KeySecret>().unwrap_err();
    assert!(!format!("{wrong} {wrong:?}").contains("hunter"));
}
