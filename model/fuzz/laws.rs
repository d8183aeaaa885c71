// What must hold for every input, however it was made. Included by the fuzz targets and by the
// test that replays their seeds.

use gantry_model::{
    Domain, Hostname, RouteKey,
    access::{Caller, Decision, Document, GroupSet, Policy, Program},
    hook::Hook,
    ssh::SshPublicKey,
};

/// An authority is refused, or is the name and the port that everybody reads in it; it says the same once
/// more when it is printed, and nothing in it leads a reader elsewhere.
pub(crate) fn authority(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok((host, port)) = Hostname::parse_authority(text) else { return };
    let (name, digits) = match text.split_once(':') {
        Some((name, digits)) => (name, Some(digits)),
        None => (text, None),
    };
    assert!(text.bytes().all(|octet| octet.is_ascii_graphic() && !b"@/\\?#,;%[]".contains(&octet)));
    assert_eq!(digits.map(|digits| digits.parse().expect("digits, and not too many")), port);
    assert_eq!(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase(), host.as_str());
    let printed = match port {
        Some(port) => format!("{}:{port}", host.as_str()),
        None => host.as_str().to_owned(),
    };
    assert_eq!(Hostname::parse_authority(&printed).as_ref(), Ok(&(host, port)));
}

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

/// A permission document is refused, or is read back from what it prints as; and whoever belongs to
/// no group passes nothing that the default does not open. Its hooks are read back, too.
pub(crate) fn document(data: &[u8]) {
    let Ok(value) = serde_json::from_slice(data) else { return };
    let value: serde_json::Value = value;
    if let Some(Ok(hooks)) = value.get("hooks").map(|hooks| Hook::all_from_json("hooks", hooks)) {
        for hook in hooks {
            assert_eq!(Hook::from_json("", hook.service, &hook.to_json()), Ok(hook.clone()));
            hook.matches("GET", "/a/../b", |_, _| true, |_| true);
        }
    }
    let Ok(document) = Document::parse(&value, None, &mut || "salt".to_owned()) else { return };
    let printed = document.to_json();
    assert!(printed.to_string().len() <= Document::LEN_MAX);
    assert_eq!(Document::from_stored(&printed).as_ref(), Ok(&document));
    let policy = Policy::merge(Some(&document), None).expect("there is a document");
    let everybody = GroupSet::first(policy.groups().len());
    for number in [None, Some(0), Some(1), Some(3000)] {
        let decide = |groups| policy.decide(Program::HTTP, number, groups, Caller::Known);
        let wants = policy.wants(Program::HTTP, number);
        assert_eq!(decide(everybody) == Decision::Allow, decide(wants) == Decision::Allow);
    }
}
