//! The decision: tables of the rules, and laws over documents that nobody would write.

use std::collections::BTreeMap;

use gantry_model::access::{
    Access, Caller, Decision, Document, Fallback, GroupName, GroupSet, Method, Policy, Program,
    Reason,
};
use proptest::{collection::btree_map, prelude::*, sample::select};
use serde_json::{Value, json};

fn document(value: &Value) -> Document {
    Document::from_stored(value).unwrap()
}

fn name(text: &str) -> GroupName {
    GroupName::parse("group", text).unwrap()
}

fn named(policy: &Policy, names: &[&str]) -> GroupSet {
    policy.named(&names.iter().map(|text| name(text)).collect::<Vec<_>>())
}

fn http() -> Program {
    Program::HTTP
}

/// Two groups by address, one by password; what they open is the test's.
fn with(permissions: &Value, default: &str) -> Policy {
    let ip = json!({ "type": "ip", "range": "10.0.0.0/8" });
    let password = json!({ "type": "password", "username": "u", "salt": "s",
                           "password": "00".repeat(32) });
    let document = document(&json!({
        "groups": { "a": ip, "b": ip, "login": password },
        "permissions": permissions, "default": default,
    }));
    Policy::merge(None, Some(&document)).unwrap()
}

#[test]
fn groups_are_alternatives_and_the_default_decides_for_the_rest() {
    use Decision::{Allow, Challenge, Forbidden};
    let none = json!({});
    let one = json!({ "a": { "http": [3000] } });
    let two = json!({ "a": { "http": [3000] }, "b": { "http": false } });
    let login = json!({ "login": { "http": 3000 }, "a": { "http": false } });
    for (permissions, default, groups, port, want) in [
        (&none, "allow", &[][..], 3000, Allow),
        (&none, "deny", &[], 3000, Forbidden(Reason::Default)),
        (&none, "deny", &["a"], 3000, Forbidden(Reason::Default)), // says nothing: the default
        (&none, "allow", &["a"], 3000, Allow),
        (&one, "deny", &[], 3000, Forbidden(Reason::Default)),
        (&one, "deny", &["a"], 3000, Allow),
        (&one, "deny", &["a"], 3001, Forbidden(Reason::Group)),
        (&one, "allow", &["a"], 3001, Forbidden(Reason::Group)), // a member is held to the cell
        (&one, "allow", &[], 3001, Allow),
        (&one, "deny", &["b"], 3000, Forbidden(Reason::Default)),
        (&two, "deny", &["a", "b"], 3000, Allow), // one grant is enough
        (&two, "allow", &["b"], 3000, Forbidden(Reason::Group)),
        (&two, "allow", &["b", "login"], 3000, Allow), // login says nothing: the default
        (&login, "allow", &[], 3000, Challenge),       // though the default is to pass
        (&login, "allow", &[], 3001, Challenge),
        (&login, "deny", &[], 3000, Challenge),
        (&login, "deny", &["a"], 3000, Challenge), // an address is no credential
        (&login, "allow", &["b"], 3000, Challenge),
    ] {
        let policy = with(permissions, default);
        let matched = named(&policy, groups);
        let got = policy.decide(http(), Some(port), matched, Caller::Unknown);
        assert_eq!(got, want, "{permissions} {default} {groups:?} {port}");
    }
}

#[test]
fn who_has_logged_in_is_not_asked_again() {
    let policy = with(&json!({ "login": { "http": 3000 } }), "deny");
    let login = named(&policy, &["login"]);
    let decide = |port, matched| policy.decide(http(), Some(port), matched, Caller::Known);
    assert_eq!(decide(3000, login), Decision::Allow);
    assert_eq!(decide(3001, login), Decision::Forbidden(Reason::Group));
    assert_eq!(decide(3000, GroupSet::EMPTY), Decision::Forbidden(Reason::Default));
    let https = policy.decide(Program::HTTPS, Some(3000), GroupSet::EMPTY, Caller::Unknown);
    assert_eq!(https, Decision::Forbidden(Reason::Default), "no password opens https");
}

#[test]
fn the_kill_switch_goes_first() {
    let grant = json!({ "groups": { "a": { "type": "ip", "range": "::/0" } },
                        "permissions": { "a": { "http": true } }, "default": "allow",
                        "enable_proxy": false });
    let policy = Policy::merge(Some(&document(&grant)), None).unwrap();
    let matched = named(&policy, &["a"]);
    let got = policy.decide(http(), Some(80), matched, Caller::Known);
    assert_eq!(got, Decision::Forbidden(Reason::Closed));
    assert_eq!(policy.wants(http(), Some(80)), GroupSet::EMPTY);
}

