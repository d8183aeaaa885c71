//! Permission documents: every field of their JSON form, and every way to get one wrong.

use gantry_model::access::{
    Access, Claim, Document, Fallback, GroupName, JwtAlgorithm, Method, Program, Source,
    hash_password,
};
use serde_json::{Value, json};

const RSA: &str = include_str!("keys/jwt-rsa2048.pem");
const RSA_SHORT: &str = include_str!("keys/jwt-rsa1024.pem");
const RSA_PKCS1: &str = include_str!("keys/jwt-rsa2048-pkcs1.pem");
const P256: &str = include_str!("keys/jwt-p256.pem");
const P384: &str = include_str!("keys/jwt-p384.pem");

fn parse(value: &Value) -> Result<Document, Vec<String>> {
    Document::parse(value, None, &mut || "fresh".to_owned())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn method(value: &Value) -> Result<Method, Vec<String>> {
    Method::parse("way", value, &mut || "fresh".to_owned())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn name(text: &str) -> GroupName {
    GroupName::parse("group", text).unwrap()
}

#[test]
fn a_full_document_is_read_and_printed() {
    let sent = json!({
        "project": "5f2b8c6d9e3a4f1b7c8d9e0f", "hooks": {}, "file_version": 3, // the caller's
        "groups": {
            "team": [
                { "type": "ip", "range": "203.0.113.7/24" },
                { "type": "password", "username": "ann", "password": "tiger", "algorithm": "sha256",
                  "salt": "s" },
            ],
            "bots": { "type": "token", "header": "X-Key", "value": "k1" },
            "sso": { "type": "jwt", "secret": "s3", "algorithm": "HS256",
                     "sources": ["header:Authorization", "cookie:__Host-sso"],
                     "claims": { "role": "admin", "level": 3.0, "staff": true } },
        },
        "permissions": {
            "team": { "http": "3000-3999", "t": [1, 2], "logs": true, "ssh": "*" },
            "bots": { "https": 8443, "n": false, "files": true },
        },
        "default": "allow",
        "enable_proxy": true,
    });
    let document = parse(&sent).unwrap();
    assert_eq!(
        document.groups[&name("team")],
        [
            Method::Ip("203.0.113.0/24".parse().unwrap()),
            Method::Password {
                username: "ann".to_owned(),
                salt: "s".to_owned(),
                hash: hash_password("s", "tiger"),
            },
        ]
    );
    assert_eq!(
        document.groups[&name("sso")],
        [Method::Jwt {
            algorithm: JwtAlgorithm::Hs256,
            key: "s3".to_owned(),
            sources: vec![
                Source::Header("authorization".to_owned()),
                Source::Cookie("__Host-sso".to_owned()),
            ],
            claims: [
                ("role".to_owned(), Claim::Text("admin".to_owned())),
                ("level".to_owned(), Claim::Number("3".to_owned())),
                ("staff".to_owned(), Claim::Bool(true)),
            ]
            .into(),
        }]
    );
    assert_eq!((document.default, document.enable_proxy), (Fallback::Allow, Some(true)));
    let printed = document.to_json();
    assert_eq!(
        printed["permissions"],
        json!({
            "team": { "http": "3000-3999", "terminal": [1, 2], "logs": true, "ssh": "*" },
            "bots": { "https": 8443, "notifications": false, "files": true },
        })
    );
    assert_eq!(printed["groups"]["bots"], json!({"type":"token","header":"x-key","value":"k1"}));
    assert_eq!(Document::from_stored(&printed), Ok(document.clone()));
    assert_eq!(parse(&printed), Ok(document));
}

#[test]
fn a_document_without_its_optional_fields_denies() {
    let document = parse(&json!({ "groups": {}, "permissions": {} })).unwrap();
    assert_eq!(document, Document::default());
    assert_eq!(document.default, Fallback::Deny);
    assert_eq!(document.enable_proxy, None);
}

#[test]
fn every_broken_rule_of_a_document_is_named_at_once() {
    let errors = parse(&json!({
        "groups": {
            "team": [{ "type": "ip", "range": "203.0.113.0" }],
            "b@d": { "type": "ip", "range": "::/0" },
            "none": [],
            "id": { "type": "hoody-identity", "audience": "a" },
        },
        "permissions": {
            "team": { "http": 0, "files": "*", "nothing": true, "t": 1, "tty": 2 },
            "ghost": { "http": true },
        },
        "default": "perhaps",
        "enable_proxy": "yes",
        "defualt": "deny",
    }))
    .unwrap_err();
    let fields: Vec<&str> =
        errors.iter().filter_map(|error| Some(error.split_once(": ")?.0)).collect();
    assert_eq!(
        fields,
        [
            "defualt",
            "default",
            "enable_proxy",
            "groups.b@d",
            "groups.id.type",
            "groups.none",
            "groups.team[0].range",
            "permissions.team.files",
            "permissions.team.http",
            "permissions.team.nothing",
            "permissions.team.tty",
            "permissions.ghost",
        ],
        "{errors:#?}"
    );
    assert_eq!(
        parse(&json!([])).unwrap_err(),
        [": must be an object"],
        "what is no object at all has no field to name"
    );
    assert_eq!(parse(&json!({})).unwrap_err(), ["groups: is required", "permissions: is required"]);
}

#[test]
fn a_containers_permissions_may_name_the_groups_of_its_project() {
    let project = parse(&json!({
        "groups": { "team": { "type": "ip", "range": "10.0.0.0/8" } }, "permissions": {},
    }))
    .unwrap();
    let container = json!({ "groups": {}, "permissions": { "team": { "http": true } } });
    let mut salt = String::new;
    assert!(Document::parse(&container, Some(&project), &mut salt).is_ok());
    let errors = Document::parse(&container, None, &mut salt).unwrap_err();
    assert_eq!(errors[0].to_string(), "permissions.team: no group has this name");
    assert!(Document::from_stored(&container).is_ok(), "the group may be gone since it was stored");
}

#[test]
fn a_document_has_bounds() {
    let way = json!({ "type": "ip", "range": "10.0.0.0/8" });
    let groups = |count: usize| -> Value {
        let groups = (0..count).map(|at| (format!("g{at}"), way.clone()));
        json!({ "groups": groups.collect::<serde_json::Map<_, _>>(), "permissions": {} })
    };
    assert!(parse(&groups(64)).is_ok());
    assert_eq!(parse(&groups(65)).unwrap_err(), ["groups: must hold at most 64 groups"]);

    let ways =
        |count: usize| json!({ "groups": { "g": vec![way.clone(); count] }, "permissions": {} });
    assert!(parse(&ways(16)).is_ok());
    let error = "groups.g: must be one object, or an array of 1 to 16";
    assert_eq!(parse(&ways(17)).unwrap_err(), [error]);

    let token = json!({ "type": "token", "param": "t", "value": "x".repeat(8192) });
    let large = json!({
        "groups": { "a": vec![token.clone(); 16], "b": vec![token; 16] },
        "permissions": {},
    });
    assert_eq!(parse(&large).unwrap_err(), ["groups: the document must be at most 256 KiB"]);

    let many: Vec<Value> = (0..500).map(|at| json!({ "type": at })).collect();
    let many: serde_json::Map<_, _> =
        many.chunks(16).enumerate().map(|(at, ways)| (format!("g{at}"), json!(ways))).collect();
    let errors = parse(&json!({ "groups": many, "permissions": {} })).unwrap_err();
    assert_eq!(errors.len(), 100, "an answer names a hundred errors, not more");
}

#[test]
fn passwords_are_stored_hashed() {
    let hash = hex::encode(hash_password("pepper", "tiger"));
    let way = |password: &str, salt: Option<&str>| {
        let mut way = json!({ "type": "password", "username": "ann", "password": password });
        if let Some(salt) = salt {
            way["salt"] = salt.into();
        }
        method(&way).map(|method| match method {
            Method::Password { salt, hash, .. } => (salt, hex::encode(hash)),
            other => panic!("{other:?}"),
        })
    };
    let fresh = hex::encode(hash_password("fresh", "tiger"));
    assert_eq!(way("tiger", Some("pepper")), Ok(("pepper".to_owned(), hash.clone())));
    assert_eq!(
        way(&hash, Some("pepper")),
        Ok(("pepper".to_owned(), hash.clone())),
        "hashed already"
    );
    assert_eq!(way("tiger", None), Ok(("fresh".to_owned(), fresh)), "the edge makes the salt");
    let error = "way.salt: is required with a hashed password";
    assert_eq!(way(&hash, None), Err(vec![error.to_owned()]));
}

#[test]
fn the_hash_of_a_password_is_that_of_the_salt_and_the_password() {
    // printf %s saltpassword | sha256sum
    assert_eq!(
        hex::encode(hash_password("salt", "password")),
        "13601bda4ea78e55a07b98866d2be6be0744e3866f13c00c811cab608a28f322"
    );
}

#[test]
fn each_way_has_its_rules() {
    for (way, want) in [
        (json!({"type":"ip","range":"2001:db8::/32"}), None),
        (json!({"type":"ip","range":"::ffff:10.0.0.0/104"}), None),
        (json!({"type":"ip","range":"10.0.0.0/33"}), Some("way.range")),
        (json!({"type":"ip","range":"10.0.0.1"}), Some("way.range")), // no range
        (json!({"type":"ip","range":"010.0.0.0/8"}), Some("way.range")), // octal, for some
        (json!({"type":"ip"}), Some("way.range")),
        (json!({"type":"ip","range":"10.0.0.0/8","also":1}), Some("way.also")),
        (json!({"type":"token","header":"X-Key","value":"v"}), None),
        (json!({"type":"token","cookie":"sid","value":"v"}), None),
        (json!({"type":"token","param":"k y","value":"v w"}), None),
        (json!({"type":"token","value":"v"}), Some("way")),
        (json!({"type":"token","header":"a","cookie":"b","value":"v"}), Some("way")),
        (json!({"type":"token","header":"Host","value":"v"}), Some("way.header")),
        (json!({"type":"token","header":"Cookie","value":"v"}), Some("way.header")),
        (json!({"type":"token","header":"a b","value":"v"}), Some("way.header")),
        (json!({"type":"token","header":"a","value":" v"}), Some("way.value")), // never arrives
        (json!({"type":"token","header":"a","value":"v\r\nx: y"}), Some("way.value")),
        (json!({"type":"token","cookie":"a","value":"v;w"}), Some("way.value")),
        (json!({"type":"token","cookie":"a","value":""}), Some("way.value")),
        (json!({"type":"password","username":"a:b","password":"p"}), Some("way.username")),
        (json!({"type":"password","username":"","password":"p"}), Some("way.username")),
        (json!({"type":"password","username":"a","password":""}), Some("way.password")),
        (
            json!({"type":"password","username":"a","password":"p","algorithm":"md5"}),
            Some("way.algorithm"),
        ),
        (json!({"type":"hoody-identity"}), Some("way.type")),
        (json!({"type":"basic"}), Some("way.type")),
        (json!({}), Some("way.type")),
        (json!("ip"), Some("way")),
    ] {
        let got = method(&way);
        let field = got.as_ref().err().and_then(|errors| Some(errors[0].split_once(": ")?.0));
        assert_eq!(field, want, "{way} gives {got:?}");
    }
}

#[test]
fn a_token_needs_a_key_of_its_algorithm() {
    for (algorithm, key, fits) in [
        ("HS256", "k", true),
        ("HS256", "", false),
        ("RS256", RSA, true),
        ("RS256", RSA_SHORT, false), // 1024 bits
        ("RS256", RSA_PKCS1, false),
        ("RS256", P256, false),
        ("RS256", "secret", false),
        ("ES256", P256, true),
        ("ES256", P384, false),
        ("ES256", RSA, false),
        ("none", "k", false),
        ("HS512", "k", false),
    ] {
        let way = json!({ "type": "jwt", "secret": key, "algorithm": algorithm,
                          "sources": ["header:Authorization"] });
        assert_eq!(method(&way).is_ok(), fits, "{algorithm} with {key}");
    }
    for (sources, fits) in [
        (json!(["cookie:a", "header:b"]), true),
        (json!([]), false),
        (json!(["param:a"]), false),
        (json!(["header:"]), false),
        (json!("header:a"), false),
    ] {
        let way = json!({ "type": "jwt", "secret": "k", "algorithm": "HS256", "sources": sources });
        assert_eq!(method(&way).is_ok(), fits, "{sources}");
    }
    for (claim, fits) in [(json!(1), true), (json!([1]), false), (json!(null), false)] {
        let way = json!({ "type": "jwt", "secret": "k", "algorithm": "HS256",
                          "sources": ["cookie:a"], "claims": { "c": claim } });
        assert_eq!(method(&way).is_ok(), fits, "{claim}");
    }
}

#[test]
fn claims_are_equal_as_values_are() {
    for (a, b, equal) in [
        ("1", "1.0", true),
        ("-0", "0", true),
        ("1e2", "100", true),
        ("1.50", "1.5", true),
        ("1", "\"1\"", false),
        ("true", "\"true\"", false),
        ("9007199254740993", "9007199254740992", false),
        ("18446744073709551615", "18446744073709551615", true),
    ] {
        let claim = |text: &str| Claim::from_json(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(claim(a) == claim(b), equal, "{a} and {b}");
        assert_eq!(Claim::from_json(&claim(a).to_json()), Some(claim(a)), "{a}");
    }
}

#[test]
fn a_range_of_ipv4_is_one_in_either_form() {
    let way = json!({ "type": "ip", "range": "::ffff:10.1.2.3/104" });
    assert_eq!(method(&way), Ok(Method::Ip("10.0.0.0/8".parse().unwrap())));
}

#[test]
fn a_program_has_one_name_and_many_spellings() {
    for (text, want) in [
        ("http", Some("http")),
        ("https", Some("https")),
        ("ssh", Some("ssh")),
        ("terminal", Some("terminal")),
        ("tty", Some("terminal")),
        ("ttyd", Some("terminal")),
        ("t", Some("terminal")),
        ("d", Some("display")),
        ("w", Some("watch")),
        ("n", Some("notifications")),
        ("notification", Some("notifications")),
        ("notifications", Some("notifications")),
        ("f", Some("files")),
        ("e", Some("exec")),
        ("b", Some("browser")),
        ("l", Some("logs")),
        ("log", Some("logs")),
        ("proxyLogs", Some("logs")),
        ("note", Some("notes")),
        ("kv", Some("sqlite")),
        ("tun", Some("tunnel")),
        ("proxy", Some("egress")),
        ("workspace", Some("workspaces")),
        ("services", Some("services")),
        ("ui", Some("ui")),
        ("Terminal", None),
        ("terminal-1", None),
        ("web", None),
        ("", None),
    ] {
        let got = Program::parse("p", text);
        assert_eq!(got.as_ref().ok().map(|program| program.as_str()), want, "{text:?}");
        if let Ok(program) = got {
            assert_eq!(Program::parse("p", program.as_str()), Ok(program));
        }
    }
}

#[test]
fn a_cell_has_the_forms_that_its_program_can_use() {
    for (program, cell, want) in [
        ("http", json!(true), Some(Access::All)),
        ("http", json!(false), Some(Access::None)),
        ("http", json!("*"), Some(Access::Star)),
        ("http", json!(3000), Some(Access::Number(3000))),
        ("http", json!([3000]), Some(Access::Numbers(vec![3000]))),
        ("http", json!("3000-3010"), Some(Access::Range(3000, 3010))),
        ("http", json!("3010-3000"), None),
        ("http", json!("3000"), None),
        ("http", json!("+1-2"), None),
        ("http", json!("1-65536"), None),
        ("http", json!("0-5"), None),
        ("http", json!(0), None), // no port
        ("http", json!(65536), None),
        ("http", json!(1.5), None),
        ("http", json!([]), None),
        ("http", json!([1, "2"]), None),
        ("http", json!(null), None),
        ("http", json!({}), None),
        ("terminal", json!(0), Some(Access::Number(0))),
        ("terminal", json!("0-5"), Some(Access::Range(0, 5))),
        ("files", json!(true), Some(Access::All)),
        ("files", json!("*"), None),
        ("files", json!(1), None),
        ("services", json!(1), None),
        ("notifications", json!([1]), None),
        ("exec", json!("1-2"), None),
        ("logs", json!(true), Some(Access::All)),
        ("logs", json!("*"), Some(Access::Star)), // known, grants nothing
        ("logs", json!(1), None),
        ("ssh", json!(true), Some(Access::All)),
        ("ssh", json!(22), None),
    ] {
        let program = Program::parse("p", program).unwrap();
        let got = Access::from_json("cell", program, &cell);
        assert_eq!(got.as_ref().ok(), want.as_ref(), "{program} {cell}");
        if let Ok(access) = got {
            assert_eq!(access.to_json(), cell, "{program}");
        }
    }
}

#[test]
fn a_small_write_into_a_closed_project_opens_nothing() {
    let denying = Document::default();
    let allowing = Document { default: Fallback::Allow, ..Document::default() };
    assert_eq!(Document::initial(None).default, Fallback::Allow);
    assert_eq!(Document::initial(Some(&denying)).default, Fallback::Deny);
    assert_eq!(Document::initial(Some(&allowing)).default, Fallback::Allow);
}
