//! Names and passwords of HTTP Basic (RFC 7617), in UTF-8 as our challenge asks for.

use std::fmt;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{Context, SHA256},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};

use crate::cookies::Found;

/// The longest name and password together; more is no credential.
const LENGTH_MAX: usize = 1024;

/// A name and a password as a client gave them, `name:password`; the name has no colon.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials(String);

impl Credentials {
    /// What the request's `Authorization` says, if that is one well-formed Basic credential.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let field = Found::of(headers.get_all(header::AUTHORIZATION).iter()).one()?;
        Self::parse(field.as_bytes())
    }

    /// Reads the value of an `Authorization` field.
    pub(crate) fn parse(field: &[u8]) -> Option<Self> {
        let encoded = after_scheme(field)?;
        if encoded.len() > LENGTH_MAX.div_ceil(3) * 4 {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let fine = text.contains(':') && text.len() <= LENGTH_MAX;
        fine.then_some(Self(text))
    }

    /// What a form brings.
    pub(crate) fn new(name: &str, password: &str) -> Option<Self> {
        let fine = !name.contains(':') && name.len() + password.len() < LENGTH_MAX;
        fine.then(|| Self(format!("{name}:{password}")))
    }

    /// Whether they are these: takes the same time whatever differs, but for lengths.
    pub(crate) fn are(&self, username: &str, salt: &str, hash: &[u8; 32]) -> bool {
        let (name, password) = self.0.split_once(':').unwrap_or((&self.0, ""));
        let mut hashed = Context::new(&SHA256);
        hashed.update(salt.as_bytes());
        hashed.update(password.as_bytes());
        let same_name = verify_slices_are_equal(name.as_bytes(), username.as_bytes()).is_ok();
        let same_password = verify_slices_are_equal(hashed.finish().as_ref(), hash).is_ok();
        same_name & same_password
    }

    /// The octets, for a keyed hash.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Whether a field is of the Basic scheme, well-formed or not.
pub(crate) fn is_basic(field: &[u8]) -> bool {
    after_scheme(field).is_some()
}

/// What follows the scheme `Basic`, whose case does not matter.
fn after_scheme(field: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = field.trim_ascii().split_at_checked(5)?;
    let separated = rest.is_empty() || rest.first() == Some(&b' ');
    (scheme.eq_ignore_ascii_case(b"basic") && separated).then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_strictly() {
        for (field, want) in [
            ("Basic dTpw", Some("u:p")),
            ("bASIC  dTpw", Some("u:p")),
            ("Basic dTpwOng=", Some("u:p:x")),
            ("Basic dTo=", Some("u:")),
            ("Basic OnA=", Some(":p")),
            ("Basic w7w6w7w=", Some("ü:ü")),
            ("Basic dQ==", None),
            ("Basic", None),
            ("Basic ", None),
            ("Basicdtpw", None),
            ("Basic dTpw=", None),
            ("Basic dT pw", None),
            ("Basic /DpwAA", None),
            ("Bearer dTpw", None),
            ("", None),
        ] {
            let got = Credentials::parse(field.as_bytes());
            assert_eq!(got.map(|it| it.0), want.map(str::to_owned), "{field}");
        }
        let long = format!("Basic {}", STANDARD.encode("u:".to_owned() + &"p".repeat(2000)));
        assert_eq!(Credentials::parse(long.as_bytes()), None);
    }

    #[test]
    fn name_and_password_must_be_the_ones() {
        let hash = aws_lc_rs::digest::digest(&SHA256, b"saltp").as_ref().try_into().unwrap();
        for (name, password, want) in [
            ("u", "p", true),
            ("U", "p", false),
            ("u", "P", false),
            ("u", "", false),
            ("", "p", false),
            ("u", "tp", false),
        ] {
            let given = Credentials::new(name, password).unwrap();
            assert_eq!(given.are("u", "salt", &hash), want, "{name} {password}");
        }
        assert_eq!(Credentials::new("a:b", "p"), None);
    }
}