#[test]
fn logs_want_a_literal_true() {
    for (permissions, default, matched, passes) in [
        (json!({ "a": { "logs": true } }), "deny", true, true),
        (json!({ "a": { "logs": "*" } }), "deny", true, false),
        (json!({ "a": { "logs": "*" } }), "allow", true, false),
        (json!({ "a": { "logs": true } }), "allow", false, false),
        (json!({ "a": { "http": true } }), "allow", true, false), // gated, without a cell for logs
        (json!({}), "allow", false, true),                        // nothing is gated
        (json!({}), "deny", false, false),
    ] {
        let policy = with(&permissions, default);
        let matched = if matched { named(&policy, &["a"]) } else { GroupSet::EMPTY };
        let got = policy.decide(Program::LOGS, Some(1), matched, Caller::Unknown);
        assert_eq!(got == Decision::Allow, passes, "{permissions} {default}");
    }
}

#[test]
fn only_groups_that_matter_are_checked() {
    let policy = with(&json!({ "a": { "http": 3000 }, "b": { "http": false } }), "deny");
    assert_eq!(policy.wants(http(), Some(3000)), named(&policy, &["a"]));
    assert_eq!(policy.wants(http(), Some(3001)), GroupSet::EMPTY);
    assert_eq!(policy.wants(Program::HTTPS, Some(3000)), GroupSet::EMPTY);
    let open = with(&json!({ "a": { "http": 3000 } }), "allow");
    assert_eq!(open.wants(http(), Some(3000)).len(), 3, "a member may pass less than a stranger");
    assert_eq!(open.wants(Program::SSH, None), GroupSet::EMPTY, "open services cost nothing");
}

#[test]
fn a_containers_document_wins_over_its_projects() {
    let doc = |range: &str, cell: Value, default: &str, enable: Value| {
        let mut doc = json!({ "groups": { "g": { "type": "ip", "range": range } },
                              "permissions": { "g": cell }, "default": default });
        if !enable.is_null() {
            doc["enable_proxy"] = enable;
        }
        document(&doc)
    };
    let none = Value::Null;
    let project = doc("10.0.0.0/8", json!({ "http": true, "ssh": true }), "allow", json!(false));
    let container = doc("192.0.2.0/24", json!({ "http": false }), "deny", none);

    assert_eq!(Policy::merge(None, None), None, "without a document all passes");
    let both = Policy::merge(Some(&project), Some(&container)).unwrap();
    let [(_, methods)] = both.groups() else { panic!("{:?}", both.groups()) };
    assert_eq!(*methods, [Method::Ip("192.0.2.0/24".parse().unwrap())], "per group");
    let g = GroupSet::first(1);
    let decide = |policy: &Policy, program, matched| {
        policy.decide(program, Some(80), matched, Caller::Unknown)
    };
    assert_eq!(
        decide(&both, http(), g),
        Decision::Forbidden(Reason::Closed),
        "one that does not say it follows the project"
    );
    let open = Document { enable_proxy: Some(true), ..container };
    let both = Policy::merge(Some(&project), Some(&open)).unwrap();
    assert_eq!(decide(&both, http(), g), Decision::Forbidden(Reason::Group), "per cell");
    assert_eq!(decide(&both, Program::SSH, g), Decision::Allow, "the project's other cell stays");
    assert_eq!(
        decide(&both, http(), GroupSet::EMPTY),
        Decision::Forbidden(Reason::Default),
        "and the default is the container's"
    );
    // A container may open the groups of its project further.
    let more = document(&json!({ "groups": {}, "permissions": { "g": { "https": true } } }));
    let project = Document { enable_proxy: None, ..project };
    let both = Policy::merge(Some(&project), Some(&more)).unwrap();
    assert_eq!(decide(&both, Program::HTTPS, g), Decision::Allow);
}

