//! The limits of every field of containers and projects.

use std::collections::BTreeMap;

use gantry_model::{
    FieldError,
    container::{Color, Comment, ContainerName, Environment, ImageName, parse_realms},
    project::ProjectAlias,
};
use proptest::prelude::*;

#[test]
fn a_container_name_is_3_to_100_plain_characters() {
    let longest = "n".repeat(100);
    for (text, valid) in [
        ("web", true),
        ("Web_Server-2", true),
        ("123", true),
        ("---", true),
        (longest.as_str(), true),
        ("", false),
        ("ab", false),
        (&format!("{longest}n"), false),
        ("my container", false),
        ("web.example", false),
        ("wéb", false),
        ("web\n", false),
        ("a/b", false),
    ] {
        let got = ContainerName::parse("name", text);
        assert_eq!(got.is_ok(), valid, "{text:?}");
        match got {
            Ok(name) => assert_eq!(name.as_str(), text),
            Err(error) => assert_eq!(
                error.to_string(),
                "name: must be 3 to 100 letters, digits, hyphens or underscores"
            ),
        }
    }
}

#[test]
fn a_colour_is_read_in_all_spellings_and_shown_in_one() {
    for (text, want) in [
        ("#3498DB", Some("#3498DB")),
        ("#3498db", Some("#3498DB")),
        ("3498dB", Some("#3498DB")),
        ("#39D", Some("#3399DD")),
        ("39d", Some("#3399DD")),
        ("#000000", Some("#000000")),
        ("", None),
        ("#", None),
        ("##39D", None),
        ("#39", None),
        ("#39DB", None),
        ("#39DBA", None),
        ("#3498DBF", None),
        ("#3498DG", None),
        ("#é1", None), // three octets after the sign
        ("#ééé", None),
        ("red", None),
        (" #39D", None),
    ] {
        let got = Color::parse("color", text);
        assert_eq!(got.as_ref().map(ToString::to_string).ok().as_deref(), want, "{text:?}");
        if let Err(error) = got {
            assert!(error.to_string().starts_with("color: must be a hexadecimal colour"));
        }
    }
    assert_eq!(Color::from_rgb([1, 2, 255]).to_string(), "#0102FF");
    assert_eq!(Color::from_rgb([1, 2, 255]).rgb(), [1, 2, 255]);
}

#[test]
fn an_image_is_an_os_and_a_release() {
    for (text, parts) in [
        ("debian/13", ("debian", "13")),
        ("ubuntu/22.04", ("ubuntu", "22.04")),
        ("alpine/edge-x_1", ("alpine", "edge-x_1")),
        (ImageName::DEFAULT, ("debian", "13")),
    ] {
        let image = ImageName::parse("container_image", text).unwrap();
        assert_eq!((image.as_str(), image.parts()), (text, parts));
    }
    let long = format!("a/{}", "1".repeat(254));
    assert!(ImageName::parse("container_image", &long[..255]).is_ok());
    for (text, says) in [
        ("ubuntu:22.04", "write \"ubuntu/22.04\""),
        ("ubuntu-22.04", "write \"ubuntu/22.04\""),
        ("ubuntu 22.04", "write \"ubuntu/22.04\""),
        ("Debian/13", "in lower case"),
        ("debian", "must be <os>/<release>"),
        ("debian/", "must be <os>/<release>"),
        ("/13", "must be <os>/<release>"),
        ("debian/13/x", "must be <os>/<release>"),
        ("debian/../etc", "must be <os>/<release>"),
        ("../13", "must be <os>/<release>"),
        ("./13", "must be <os>/<release>"),
        ("debian/-rf", "must be <os>/<release>"),
        ("-v/13", "must be <os>/<release>"),
        ("debian/1 3", "must be <os>/<release>"),
        ("debian/1\0", "must be <os>/<release>"),
        ("", "must be <os>/<release>"),
        (&long, "must be <os>/<release>"),
    ] {
        let error = ImageName::parse("container_image", text).unwrap_err();
        assert!(error.rule.contains(says), "{text:?}: {error}");
    }
}

fn environment(vars: &[(&str, &str)]) -> Result<Environment, Vec<FieldError>> {
    let vars = vars.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Environment::parse("environment_vars", vars.collect())
}

