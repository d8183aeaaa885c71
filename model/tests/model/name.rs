//! Hostnames, server names and domains.

use gantry_model::{Domain, Hostname, InvalidName, ServerName};
use proptest::prelude::*;

#[test]
fn a_hostname_is_what_dns_and_browsers_allow() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    for (text, want) in [
        ("example.com", Ok("example.com")),
        ("EXAMPLE.Com", Ok("example.com")), // DNS knows no case
        ("example.com.", Ok("example.com")),
        ("localhost", Ok("localhost")),
        ("a", Ok("a")),
        ("a_b.example.com", Ok("a_b.example.com")), // browsers send underscores
        ("_dmarc.example.com", Ok("_dmarc.example.com")),
        ("1a.2b", Ok("1a.2b")),
        ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
        (&longest, Ok(longest.as_str())),
        ("", Err(InvalidName::Empty)),
        (".", Err(InvalidName::Empty)),
        ("..", Err(InvalidName::Empty)),
        (".a", Err(InvalidName::Empty)),
        ("a..b", Err(InvalidName::Empty)),
        ("a..", Err(InvalidName::Empty)),
        (&format!("{longest}a"), Err(InvalidName::TooLong)),
        (&format!("{label}a.b"), Err(InvalidName::TooLong)),
        ("-a.b", Err(InvalidName::Octet)),
        ("a-.b", Err(InvalidName::Octet)),
        ("a.b-", Err(InvalidName::Octet)),
        ("a.-b", Err(InvalidName::Octet)),
        ("a b", Err(InvalidName::Octet)),
        ("a/b", Err(InvalidName::Octet)),
        ("a@b", Err(InvalidName::Octet)),
        ("a%41", Err(InvalidName::Octet)),
        ("a*b", Err(InvalidName::Octet)),
        ("a\0", Err(InvalidName::Octet)),
        ("a\r\nb", Err(InvalidName::Octet)),
        ("bücher.example", Err(InvalidName::Octet)),
        ("127.0.0.1", Err(InvalidName::Address)),
        ("127.0.0.1.", Err(InvalidName::Address)),
        ("1", Err(InvalidName::Address)),
        ("a.1", Err(InvalidName::Address)), // no top-level domain is a number
        ("::1", Err(InvalidName::Address)),
        ("[::1]", Err(InvalidName::Address)),
    ] {
        let got = Hostname::parse(text);
        assert_eq!(got.as_ref().map(Hostname::as_str), want.as_ref().map(|it| *it), "{text:?}");
    }
}

#[test]
fn an_authority_is_a_hostname_and_perhaps_a_port() {
    for (text, want) in [
        ("a.b", Ok(("a.b", None))),
        ("a.b:8443", Ok(("a.b", Some(8443)))),
        ("A.b.:1", Ok(("a.b", Some(1)))),
        ("a.b:65535", Ok(("a.b", Some(65535)))),
        ("a.b:65536", Err(InvalidName::Port)),
        ("a.b:0", Err(InvalidName::Port)),
        ("a.b:", Err(InvalidName::Port)),
        ("a.b:+1", Err(InvalidName::Port)),
        ("a.b: 1", Err(InvalidName::Port)),
        ("a.b:1x", Err(InvalidName::Port)),
        ("a.b:1:2", Err(InvalidName::Address)),
        (":80", Err(InvalidName::Empty)),
        ("", Err(InvalidName::Empty)),
        ("user@a.b", Err(InvalidName::Octet)),
        ("user:secret@a.b", Err(InvalidName::Port)),
        ("127.0.0.1:80", Err(InvalidName::Address)),
        ("[::1]:80", Err(InvalidName::Address)),
        ("[::1]", Err(InvalidName::Address)),
        ("a.b,c.d", Err(InvalidName::Octet)), // two Hosts that somebody joined
    ] {
        let got = Hostname::parse_authority(text);
        let got = got.as_ref().map(|(name, port)| (name.as_str(), *port));
        assert_eq!(got, want.as_ref().map(|it| *it), "{text:?}");
    }
}

