//! Signed tokens (RFC 7519): signature, time and claims. The algorithm is the group's, not the
//! token's; a key that a token brings or names is never looked at.

use std::collections::BTreeMap;

use gantry_model::access::{Claim, JwtAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde_json::{Map, Value};

/// How far the clocks of an issuer and of this machine may differ.
const SKEW_S: i64 = 60;

/// The longest token that is looked at.
const LENGTH_MAX: usize = 16 * 1024;

/// A token that proves something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Valid {
    /// Until when, in milliseconds since the epoch; for ever when absent.
    pub(crate) until_ms: Option<i64>,
}

/// Checks a token. `key` is the secret itself, or a public key in PEM (`SubjectPublicKeyInfo`).
pub(crate) fn verify(
    token: &[u8],
    algorithm: JwtAlgorithm,
    key: &str,
    claims: &BTreeMap<String, Claim>,
    now_ms: i64,
) -> Option<Valid> {
    if token.len() > LENGTH_MAX {
        return None;
    }
    let (algorithm, key) = match algorithm {
        JwtAlgorithm::Hs256 => (Algorithm::HS256, DecodingKey::from_secret(key.as_bytes())),
        JwtAlgorithm::Rs256 => (Algorithm::RS256, DecodingKey::from_rsa_der(&public_key(key)?)),
        JwtAlgorithm::Es256 => (Algorithm::ES256, DecodingKey::from_ec_der(&public_key(key)?)),
    };
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    // Time is checked below, by the edge's own clock; an audience is a claim like others.
    (validation.validate_exp, validation.validate_aud) = (false, false);
    let token = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation).ok()?;
    // What must be understood, and is not (RFC 7515, 4.1.11).
    if token.header.crit.is_some() {
        return None;
    }
    let valid = time(&token.claims, now_ms)?;
    // No conversion between kinds, and no member of a list.
    let has = |name: &str| token.claims.get(name).and_then(Claim::from_json);
    let same = |(name, want): (&String, &Claim)| has(name).as_ref() == Some(want);
    claims.iter().all(same).then_some(valid)
}

/// The octets of a public key.
fn public_key(pem: &str) -> Option<SubjectPublicKeyInfoDer<'static>> {
    SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).ok()
}