#[test]
fn addresses_alone_decide_about_ssh() {
    let (inside, outside) = ("10.1.2.3".parse().unwrap(), "192.0.2.1".parse().unwrap());
    let mapped = "::ffff:10.1.2.3".parse().unwrap();
    for (permissions, want) in [
        // Nobody says anything about it: neither the default nor another program counts.
        (json!({}), (true, true)),
        (json!({ "a": { "http": true } }), (true, true)),
        (json!({ "a": { "ssh": true } }), (true, false)),
        (json!({ "a": { "ssh": false } }), (false, true)),
        // One grant is enough, and a group without addresses is none.
        (json!({ "a": { "ssh": false }, "b": { "ssh": true } }), (true, false)),
        (json!({ "login": { "ssh": false } }), (true, true)),
        (json!({ "login": { "ssh": true } }), (true, true)),
    ] {
        for default in ["allow", "deny"] {
            let policy = with(&permissions, default);
            let got = (policy.admits_ssh(inside), policy.admits_ssh(outside));
            assert_eq!(got, want, "{permissions} {default}");
            assert_eq!(policy.admits_ssh(mapped), want.0, "{permissions} {default}");
        }
    }
    // The kill switch is about requests.
    let off = json!({ "groups": {}, "permissions": {}, "default": "deny", "enable_proxy": false });
    assert!(Policy::merge(Some(&document(&off)), None).unwrap().admits_ssh(inside));
}

fn programs() -> impl Strategy<Value = Program> {
    select(vec!["http", "https", "ssh", "terminal", "files", "logs"])
        .prop_map(|text| Program::parse("p", text).unwrap())
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![
        Just(Access::All),
        Just(Access::Star),
        Just(Access::None),
        (1..6_u16).prop_map(Access::Number),
        prop::collection::vec(1..6_u16, 1..4).prop_map(Access::Numbers),
        (1..4_u16, 0..3_u16).prop_map(|(from, more)| Access::Range(from, from + more)),
    ]
}

/// A cell that its program can have.
fn cell() -> impl Strategy<Value = (Program, Access)> {
    (programs(), access()).prop_map(|(program, access)| {
        let fits = Access::from_json("cell", program, &access.to_json()).is_ok();
        (program, if fits { access } else { Access::All })
    })
}

fn groups() -> impl Strategy<Value = GroupName> {
    select(vec!["a", "b", "c", "d"]).prop_map(name)
}

fn methods() -> impl Strategy<Value = Vec<Method>> {
    let one = prop_oneof![
        Just(Method::Ip("10.0.0.0/8".parse().unwrap())),
        "[a-z]{1,5}".prop_map(|username| Method::Password {
            username,
            salt: "s".to_owned(),
            hash: [7; 32],
        }),
    ];
    prop::collection::vec(one, 1..3)
}

prop_compose! {
    fn documents()(
        groups in btree_map(groups(), methods(), 0..4),
        rows in btree_map(groups(), prop::collection::vec(cell(), 0..5), 0..4),
        allow: bool,
        enable_proxy in prop::option::weighted(0.2, any::<bool>()),
    ) -> Document {
        let permissions: BTreeMap<GroupName, BTreeMap<Program, Access>> =
            rows.into_iter().map(|(name, row)| (name, row.into_iter().collect())).collect();
        let default = if allow { Fallback::Allow } else { Fallback::Deny };
        Document { groups, permissions, default, enable_proxy }
    }
}

/// Who asks for what.
#[derive(Clone, Debug)]
struct Ask {
    program: Program,
    number: Option<u16>,
    groups: Vec<GroupName>,
    caller: Caller,
}

impl Ask {
    /// What the documents say to it; without any it passes.
    fn put(&self, project: Option<&Document>, container: Option<&Document>) -> Decision {
        Policy::merge(project, container).map_or(Decision::Allow, |policy| {
            let matched = policy.named(&self.groups);
            policy.decide(self.program, self.number, matched, self.caller)
        })
    }
}

prop_compose! {
    fn asks()(
        program in programs(),
        number in 0..7_u16,
        groups in prop::collection::vec(groups(), 0..4),
        known: bool,
    ) -> Ask {
        let number = (program != Program::SSH).then_some(number);
        Ask { program, number, groups, caller: if known { Caller::Known } else { Caller::Unknown } }
    }
}