#[test]
fn a_server_name_is_one_lower_case_label() {
    let longest = "a".repeat(63);
    for (text, valid) in [
        ("local", true),
        ("node-1", true),
        ("9", true),
        (longest.as_str(), true),
        ("", false),
        ("Local", false),
        ("-a", false),
        ("a-", false),
        ("a.b", false),
        ("a_b", false),
        ("ü", false),
        (&format!("{longest}a"), false),
    ] {
        assert_eq!(text.parse::<ServerName>().is_ok(), valid, "{text:?}");
    }
    assert_eq!("local".parse::<ServerName>().unwrap().to_string(), "local");
}

#[test]
fn a_domain_gives_the_names_below_it() {
    let domain: Domain = "Gantry.LOCALHOST.".parse().unwrap();
    assert_eq!(domain.as_str(), "gantry.localhost");
    assert_eq!(domain.to_string(), "gantry.localhost");
    assert_eq!(domain.zone(), "containers.gantry.localhost");
    assert_eq!(domain.api(), "api.gantry.localhost");
    for text in ["", "127.0.0.1", "a b", "-"] {
        assert!(text.parse::<Domain>().is_err(), "{text:?}");
    }
    // Room for the two longest labels in front must stay.
    let part = "a".repeat(57);
    let longest = format!("{part}.{}", "a".repeat(56));
    assert_eq!(longest.len() + 64 + 64 + 11, 253);
    assert!(longest.parse::<Domain>().is_ok());
    assert_eq!(format!("{longest}a").parse::<Domain>(), Err(InvalidName::TooLong));
}

proptest! {
    /// Whatever a client sends has an answer, and what is taken is canonical and stays as it is.
    #[test]
    fn a_parsed_hostname_is_canonical(text in prop_oneof![
        "\\PC{0,40}",
        "[a-zA-Z0-9_.-]{0,300}",
        "([a-zA-Z0-9-]{1,10}\\.){0,5}[a-zA-Z]{1,8}\\.?",
    ]) {
        if let Ok(name) = Hostname::parse(&text) {
            let canonical = name.to_string();
            prop_assert!(canonical.len() <= 253 && !canonical.is_empty());
            prop_assert!(canonical.split('.').all(|label| (1..=63).contains(&label.len())));
            prop_assert_eq!(&canonical, &text.strip_suffix('.').unwrap_or(&text).to_ascii_lowercase());
            prop_assert_eq!(&Hostname::parse(&canonical).unwrap().to_string(), &canonical);
            prop_assert_eq!(name.clone().into_owned(), name);
        }
    }

    /// The way for what is canonical already and the way for all else lead to one answer.
    #[test]
    fn case_never_decides_whether_a_name_is_valid(
        text in prop_oneof!["[a-z0-9.-]{0,20}", "[a-z0-9-]{50,70}(\\.[a-z0-9]{1,70}){0,3}"],
    ) {
        let upper = text.to_ascii_uppercase();
        prop_assert_eq!(Hostname::parse(&text), Hostname::parse(&upper));
        if !text.is_empty() && text.len() <= 251 {
            let longer = format!("_.{text}"); // an underscore takes the slow way
            prop_assert_eq!(Hostname::parse(&longer).is_ok(), Hostname::parse(&text).is_ok());
        }
    }

    /// The port never changes which name is meant.
    #[test]
    fn an_authority_without_its_port_is_the_hostname(text in "[a-zA-Z0-9.-]{0,40}", port: u16) {
        let with_port = format!("{text}:{port}");
        let got = Hostname::parse_authority(&with_port);
        match (Hostname::parse(&text), port) {
            (Ok(name), 1..) => prop_assert_eq!(got, Ok((name, Some(port)))),
            (Ok(_), 0) => prop_assert_eq!(got, Err(InvalidName::Port)),
            (Err(error), _) => prop_assert_eq!(got, Err(error)),
        }
    }
}
