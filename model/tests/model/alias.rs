//! Aliases: their names, what they lead to, and where they land.

use gantry_model::{
    Scheme, Service,
    alias::{AliasName, AliasTarget, InvalidAlias, InvalidTarget, Landed, Landing},
};
use proptest::{prelude::*, sample::select};

#[test]
fn an_alias_has_a_form_and_some_names_are_reserved() {
    let reserved = |name: &str| Some(InvalidAlias::Reserved(name.to_owned()));
    let prefix = |name: &str| Some(InvalidAlias::ReservedPrefix(name.to_owned()));
    let long = "a".repeat(62);
    for (name, want) in [
        ("my-app", None),
        ("abc", None),
        (&long[..61], None),
        ("1st", None),
        ("proxymyapp", None),
        ("containers-my-app", None),
        ("t-shirts", None), // a synonym of no hostname
        ("ab", Some(InvalidAlias::Form)),
        (&long, Some(InvalidAlias::Form)),
        ("-ab", Some(InvalidAlias::Form)),
        ("ab-", Some(InvalidAlias::Form)),
        ("My-App", Some(InvalidAlias::Form)),
        ("my.app", Some(InvalidAlias::Form)),
        ("my_app", Some(InvalidAlias::Form)),
        ("", Some(InvalidAlias::Form)),
        ("containers", reserved("containers")),
        ("ssh", reserved("ssh")),
        ("terminal", reserved("terminal")),
        ("egress", reserved("egress")),
        ("proxy", reserved("proxy")),
        ("workspaces", reserved("workspaces")),
        ("notifications", reserved("notifications")),
        ("terminal-1", prefix("terminal-")),
        ("http-3000", prefix("http-")),
        ("n-1", prefix("n-")),
        ("egress-of-mine", prefix("egress-")),
        ("5f2b8c6d9e3a4f1b7c8d9e0f-6a7b8c9d0e1f2a3b4c5d6e7f", Some(InvalidAlias::Canonical)),
        ("5f2b8c6d9e3a4f1b7c8d9e0f-6a7b8c9d0e1f2a3b4c5d6e7f-x-1", Some(InvalidAlias::Canonical)),
    ] {
        assert_eq!(AliasName::parse(name).err(), want, "{name:?}");
    }
}

#[test]
fn a_random_alias_is_an_alias() {
    let alias = AliasName::random([0xab; 24]);
    assert_eq!(alias.as_str().len(), 48);
    assert_eq!(AliasName::parse(alias.as_str()), Ok(alias));
}

#[test]
fn a_program_leads_somewhere_or_is_refused() {
    let http = |port| Ok(AliasTarget::Port { scheme: Scheme::Http, port });
    let https = |port| Ok(AliasTarget::Port { scheme: Scheme::Https, port });
    let kit = |service, index| Ok(AliasTarget::Kit { service, index });
    for (program, port, index, want) in [
        ("http", Some(3000), None, http(3000)),
        ("http", Some(3000), Some(7), http(3000)),
        ("http-8080", None, Some(7), http(8080)),
        ("http-8080", Some(3000), Some(7), http(3000)),
        ("http", None, Some(7), http(7)),
        ("https-443", None, None, https(443)),
        ("http", None, None, Err("port required")),
        ("https", None, None, Err("port required")),
        ("http", Some(0), None, Err("port")),
        ("http", Some(65_536), None, Err("port")),
        ("http", Some(-1), None, Err("port")),
        ("http-0", None, None, Err("program")),
        ("http-70000", None, None, Err("program")),
        ("http-99999999999999999999999", None, None, Err("program")),
        ("http-", None, None, Err("program")),
        ("http-+80", None, None, Err("program")),
        ("http", None, Some(0), Err("index")),
        ("ssh", None, None, Ok(AliasTarget::Ssh)),
        ("terminal", None, None, kit(Service::Terminal, 1)),
        ("tty", None, Some(2), kit(Service::Terminal, 2)),
        ("t", Some(9), Some(2), kit(Service::Terminal, 2)), // only ports have a port
        ("n", None, Some(3), kit(Service::Notifications, 3)),
        ("note", None, None, kit(Service::Notes, 1)),
        ("l", None, None, kit(Service::Logs, 1)),
        ("egress", None, None, kit(Service::Egress, 1)),
        ("bot", None, None, kit(Service::Bot, 1)),
        ("terminal", None, Some(0), Err("index")),
        ("terminal", None, Some(10_000), Err("index")),
        ("terminal-2", None, None, Err("program")),
        ("web", None, None, Err("program")),
        ("cli", None, None, Err("program")),
        ("proxy", None, None, Err("program")),
        ("proxyLogs", None, None, Err("program")),
        ("app", None, None, Err("program")),
        ("workspaces", None, None, Err("program")),
        ("", None, None, Err("program")),
    ] {
        let got = AliasTarget::parse(program, port, index);
        let got = got.as_ref().map_err(|error| match error {
            InvalidTarget::PortRequired => "port required",
            InvalidTarget::Field(error) => error.field.as_str(),
        });
        assert_eq!(got, want.as_ref().map_err(|field| *field), "{program} {port:?} {index:?}");
    }
}

