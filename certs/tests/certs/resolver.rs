//! Which certificate is shown, and which requests it may carry.

use std::sync::Arc;

use crate::support::{domain, now, open};
use gantry_certs::{Leaf, Resolver, Source, standard_names};

#[test]
fn the_exact_name_comes_first_then_a_wildcard_for_one_label() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path());
    let leaf = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Leaf { key: Arc::new(ca.issue(&names, now()).unwrap()), names }
    };
    let wild = leaf(&["*.a.gantry.localhost", "b.gantry.localhost"]);
    let exact = leaf(&["x.a.gantry.localhost"]);
    let resolver = Resolver::new();
    assert!(resolver.certificate("b.gantry.localhost").is_none(), "nothing is published yet");
    assert!(!resolver.covers(None, "b.gantry.localhost"));
    resolver.publish(Source::Development, vec![wild.clone(), exact.clone()]);

    for (hostname, want) in [
        ("x.a.gantry.localhost", Some(&exact)),
        ("y.a.gantry.localhost", Some(&wild)),
        ("b.gantry.localhost", Some(&wild)),
        ("a.gantry.localhost", None), // a wildcard does not stand for nothing
        ("z.y.a.gantry.localhost", None), // nor for two labels
        ("*.a.gantry.localhost", Some(&wild)),
        ("localhost", None),
        ("", None),
    ] {
        let got = resolver.certificate(hostname);
        match want {
            Some(want) => assert!(Arc::ptr_eq(&got.unwrap(), &want.key), "{hostname}"),
            None => assert!(got.is_none(), "{hostname}"),
        }
    }
    assert!(resolver.certificate(&format!("a.{}", "b".repeat(300))).is_none());

    for (sni, hostname, covered) in [
        (Some("y.a.gantry.localhost"), "b.gantry.localhost", true),
        (Some("y.a.gantry.localhost"), "x.a.gantry.localhost", false), // it has its own
        (Some("x.a.gantry.localhost"), "x.a.gantry.localhost", true),
        (Some("b.gantry.localhost"), "example.com", false),
        (Some("example.com"), "example.com", false),
        (None, "b.gantry.localhost", true), // without SNI the first one is shown
        (None, "x.a.gantry.localhost", false),
    ] {
        assert_eq!(resolver.covers(sni, hostname), covered, "{sni:?} {hostname}");
    }
}

#[test]
fn one_certificate_carries_the_names_of_all_servers() {
    let servers = ["local".parse().unwrap(), "node-2".parse().unwrap()];
    assert_eq!(
        standard_names(&domain(), &servers),
        [
            "gantry.localhost",
            "api.gantry.localhost",
            "*.api.gantry.localhost",
            "*.containers.gantry.localhost",
            "*.local.containers.gantry.localhost",
            "*.node-2.containers.gantry.localhost",
        ]
    );
}