proptest! {
    /// The JSON form is what is stored: nothing of a document may be lost in it.
    #[test]
    fn a_document_survives_its_json_form(document in documents()) {
        let text = document.to_json().to_string();
        prop_assert_eq!(Document::from_stored(&serde_json::from_str(&text).unwrap()), Ok(document));
    }

    /// Who adds a `false` never opens anything, in either document.
    #[test]
    fn adding_a_deny_never_grants(
        project in prop::option::of(documents()),
        container in documents(),
        (group, program) in (groups(), programs()),
        ask in asks(),
    ) {
        let before = ask.put(project.as_ref(), Some(&container));
        let deny = |document: &Document| {
            let mut document = document.clone();
            let row = document.permissions.entry(group.clone()).or_default();
            row.insert(program, Access::None);
            document
        };
        let after = ask.put(project.as_ref(), Some(&deny(&container)));
        prop_assert!(before == Decision::Allow || after != Decision::Allow, "{before:?} {after:?}");
        if let Some(project) = &project {
            let after = ask.put(Some(&deny(project)), Some(&container));
            prop_assert!(before == Decision::Allow || after != Decision::Allow);
        }
    }

    /// Nor does the first small write of a container, whatever its project says.
    #[test]
    fn a_first_deny_never_grants(
        project in prop::option::of(documents()),
        (group, program) in (groups(), programs()),
        ask in asks(),
    ) {
        let before = ask.put(project.as_ref(), None);
        let mut first = Document::initial(project.as_ref());
        first.permissions.entry(group).or_default().insert(program, Access::None);
        let after = ask.put(project.as_ref(), Some(&first));
        prop_assert!(before == Decision::Allow || after != Decision::Allow);
    }

    /// Belonging to one more group that grants never takes anything away.
    #[test]
    fn a_grant_is_enough(document in documents(), ask in asks(), group in groups()) {
        let mut document = document;
        document.enable_proxy = None;
        document.groups.entry(group.clone()).or_insert_with(|| {
            vec![Method::Ip("10.0.0.0/8".parse().unwrap())]
        });
        document.permissions.entry(group.clone()).or_default().insert(ask.program, Access::All);
        let mut ask = ask;
        ask.groups.push(group);
        prop_assert_eq!(ask.put(None, Some(&document)), Decision::Allow);
    }

    /// Groups that are not worth checking need not be checked.
    #[test]
    fn only_wanted_groups_decide(document in documents(), ask in asks()) {
        let policy = Policy::merge(Some(&document), None).unwrap();
        let matched = policy.named(&ask.groups);
        let wanted = matched.intersection(policy.wants(ask.program, ask.number));
        let decide = |matched| policy.decide(ask.program, ask.number, matched, ask.caller);
        let kind = |decision| match decision {
            Decision::Forbidden(_) => Decision::Forbidden(Reason::Default),
            other => other,
        };
        prop_assert_eq!(kind(decide(matched)), kind(decide(wanted)));
    }

    /// A credential that proves nothing is as good as none: it cannot even be told to `decide`. One
    /// that proves something never makes a request pass less.
    #[test]
    fn proving_something_never_closes(document in documents(), ask in asks()) {
        let unknown = Ask { caller: Caller::Unknown, ..ask.clone() }.put(None, Some(&document));
        let known = Ask { caller: Caller::Known, ..ask }.put(None, Some(&document));
        prop_assert!(unknown != Decision::Allow || known == Decision::Allow);
    }

    /// A document merged with nothing, or with itself, is itself; an empty one leaves groups and cells.
    #[test]
    fn merging_has_its_laws(document in documents(), ask in asks()) {
        let alone = ask.put(Some(&document), None);
        prop_assert_eq!(ask.put(None, Some(&document)), alone);
        prop_assert_eq!(ask.put(Some(&document), Some(&document)), alone);
        let empty = Document { default: document.default, ..Document::default() };
        prop_assert_eq!(ask.put(Some(&document), Some(&empty)), alone);
        prop_assert_eq!(ask.put(Some(&document), Some(&Document::initial(Some(&document)))), alone);
    }

    /// A set holds what was put in, and nothing else.
    #[test]
    fn a_set_is_a_set(a in prop::collection::btree_set(0..140_usize, 0..20), b: u128) {
        let mut set = GroupSet::EMPTY;
        for at in &a {
            set.insert(*at);
        }
        let held: Vec<usize> = a.into_iter().filter(|at| *at < 128).collect();
        prop_assert_eq!(set.len(), held.len());
        prop_assert_eq!(set.iter().collect::<Vec<_>>(), held);
        let first = GroupSet::first((b % 140) as usize);
        prop_assert_eq!(set.intersection(first).union(set.difference(first)), set);
    }
}
