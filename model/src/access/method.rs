//! Reading one way to belong to a group.

use std::{collections::BTreeMap, net::IpAddr};

use base64::Engine;
use ipnet::{IpNet, Ipv4Net};
use serde_json::{Map, Number, Value};

use super::{Claim, JwtAlgorithm, Method, Place, Source, hash_password};
use crate::{
    FieldError,
    json::{Errors, is_token, join},
};

/// Fields that frame the message or belong to one hop; the edge strips credentials, and a message
/// without these would be another one. `cookie` has a place of its own.
const NO_CREDENTIALS: [&str; 12] = [
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

type Object = Map<String, Value>;

impl Method {
    /// The longest secret, token or password, in octets.
    pub const SECRET_LEN_MAX: usize = 8192;
    /// The most claims that a signed token can be asked for.
    pub const CLAIMS_MAX: usize = 32;

    /// Reads one way to belong to a group, an object with its `type`; `field` names it in the errors.
    /// A plain password is stored hashed; `new_salt` makes the salt where the client gives none.
    pub fn parse(
        field: &str,
        value: &Value,
        new_salt: &mut dyn FnMut() -> String,
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = Errors::default();
        let method = Self::read(&mut errors, field, value, new_salt);
        errors.finish(method)
    }

    pub(super) fn read(
        errors: &mut Errors,
        field: &str,
        value: &Value,
        new_salt: &mut dyn FnMut() -> String,
    ) -> Option<Self> {
        let kind = errors.map(field, value)?.get("type").and_then(Value::as_str);
        match kind {
            Some("jwt") => jwt(errors, field, value),
            Some("password") => password(errors, field, value, new_salt),
            Some("ip") => {
                let map = errors.object(field, value, &["type", "range"])?;
                let field = join(field, "range");
                let range = errors.text(&field, map.get("range"), (1, 64))?;
                errors.take(parse_range(&field, range)).map(Self::Ip)
            }
            Some("token") => token(errors, field, value),
            Some("hoody-identity") => errors.note(
                &join(field, "type"),
                "hoody-identity needs an identity service, which this installation does not have; \
                 use jwt, password, ip or token",
            ),
            Some(_) | None => {
                errors.note(&join(field, "type"), "must be jwt, password, ip or token")
            }
        }
    }
}

fn jwt(errors: &mut Errors, field: &str, value: &Value) -> Option<Method> {
    let map = errors.object(field, value, &["type", "secret", "algorithm", "sources", "claims"])?;
    let algorithm = match map.get("algorithm").and_then(Value::as_str) {
        Some("HS256") => Some(JwtAlgorithm::Hs256),
        Some("RS256") => Some(JwtAlgorithm::Rs256),
        Some("ES256") => Some(JwtAlgorithm::Es256),
        Some(_) | None => errors.note(&join(field, "algorithm"), "must be HS256, RS256 or ES256"),
    };
    let key_field = join(field, "secret");
    let key = errors.text(&key_field, map.get("secret"), (1, Method::SECRET_LEN_MAX));
    if let (Some(algorithm), Some(key)) = (algorithm, key)
        && let Some(rule) = misfit(algorithm, key)
    {
        errors.note::<()>(&key_field, rule);
    }
    let sources = sources(errors, &join(field, "sources"), map);
    let claims = claims(errors, &join(field, "claims"), map)?;
    Some(Method::Jwt { algorithm: algorithm?, key: key?.to_owned(), sources: sources?, claims })
}

/// Why a key cannot be one of this algorithm.
fn misfit(algorithm: JwtAlgorithm, key: &str) -> Option<&'static str> {
    /// rsaEncryption, as an algorithm identifier starts with it (RFC 3279, section 2.3.1).
    const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    /// id-ecPublicKey with prime256v1 (RFC 5480, section 2.1.1).
    const P256: &[u8] = &[
        0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7,
    ];
    let der = || {
        let body = key.trim().strip_prefix("-----BEGIN PUBLIC KEY-----")?;
        let body = body.strip_suffix("-----END PUBLIC KEY-----")?;
        let text: String = body.split_ascii_whitespace().collect();
        base64::engine::general_purpose::STANDARD.decode(text).ok()
    };
    let holds = |at: usize, id: &[u8], len_min: usize| {
        der().is_some_and(|der| {
            der.len() >= len_min && der.get(at..).is_some_and(|rest| rest.starts_with(id))
        })
    };
    match algorithm {
        JwtAlgorithm::Hs256 => None,
        // Two headers of four and two octets stand before the identifier; 2048 bits make 294 octets.
        JwtAlgorithm::Rs256 if holds(6, RSA, 294) => None,
        JwtAlgorithm::Rs256 => {
            Some("must be an RSA public key of at least 2048 bits in PEM (BEGIN PUBLIC KEY)")
        }
        JwtAlgorithm::Es256 if holds(4, P256, 59) => None,
        JwtAlgorithm::Es256 => Some("must be a P-256 public key in PEM (BEGIN PUBLIC KEY)"),
    }
}

