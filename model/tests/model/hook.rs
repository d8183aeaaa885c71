//! Hooks: their JSON form, and which requests they see.

use gantry_model::{
    access::Program,
    hook::{Hook, Match, is_reject_listed},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(value: &Value) -> Result<Hook, Vec<String>> {
    Hook::from_json("hook", Program::HTTP, value)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn sees(matches: &Value, method: &str, path: &str) -> bool {
    let hook = parse(&json!({ "match": matches, "script": { "path": "/s" } })).unwrap();
    hook.matches(method, path, |_, _| false, |_| false)
}

#[test]
fn a_hook_is_read_and_printed() {
    let full = json!({
        "match": { "method": ["get", "POST"], "path": "/api/*/x*",
                   "headers": { "X-Mode": "Test" } },
        "script": { "path": "/gate.ts", "subdomain": "edge", "execId": "1" },
        "timeout": 30_000,
        "applies_to": { "groups": ["team"] },
    });
    let hook = parse(&full).unwrap();
    assert_eq!(hook.matches.methods, ["GET", "POST"]);
    assert_eq!(hook.matches.headers, [("x-mode".to_owned(), "Test".to_owned())]);
    assert_eq!(parse(&hook.to_json()), Ok(hook));
    let least = parse(&json!({ "match": {}, "script": { "path": "/s" } })).unwrap();
    assert_eq!((least.timeout_ms.get(), &least.matches), (500, &Match::default()));
    assert_eq!(least.script.subdomain, "default");
    assert_eq!(parse(&least.to_json()), Ok(least));
}

#[test]
fn each_field_of_a_hook_has_its_bounds() {
    let with = |pointer: &str, value: Value| {
        let mut hook = json!({ "match": {}, "script": { "path": "/s" } });
        let (object, key) = pointer.rsplit_once('/').unwrap();
        hook.pointer_mut(object).unwrap()[key] = value;
        parse(&hook)
    };
    let long = |len: usize| "a".repeat(len);
    for (pointer, value, fits) in [
        ("/match/method", json!("*"), true),
        ("/match/method", json!("PATCH"), true),
        ("/match/method", json!(["A", "B", "C", "D", "E", "F", "G"]), true),
        ("/match/method", json!(["A", "B", "C", "D", "E", "F", "G", "H"]), false),
        ("/match/method", json!([]), false),
        ("/match/method", json!(1), false),
        ("/match/method", json!("G T"), false),
        ("/match/path", json!("*"), true),
        ("/match/path", json!("/a/*/b.c_d-e/*"), true),
        ("/match/path", json!(format!("/{}", long(256))), true),
        ("/match/path", json!(format!("/{}", long(257))), false),
        ("/match/path", json!("a"), false),
        ("/match/path", json!("/a?b"), false),
        ("/match/path", json!("/a**"), false),
        ("/match/path", json!("/*a*/b"), false),
        ("/match/headers", json!({ "X": "y" }), true),
        ("/match/headers", json!({ "X": 1 }), false),
        ("/match/headers", json!({ "X y": "z" }), false),
        ("/match/headers", json!([]), false),
        ("/match/other", json!(1), false),
        ("/script/path", json!("/a/b.ts"), true),
        ("/script/path", json!("a"), false),
        ("/script/path", json!("/a/../b"), false),
        ("/script/path", json!("//a"), false),
        ("/script/path", json!("/.env"), false),
        ("/script/path", json!("/a b"), false),
        ("/script/subdomain", json!("default"), true),
        ("/script/subdomain", json!("a-b"), false),
        ("/script/subdomain", json!(long(64)), false),
        ("/script/execId", json!(long(64)), true),
        ("/script/execId", json!(long(65)), false),
        ("/timeout", json!(1), true),
        ("/timeout", json!(0), false),
        ("/timeout", json!(30_001), false),
        ("/timeout", json!("5"), false),
        ("/applies_to", json!({ "groups": ["a"] }), true),
        ("/applies_to", json!({ "groups": [] }), false),
        ("/applies_to", json!({ "groups": ["a b"] }), false),
        ("/applies_to", json!({}), false),
        ("/position", json!(3), true), // the caller's
        ("/other", json!(3), false),
    ] {
        let got = with(pointer, value.clone());
        assert_eq!(got.is_ok(), fits, "{pointer} = {value}: {got:?}");
        if let Err(errors) = got {
            let field = format!("hook{}", pointer.replace('/', "."));
            assert!(errors[0].starts_with(field.rsplit_once('.').unwrap().0), "{errors:?}");
        }
    }
}

#[test]
fn a_method_is_matched_as_clients_mean_it() {
    for (method, request, sees_it) in [
        (None, "GET", true),
        (None, "OPTIONS", false), // preflights are not the script's business
        (Some(json!("*")), "OPTIONS", false),
        (Some(json!("options")), "OPTIONS", true),
        (Some(json!("GET")), "HEAD", true),
        (Some(json!("HEAD")), "GET", false),
        (Some(json!(["PUT", "POST"])), "POST", true),
        (Some(json!(["PUT", "POST"])), "GET", false),
    ] {
        let matches =
            method.as_ref().map_or_else(|| json!({}), |method| json!({ "method": method }));
        assert_eq!(sees(&matches, request, "/"), sees_it, "{method:?} {request}");
    }
}

#[test]
fn a_pattern_fits_paths() {
    for (pattern, path, fits) in [
        ("*", "/anything", true),
        ("/a", "/a", true),
        ("/a", "/a/", false),
        ("/a", "/ab", false),
        ("/a*", "/a", true),
        ("/a*", "/ab/c", true),
        ("/a/*", "/a/", true),
        ("/a/*", "/a/b/c", true),
        ("/a/*", "/a", false),
        ("/*", "/", true),
        ("/a/*/c", "/a/b/c", true),
        ("/a/*/c", "/a/b/b/c", false),
        ("/a/x*y/c", "/a/x-y/c", true),
        ("/a/x*y/c", "/a/xy/c", false),
        ("/a/*/c*", "/a/b/cd/e", true),
        // Other spellings of the same path do not pass it by.
        ("/admin", "/%61dmin", true),
        ("/admin", "//admin", true),
        ("/admin", "/x/../admin", true),
        ("/admin", "/./admin", true),
        ("/admin/x", "/admin%2Fx", true),
        ("/admin/*", "/admin/../x", true), // as it came
        ("/x", "/admin/../x", true),       // as it is understood
        ("/admin", "/%zz", false),
        ("/admin", "/../admin", true),
        ("/admin/", "/admin/x/..", true),
        ("/admin", "*", false),
    ] {
        assert_eq!(sees(&json!({ "path": pattern }), "GET", path), fits, "{pattern} and {path}");
    }
}

#[test]
fn headers_and_groups_narrow_a_hook() {
    let hook = parse(&json!({
        "match": { "headers": { "X-A": "1", "x-b": "2" } }, "script": { "path": "/s" },
        "applies_to": { "groups": ["team", "boss"] },
    }))
    .unwrap();
    let is = |have: &'static [(&str, &str)]| {
        move |name: &str, value: &str| have.contains(&(name, value))
    };
    let both = is(&[("x-a", "1"), ("x-b", "2")]);
    assert!(hook.matches("GET", "/", both, |group| group.as_str() == "boss"));
    assert!(!hook.matches("GET", "/", both, |_| false));
    assert!(!hook.matches("GET", "/", is(&[("x-a", "1"), ("x-b", "3")]), |_| true));
    assert!(!hook.matches("GET", "/", is(&[("x-a", "1")]), |_| true));
}

#[test]
fn a_container_has_few_hooks_and_some_services_none() {
    let hook = json!({ "match": {}, "script": { "path": "/s" } });
    let all = |value: &Value| {
        Hook::all_from_json("hooks", value)
            .map(|hooks| hooks.len())
            .map_err(|errors| errors[0].field.clone())
    };
    assert_eq!(all(&json!({ "http": vec![hook.clone(); 8], "t": [hook] })), Ok(9));
    assert_eq!(all(&json!({ "http": vec![hook.clone(); 9] })), Err("hooks.http".to_owned()));
    let split = json!({ "t": vec![hook.clone(); 5], "tty": vec![hook.clone(); 5] });
    assert_eq!(all(&split), Err("hooks.tty".to_owned()), "one service in two spellings");
    let names = ["http", "https", "terminal", "files", "exec"];
    let many: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), json!(vec![hook.clone(); 7]))).collect();
    assert_eq!(all(&Value::Object(many)), Err("hooks".to_owned()));
    for (name, refused) in [
        ("logs", true),
        ("egress", true),
        ("cdp", true),
        ("ssh", true),
        ("proxy", true),
        ("http", false),
        ("exec", false),
    ] {
        assert_eq!(is_reject_listed(Program::parse("p", name).unwrap()), refused, "{name}");
        assert_eq!(all(&json!({ name: [hook] })).is_err(), refused, "{name}");
    }
}

proptest! {
    /// A pattern without a star is one path, however it is spelled.
    #[test]
    fn no_spelling_passes_a_hook_by(path in "(/[a-c]{1,3}){1,4}", spell in any::<u64>()) {
        let spelled: String = path.bytes().enumerate().map(|(at, octet)| {
            match (spell >> (at * 3 % 60)) & 7 {
                0 => format!("%{octet:02x}"),
                1 => format!("%{octet:02X}"),
                2 if octet == b'/' => "//".to_owned(),
                3 if octet == b'/' => "/./".to_owned(),
                4 if octet == b'/' => "/x/../".to_owned(),
                _ => char::from(octet).to_string(),
            }
        }).collect();
        prop_assert!(sees(&json!({ "path": path }), "GET", &spelled), "{} as {}", path, spelled);
    }

    /// Matching never fails, whatever is asked for.
    #[test]
    fn any_path_can_be_asked_for(path in "\\PC{0,40}", pattern in "/[a-z*/.]{0,20}") {
        let hook = parse(&json!({ "match": { "path": pattern }, "script": { "path": "/s" } }));
        if let Ok(hook) = hook {
            hook.matches("GET", &path, |_, _| false, |_| false);
        }
    }
}
