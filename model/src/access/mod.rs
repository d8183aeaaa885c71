//! Who may pass: the permission documents of projects and containers.
//!
//! A document names *groups* (ways to prove something: a token, a password, a signed claim, an
//! address) and says which service each group opens. Groups are alternatives: one that grants is
//! enough. Credentials are checked elsewhere; what a request has proved comes in as a set of groups,
//! and the decision is a function of that and the document.

mod demand;
mod method;
mod policy;
mod print;
mod program;
mod read;

use std::collections::BTreeMap;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

pub use demand::Demand;
pub use policy::{Caller, Decision, GroupSet, Policy, Reason};
pub use program::Program;

/// The name of a group: 1 to 64 of `a-zA-Z0-9_-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(String);

/// What the permission document of a project or a container says.
///
/// Its JSON form, which is stored and sent, is [`Document::to_json`]; clients' documents are read
/// with [`Document::parse`], stored ones with [`Document::from_stored`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Each group: any one of its ways is enough. At most 64 groups of 1 to 16 ways.
    pub groups: BTreeMap<GroupName, Vec<Method>>,
    /// What each group opens, by the name of the program. A container's document may name groups of
    /// its project's.
    pub permissions: BTreeMap<GroupName, BTreeMap<Program, Access>>,
    /// What happens to requests that no group decides about.
    pub default: Fallback,
    /// Whether requests pass at all; a container's document that does not say it follows its
    /// project's.
    pub enable_proxy: Option<bool>,
}

/// What happens when no matched group says anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// The request passes.
    Allow,
    /// The request is refused.
    #[default]
    Deny,
}

/// One way to belong to a group.
#[derive(Clone, PartialEq, Eq)]
pub enum Method {
    /// A signed token (RFC 7519).
    Jwt {
        /// How it must be signed; a token that names another algorithm proves nothing.
        algorithm: JwtAlgorithm,
        /// The secret's octets (HS256), or the public key in PEM; 1 to 8192 octets.
        key: String,
        /// Where it may stand; at least one place.
        sources: Vec<Source>,
        /// Claims that must have exactly these values; at most 32.
        claims: BTreeMap<String, Claim>,
    },
    /// A name and a password (HTTP Basic, RFC 7617).
    Password {
        /// The name, compared exactly.
        username: String,
        /// The salt, put before the password.
        salt: String,
        /// SHA-256 of salt and password.
        hash: [u8; 32],
    },
    /// The client's address lies in this range.
    Ip(IpNet),
    /// A fixed value in one place.
    Token {
        /// Where it stands.
        place: Place,
        /// The value, compared exactly and in constant time.
        value: String,
    },
}

/// Signature algorithms of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

/// Where a signed token may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A header field, lower-case; `Bearer ` before the token is skipped.
    Header(String),
    /// A cookie, by its exact name.
    Cookie(String),
}

/// Where a fixed token stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A header field, lower-case.
    Header(String),
    /// A cookie, by its exact name.
    Cookie(String),
    /// A parameter of the query, by its exact name.
    Param(String),
}

/// The value that a claim must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Text.
    Text(String),
    /// A number, in the shortest decimal form that JSON has for it, so that `1` and `1.0` are equal.
    Number(String),
    /// True or false.
    Bool(bool),
}

/// What a group opens of one program. Numbers are indexes for Kit services and ports for `http` and
/// `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// `true`: all of it.
    All,
    /// `"*"`: all of it, but `logs`, which wants a literal `true`.
    Star,
    /// `false`: none of it.
    None,
    /// This one.
    Number(u16),
    /// These, 1 to 256.
    Numbers(Vec<u16>),
    /// `"a-b"`, both ends included.
    Range(u16, u16),
}

impl Document {
    /// The most octets that the JSON form of a document may have.
    pub const LEN_MAX: usize = 256 * 1024;
    /// The most groups that a document may have.
    pub const GROUPS_MAX: usize = 64;
    /// The most ways to belong to one group.
    pub const METHODS_MAX: usize = 16;

    /// What a document that a small write creates (one group, one cell, one switch) starts from. It
    /// must not open what was closed a moment before: where the project has a document its default
    /// is taken over, else the container was open and stays so.
    pub fn initial(project: Option<&Self>) -> Self {
        let default = project.map_or(Fallback::Allow, |project| project.default);
        Self { default, ..Self::default() }
    }
}

/// What is stored of a password: SHA-256 of the salt and the password.
pub fn hash_password(salt: &str, password: &str) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(password).finalize().into()
}

impl Access {
    /// Whether it opens this number of this program; `None` for a program without numbers.
    pub fn grants(&self, program: Program, number: Option<u16>) -> bool {
        match self {
            Self::All => true,
            Self::Star => program != Program::LOGS,
            Self::None => false,
            Self::Number(only) => number == Some(*only),
            Self::Numbers(these) => number.is_some_and(|number| these.contains(&number)),
            Self::Range(from, to) => number.is_some_and(|number| (*from..=*to).contains(&number)),
        }
    }
}

impl std::fmt::Debug for Method {
    /// Without secrets: this text may reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Jwt { .. } => "Jwt",
            Self::Password { .. } => "Password",
            Self::Ip(_) => "Ip",
            Self::Token { .. } => "Token",
        })
    }
}

impl GroupName {
    /// Checks a name that a client chose; `field` names it in the error.
    pub fn parse(field: &str, text: &str) -> Result<Self, crate::FieldError> {
        let octet = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'_' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(octet) {
            Ok(Self(text.to_owned()))
        } else {
            let rule = "must be 1 to 64 letters, digits, hyphens or underscores";
            Err(crate::FieldError::new(field, rule))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