/// Checks `exp` and `nbf`, which are numbers if they are there.
fn time(claims: &Map<String, Value>, now_ms: i64) -> Option<Valid> {
    let mut valid = Valid { until_ms: None };
    if let Some(exp) = claims.get("exp") {
        let ends_ms = ms(exp.as_f64()?).saturating_add(SKEW_S * 1000);
        valid.until_ms = Some(ends_ms).filter(|ends_ms| now_ms < *ends_ms);
        valid.until_ms?;
    }
    if let Some(nbf) = claims.get("nbf") {
        let begins_ms = ms(nbf.as_f64()?).saturating_sub(SKEW_S * 1000);
        return (begins_ms <= now_ms).then_some(valid);
    }
    Some(valid)
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates, which is what is wanted")]
fn ms(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const NOW_S: i64 = 1_800_000_000;
    const SECRET: &str = "a secret of some length for tests";

    fn check(token: &str, claims: &[(&str, Claim)]) -> bool {
        let claims = claims.iter().map(|(name, want)| ((*name).to_owned(), want.clone()));
        let claims = claims.collect();
        verify(token.as_bytes(), JwtAlgorithm::Hs256, SECRET, &claims, NOW_S * 1000).is_some()
    }

    fn signed(header: &Header, claims: &Value) -> String {
        encode(header, claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    }

    fn hs256(claims: &Value) -> String {
        signed(&Header::default(), claims)
    }

    #[test]
    fn a_token_counts_within_its_time_give_or_take_a_minute() {
        for (claims, want) in [
            (json!({}), true),
            (json!({"exp": NOW_S + 1}), true),
            (json!({"exp": NOW_S - 59}), true),
            (json!({"exp": NOW_S - 60}), false),
            (json!({"exp": 0}), false),
            (json!({"exp": -1}), false),
            (json!({"exp": 1e300}), true),
            (json!({"exp": "9999999999"}), false),
            (json!({"exp": null}), false),
            (json!({"nbf": NOW_S + 60}), true),
            (json!({"nbf": NOW_S + 61}), false),
            (json!({"nbf": [1]}), false),
            (json!({"aud": "anybody", "iss": 7, "sub": null}), true),
        ] {
            assert_eq!(check(&hs256(&claims), &[]), want, "{claims}");
        }
    }

    #[test]
    fn claims_must_be_equal_exactly() {
        let text = |text: &str| Claim::Text(text.to_owned());
        let number = |text: &str| Claim::Number(text.to_owned());
        let token = hs256(&json!({
            "role": "admin", "level": 3, "float": 3.0, "half": 0.5, "big": 9_007_199_254_740_993_u64,
            "yes": true, "list": ["admin"], "null": null,
        }));
        for (name, want, holds) in [
            ("role", text("admin"), true),
            ("role", text("Admin"), false),
            ("role", text("admi"), false),
            ("level", number("3"), true),
            ("level", text("3"), false),
            ("float", number("3"), true),
            ("half", number("0.5"), true),
            ("big", number("9007199254740993"), true),
            ("big", number("9007199254740992"), false),
            ("yes", Claim::Bool(true), true),
            ("yes", Claim::Bool(false), false),
            ("yes", text("true"), false),
            ("list", text("admin"), false),
            ("null", text(""), false),
            ("none", text(""), false),
        ] {
            assert_eq!(check(&token, &[(name, want.clone())]), holds, "{name} {want:?}");
        }
        assert!(!check(&token, &[("role", text("admin")), ("level", number("4"))]));
    }

    #[test]
    fn the_algorithm_is_the_groups_and_nothing_else_of_a_header_counts() {
        let claims = json!({"exp": NOW_S + 60});
        let part = |json: &Value| {
            use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
            URL_SAFE_NO_PAD.encode(json.to_string())
        };
        let good = hs256(&claims);
        let (body, signature) = good.rsplit_once('.').unwrap();
        let none = format!("{}.{}.", part(&json!({"alg": "none"})), part(&claims));
        let mut other = Header::new(Algorithm::HS512);
        other.kid = Some("../../etc/passwd".to_owned());
        let crit = Header { crit: Some(vec!["exp".to_owned()]), ..Header::default() };
        let kid = Header { kid: Some("../../etc/passwd".to_owned()), ..Header::default() };
        for (token, want) in [
            (good.clone(), true),
            (signed(&kid, &claims), true),
            (signed(&other, &claims), false),
            (signed(&crit, &claims), false),
            (none, false),
            (format!("{body}."), false),
            (body.to_owned(), false),
            (format!("{good}."), false),
            (format!("{good}="), false),
            (format!("{body}.{}", signature.to_lowercase()), false),
            (format!(".{good}"), false),
            (String::new(), false),
            ("..".to_owned(), false),
            ("\u{0}.\u{0}.\u{0}".to_owned(), false),
        ] {
            assert_eq!(check(&token, &[]), want, "{token}");
        }
    }

    #[test]
    fn public_keys_are_read_from_their_pem_and_are_no_secrets() {
        use JwtAlgorithm::{Es256, Rs256};
        let es256 = rcgen::KeyPair::generate().unwrap();
        let rs256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let claims = json!({"exp": NOW_S + 60});
        let es_token = {
            let key = EncodingKey::from_ec_der(&es256.serialize_der());
            encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap()
        };
        let rs_token = {
            // PKCS#8 has 26 octets before the PKCS#1 within.
            let key = EncodingKey::from_rsa_der(&rs256.serialize_der()[26..]);
            encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap()
        };
        // The public key as the secret of an HMAC: the oldest trick.
        let tricked = {
            let key = EncodingKey::from_secret(rs256.public_key_pem().as_bytes());
            encode(&Header::default(), &claims, &key).unwrap()
        };
        let (es_pem, rs_pem) = (es256.public_key_pem(), rs256.public_key_pem());
        for (token, algorithm, key, want) in [
            (&es_token, Es256, &es_pem, true),
            (&rs_token, Rs256, &rs_pem, true),
            (&es_token, Es256, &rs_pem, false),
            (&es_token, Rs256, &es_pem, false),
            (&rs_token, Es256, &rs_pem, false),
            (&tricked, Rs256, &rs_pem, false),
            (&es_token, Es256, &"no key".to_owned(), false),
        ] {
            let valid = verify(token.as_bytes(), algorithm, key, &BTreeMap::new(), NOW_S * 1000);
            assert_eq!(valid.is_some(), want, "{token} {algorithm:?}");
            let until_ms = Some((NOW_S + 120) * 1000);
            assert!(valid.is_none_or(|valid| valid == Valid { until_ms }));
        }
    }
}