fn sources(errors: &mut Errors, field: &str, map: &Object) -> Option<Vec<Source>> {
    let sources = match map.get("sources").and_then(Value::as_array) {
        Some(sources) if (1..=16).contains(&sources.len()) => sources,
        Some(_) | None => return errors.note(field, "must be an array of 1 to 16 places"),
    };
    let mut source = |(at, value): (usize, &Value)| {
        let field = format!("{field}[{at}]");
        let (kind, name) = value.as_str().and_then(|text| text.split_once(':')).unwrap_or_default();
        match kind {
            "header" => header(errors, &field, name).map(Source::Header),
            "cookie" => cookie(errors, &field, name).map(Source::Cookie),
            _ => errors.note(&field, "must be header:<name> or cookie:<name>"),
        }
    };
    Some(sources.iter().enumerate().filter_map(&mut source).collect())
}

fn header(errors: &mut Errors, field: &str, name: &str) -> Option<String> {
    let name = name.trim().to_ascii_lowercase();
    if !is_token(&name) {
        errors.note(field, "must be the name of a header field")
    } else if NO_CREDENTIALS.contains(&name.as_str()) {
        errors.note(field, &format!("the header field {name} cannot carry a credential"))
    } else {
        Some(name)
    }
}

fn cookie(errors: &mut Errors, field: &str, name: &str) -> Option<String> {
    if is_token(name) {
        Some(name.to_owned())
    } else {
        errors.note(field, "must be the name of a cookie")
    }
}

fn claims(errors: &mut Errors, field: &str, map: &Object) -> Option<BTreeMap<String, Claim>> {
    let Some(value) = map.get("claims") else { return Some(BTreeMap::new()) };
    let claims = errors.map(field, value)?;
    if claims.len() > Method::CLAIMS_MAX {
        return errors.note(field, "must be at most 32 claims");
    }
    let claim = |(name, value): (&String, &Value)| {
        let field = join(field, &name.chars().take(64).collect::<String>());
        if !(1..=256).contains(&name.len()) {
            return errors.note(&field, "the name of a claim must have 1 to 256 octets");
        }
        let short = |claim: &Claim| match claim {
            Claim::Text(text) => text.len() <= 4096,
            Claim::Number(_) | Claim::Bool(_) => true,
        };
        match Claim::from_json(value).filter(short) {
            Some(claim) => Some((name.clone(), claim)),
            None => {
                errors.note(&field, "must be a text of at most 4096 octets, a number or a bool")
            }
        }
    };
    Some(claims.iter().filter_map(claim).collect())
}

