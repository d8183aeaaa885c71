// What must hold for every input, however it was made. Included by the fuzz targets and by the
// test that replays their seeds.

use gantry_model::{Domain, Hostname, RouteKey, ssh::SshPublicKey};

/// An authority is refused, or names something that is read back from what it prints as.
pub(crate) fn hostname(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let domain: Domain = "gantry.localhost".parse().expect("a domain");
    let Ok((host, _port)) = Hostname::parse_authority(text) else { return };
    assert!(host.as_str().len() <= 253);
    if let Ok(key) = RouteKey::parse(&host, &domain) {
        let printed = key.to_hostname(&domain);
        let again = Hostname::parse(&printed).expect("a printed key is a hostname");
        assert_eq!(RouteKey::parse(&again, &domain), Ok(key));
    }
}

/// A line is refused, or is a key that is read back from its line and from its blob.
pub(crate) fn ssh_key(data: &[u8]) {
    if let Some(key) = SshPublicKey::from_blob(data) {
        assert_eq!(key.blob(), data);
        assert_eq!(SshPublicKey::parse("key", &key.to_string()), Ok(key));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = SshPublicKey::parse("key", text) {
        assert_eq!(SshPublicKey::from_blob(key.blob()).as_ref(), Some(&key));
        assert_eq!(SshPublicKey::parse("key", &key.to_string()), Ok(key));
    }
}