#[test]
fn a_landing_is_a_path_as_urls_have_it() {
    let long = "a".repeat(2048);
    for (text, want) in [
        ("/app", Some("/app")),
        ("app?x=1&y=%20", Some("/app?x=1&y=%20")),
        ("", Some("/")),
        ("?a=b", Some("/?a=b")),
        (&long[1..], Some(&*format!("/{}", &long[1..]))),
        (&long, None),
        ("/a b", None),
        ("/a#b", None),
        ("/ä", None),
        ("/%4", None),
        ("/%zz", None),
        ("/a\r\nX: y", None),
        ("/a/../b", None),
        ("/a/.", None),
        ("/a?b=../c", Some("/a?b=../c")),
    ] {
        let got = Landing::parse("target_path", text, false).ok();
        assert_eq!(got.as_ref().map(Landing::as_str), want, "{text:?}");
    }
}

#[test]
fn a_landing_takes_the_root_and_a_pin_the_rest() {
    let to = |target: &str| Landed::Rewritten(target.to_owned());
    let (same, gone) = (Landed::Unchanged, Landed::Pinned404);
    for (landing, pinned, request, want) in [
        ("/app", false, "/", to("/app")),
        ("/app", false, "/?q=1", to("/app?q=1")),
        ("/app", false, "/other?x", same.clone()),
        ("/app", false, "/app?x", same.clone()),
        ("/app?mode=a", false, "/?mode=b&q=1", to("/app?mode=a&q=1")),
        ("/app?mode=a", false, "/app?mode=b", same.clone()), // not pinned: as it came
        ("/app", true, "/", to("/app")),
        ("/app", true, "/app", same.clone()),
        ("/app", true, "/app?q=1", same.clone()),
        ("/app", true, "/app/", gone.clone()),
        ("/app", true, "/ap%70", gone.clone()),
        ("/app", true, "//", gone.clone()),
        ("/app", true, "*", gone.clone()),
        ("/app?id=1", true, "/app", to("/app?id=1")),
        ("/app?id=1", true, "/app?id=1", same.clone()),
        ("/app?id=1", true, "/app?id=2&q=3", to("/app?id=1&q=3")),
        ("/app?id=1", true, "/app?%69d=2&ID=3&id", to("/app?id=1&ID=3")),
        ("/app?id=1", true, "/app?x=1;id=2", to("/app?id=1")), // some split at semicolons
        ("/app?a+b=1", true, "/app?a%20b=2", to("/app?a+b=1")),
        ("/app?", true, "/app?=1&&q", to("/app?&=1&q")),
        ("/", true, "/", same.clone()),
        ("/", true, "/?x=1", same.clone()),
        ("/", true, "/x", gone),
        ("/", false, "/x", same),
    ] {
        let rule = Landing::parse("target_path", landing, pinned).unwrap();
        assert_eq!(rule.apply(request), want, "{landing} {pinned} {request}");
    }
}

proptest! {
    /// A pin holds: whatever is asked for, one path is served, with the pinned values.
    #[test]
    fn a_pinned_alias_serves_one_path(
        path in select(vec!["/", "/app", "/other", "/app/x"]),
        query in "[a-c=&;%+0-9]{0,20}",
    ) {
        let landing = Landing::parse("target_path", "/app?a=1", true).unwrap();
        let asked = format!("{path}?{query}");
        let served = match landing.apply(&asked) {
            Landed::Pinned404 => return Ok(()),
            Landed::Unchanged => asked,
            Landed::Rewritten(target) => target,
        };
        prop_assert!(served.starts_with("/app?a=1"));
        let again = served.split(['?', '&', ';']).filter(|pair| *pair == "a" || pair.starts_with("a="));
        prop_assert_eq!(again.count(), 1);
        prop_assert_eq!(landing.apply(&served), Landed::Unchanged);
    }
}