impl Claim {
    /// The claim of a JSON value; none for `null`, arrays and objects, which equal no claim.
    pub fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Number(number) => Some(Self::Number(shortest(number))),
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// The one spelling of a number: a whole number has no point.
fn shortest(number: &Number) -> String {
    /// Whole numbers below this have a float of their own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let text = number.to_string();
    match number.as_f64() {
        // There is but one zero.
        Some(0.0) => "0".to_owned(),
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT => {
            text.strip_suffix(".0").unwrap_or(&text).to_owned()
        }
        Some(_) | None => text,
    }
}

fn password(
    errors: &mut Errors,
    field: &str,
    value: &Value,
    new_salt: &mut dyn FnMut() -> String,
) -> Option<Method> {
    let known = ["type", "username", "password", "algorithm", "salt"];
    let map = errors.object(field, value, &known)?;
    let algorithm = map.get("algorithm");
    if algorithm.is_some_and(|algorithm| algorithm.as_str() != Some("sha256")) {
        errors.note::<()>(&join(field, "algorithm"), "must be sha256");
    }
    let name_field = join(field, "username");
    let username = errors.text(&name_field, map.get("username"), (1, 256));
    // RFC 7617 ends the name at the first colon and knows no control characters.
    if username.is_some_and(|name| name.contains(|c: char| c == ':' || c.is_control())) {
        errors.note::<()>(&name_field, "must not contain a colon or control characters");
    }
    let salt_field = join(field, "salt");
    let salt = match map.get("salt") {
        None => None,
        some => Some(errors.text(&salt_field, some, (1, 256))?.to_owned()),
    };
    let password_field = join(field, "password");
    let password = errors.text(&password_field, map.get("password"), (1, 1024))?;
    let (salt, hash) = match (hashed(password), salt) {
        (Some(hash), Some(salt)) => (salt, hash),
        (Some(_), None) => return errors.note(&salt_field, "is required with a hashed password"),
        (None, salt) => {
            let salt = salt.unwrap_or_else(new_salt);
            let hash = hash_password(&salt, password);
            (salt, hash)
        }
    };
    Some(Method::Password { username: username?.to_owned(), salt, hash })
}

/// The hash, if a password is one already: 64 lower-case hexadecimal digits.
fn hashed(password: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let lower = password.bytes().all(|octet| !octet.is_ascii_uppercase());
    (lower && hex::decode_to_slice(password, &mut hash).is_ok()).then_some(hash)
}

/// Reads an address range; one of IPv4 in the form of IPv6 becomes one of IPv4, because that is how
/// clients' addresses are compared.
fn parse_range(field: &str, text: &str) -> Result<IpNet, FieldError> {
    let rule = "must be an address range such as 203.0.113.0/24 or 2001:db8::/32";
    let read = || {
        // The standard library is strict where ipnet takes `010.0.0.0`, which is octal for some.
        let (address, len) = text.split_once('/')?;
        let digits = len.bytes().all(|octet| octet.is_ascii_digit());
        IpNet::new(address.parse().ok()?, len.parse().ok().filter(|_| digits)?).ok()
    };
    let range = read().ok_or_else(|| FieldError::new(field, rule))?;
    let range = match (range.addr(), range.prefix_len().checked_sub(96)) {
        (IpAddr::V6(address), Some(len)) => match address.to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, len).map_or(range, IpNet::V4),
            None => range,
        },
        (IpAddr::V4(_) | IpAddr::V6(_), _) => range,
    };
    Ok(range.trunc())
}

fn token(errors: &mut Errors, field: &str, value: &Value) -> Option<Method> {
    let map = errors.object(field, value, &["type", "header", "cookie", "param", "value"])?;
    let places: Vec<&str> = ["header", "cookie", "param"]
        .into_iter()
        .filter(|place| map.contains_key(*place))
        .collect();
    let place = match *places.as_slice() {
        [kind] => {
            let field = join(field, kind);
            let name = errors.text(&field, map.get(kind), (1, 256));
            name.and_then(|name| match kind {
                "header" => header(errors, &field, name).map(Place::Header),
                "cookie" => cookie(errors, &field, name).map(Place::Cookie),
                _ if name.contains(char::is_control) => {
                    errors.note(&field, "must not contain control characters")
                }
                _ => Some(Place::Param(name.to_owned())),
            })
        }
        _ => errors.note(field, "must have exactly one of header, cookie and param"),
    };
    let field = join(field, "value");
    let value = errors.text(&field, map.get("value"), (1, Method::SECRET_LEN_MAX))?;
    let place = place?;
    let fits = match place {
        // What no header field can carry would never match.
        Place::Header(_) => {
            value.trim() == value && value.bytes().all(|o| matches!(o, b' '..=b'~'))
        }
        Place::Cookie(_) => value.bytes().all(|o| matches!(o, b'!'..=b'~') && o != b';'),
        Place::Param(_) => !value.contains(char::is_control),
    };
    if fits {
        Some(Method::Token { place, value: value.to_owned() })
    } else {
        errors.note(&field, "contains characters that cannot stand in this place")
    }
}