#[test]
fn a_variable_has_a_shell_s_name_and_a_bounded_value() {
    let (key, value) = ("K".repeat(128), "v".repeat(4096));
    let (long_key, long_value) = (format!("{key}K"), format!("{value}v"));
    for (key, value, says) in [
        ("PATH", "/bin", None),
        ("_", "x", None),
        ("lower_1", "with = signs\nand lines", None),
        ("HOODY", "not reserved", None),
        (key.as_str(), value.as_str(), None),
        ("", "x", Some("the name must be")),
        ("1A", "x", Some("the name must be")),
        ("A-B", "x", Some("the name must be")),
        ("A B", "x", Some("the name must be")),
        ("A=B", "x", Some("the name must be")),
        ("É", "x", Some("the name must be")),
        ("A\0", "x", Some("the name must be")),
        (&long_key, "x", Some("the name must be")),
        ("HOODY_X", "x", Some("reserved")),
        ("HOODY_", "x", Some("reserved")),
        ("A", "", Some("1 to 4096 octets")),
        ("A", &long_value, Some("1 to 4096 octets")),
        ("A", "x\0y", Some("NUL")),
    ] {
        match (environment(&[(key, value)]), says) {
            (Ok(got), None) => assert_eq!(got.vars().get(key).map(String::as_str), Some(value)),
            (Err(errors), Some(says)) => {
                assert_eq!(errors.len(), 1);
                assert_eq!(errors[0].field, format!("environment_vars.{key}"));
                assert!(errors[0].rule.contains(says), "{key:.10}: {}", errors[0]);
            }
            (got, _) => panic!("{key:.10}: {got:?}"),
        }
    }
}

#[test]
fn every_wrong_variable_is_reported_at_once() {
    let errors = environment(&[("1", "x"), ("OK", "x"), ("B", ""), ("HOODY_A", "x")]).unwrap_err();
    let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["environment_vars.1", "environment_vars.B", "environment_vars.HOODY_A"]);
}

#[test]
fn there_are_at_most_256_variables() {
    let many = |count: usize| -> BTreeMap<String, String> {
        (0..count).map(|number| (format!("V{number}"), "x".to_owned())).collect()
    };
    assert!(Environment::parse("environment_vars", many(256)).is_ok());
    let errors = Environment::parse("environment_vars", many(257)).unwrap_err();
    assert_eq!(errors[0].to_string(), "environment_vars: must hold at most 256 variables");
}

#[test]
fn a_comment_is_counted_in_characters() {
    for (text, valid) in
        [(String::new(), true), ("ü".repeat(16_000), true), ("ü".repeat(16_001), false)]
    {
        let got = Comment::parse("comment", &text);
        assert_eq!(got.is_ok(), valid);
        if let Ok(comment) = got {
            assert_eq!(comment.as_str(), text);
        }
    }
}

#[test]
fn a_project_alias_is_a_short_text_for_people() {
    let longest = "ü".repeat(100);
    for (text, valid) in [
        ("My project", true),
        ("x", true),
        ("プロジェクト", true),
        (longest.as_str(), true),
        ("", false),
        (" x", false),
        ("x ", false),
        ("a\nb", false),
        ("a\0", false),
        (&format!("{longest}ü"), false),
    ] {
        assert_eq!(ProjectAlias::parse("alias", text).is_ok(), valid, "{text:?}");
    }
    assert_eq!(ProjectAlias::parse("alias", "x y").unwrap().as_str(), "x y");
}

#[test]
fn realms_are_sorted_and_named_when_wrong() {
    let [one, two] = ["0".repeat(24), "1".repeat(24)];
    let texts = [&two, &one, &two].map(Clone::clone);
    let realms = parse_realms("realm_ids", &texts).unwrap();
    assert_eq!(realms.iter().map(ToString::to_string).collect::<Vec<_>>(), [one.clone(), two]);
    let error = parse_realms("realm_ids", &[one.clone(), "X".to_owned()]).unwrap_err();
    assert_eq!(error.field, "realm_ids[1]");
    assert!(parse_realms("realm_ids", &vec![one.clone(); 64]).is_ok());
    let error = parse_realms("realm_ids", &vec![one; 65]).unwrap_err();
    assert_eq!(error.to_string(), "realm_ids: must hold at most 64 realms");
}

proptest! {
    /// Every field takes or refuses whatever a client sends, and gives back what it took.
    #[test]
    fn no_field_panics_or_changes_its_text(text in prop_oneof!["\\PC{0,40}", "[a-z0-9/:._#-]{0,20}"]) {
        if let Ok(name) = ContainerName::parse("name", &text) {
            prop_assert_eq!(name.as_str(), text.as_str());
        }
        if let Ok(image) = ImageName::parse("image", &text) {
            let (os, release) = image.parts();
            prop_assert_eq!(format!("{os}/{release}"), text.as_str());
        }
        if let Ok(alias) = ProjectAlias::parse("alias", &text) {
            prop_assert_eq!(alias.as_str(), text.as_str());
        }
        if let Ok(color) = Color::parse("color", &text) {
            prop_assert_eq!(Color::parse("color", &color.to_string()), Ok(color));
        }
        let vars = [(text.clone(), text.clone())].into();
        if let Ok(environment) = Environment::parse("env", vars) {
            prop_assert_eq!(environment.vars().get(&text), Some(&text));
        }
    }

    #[test]
    fn a_colour_survives_its_text_form(rgb: [u8; 3]) {
        let color = Color::from_rgb(rgb);
        prop_assert_eq!(Color::parse("color", &color.to_string()), Ok(color));
    }
}
