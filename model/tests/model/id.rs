//! Ids have one spelling.

use gantry_model::{ContainerId, InvalidId};
use proptest::prelude::*;

#[test]
fn an_id_is_24_lower_case_hexadecimal_digits() {
    for (text, valid) in [
        ("0123456789abcdef01234567", true),
        ("000000000000000000000000", true),
        ("ffffffffffffffffffffffff", true),
        ("0123456789ABCDEF01234567", false), // one id, one spelling
        ("0123456789abcdef0123456", false),
        ("0123456789abcdef012345678", false),
        ("0123456789abcdef0123456g", false),
        ("0123456789abcdef0123456-", false),
        (" 123456789abcdef01234567", false),
        ("+123456789abcdef01234567", false),
        ("0123456789abcdef012345é", false), // 24 octets, 23 characters
        ("", false),
    ] {
        assert_eq!(text.parse::<ContainerId>().is_ok(), valid, "{text:?}");
    }
    assert_eq!("x".parse::<ContainerId>(), Err(InvalidId));
}

#[test]
fn every_octet_in_every_place_is_a_digit_or_refused() {
    for place in 0..24 {
        for octet in 0..=u8::MAX {
            let mut text = *b"0123456789abcdef01234567";
            text[place] = octet;
            let digit = matches!(octet, b'0'..=b'9' | b'a'..=b'f');
            assert_eq!(ContainerId::parse_bytes(&text).is_ok(), digit, "{octet} at {place}");
        }
    }
}

proptest! {
    /// The text form is the contract: hostnames, records and logs all carry it.
    #[test]
    fn an_id_survives_its_text_form(bytes: [u8; 12]) {
        let id = ContainerId::from_bytes(bytes);
        let text = id.to_string();
        prop_assert_eq!(text.len(), 24);
        prop_assert_eq!(text.parse::<ContainerId>(), Ok(id));
        prop_assert_eq!(format!("{id:?}"), text);
        prop_assert_eq!(id.as_bytes(), &bytes);
    }

    /// Ids sort as their texts do, so that lists are the same from the store and from memory.
    #[test]
    fn ids_and_their_texts_sort_alike(one: [u8; 12], two: [u8; 12]) {
        let (one, two) = (ContainerId::from_bytes(one), ContainerId::from_bytes(two));
        prop_assert_eq!(one.cmp(&two), one.to_string().cmp(&two.to_string()));
    }

    #[test]
    fn other_text_is_refused(text in "\\PC{0,30}") {
        let valid = text.len() == 24 && text.bytes().all(|o| matches!(o, b'0'..=b'9' | b'a'..=b'f'));
        prop_assert_eq!(text.parse::<ContainerId>().is_ok(), valid);
    }
}
