//! Aliases: chosen names that lead to one service of one container.

use std::borrow::Cow;

use crate::{
    FieldError, Scheme, Service, Target,
    access::Program,
    query::{escape, key, pairs, push, sets, split},
    route::{is_alias, starts_canonical},
};

/// The name of an alias: 3 to 61 of `a-z0-9-`, no hyphen at either end, neither reserved nor shaped
/// like a canonical label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AliasName(Box<str>);

/// Why a text is no name of an alias.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAlias {
    /// Its form.
    #[error("must be 3 to 61 lower-case letters, digits or inner hyphens")]
    Form,
    /// It begins like a canonical label: two ids joined by a hyphen.
    #[error("must not look like a container's own hostname")]
    Canonical,
    /// This name is reserved.
    #[error("{0} is reserved")]
    Reserved(String),
    /// Names that begin so are reserved.
    #[error("names that begin with {0} are reserved")]
    ReservedPrefix(String),
}

impl AliasName {
    /// Checks a name that a client chose.
    pub fn parse(text: &str) -> Result<Self, InvalidAlias> {
        if starts_canonical(text) {
            return Err(InvalidAlias::Canonical);
        }
        if text == "containers" || is_service(text) {
            return Err(InvalidAlias::Reserved(text.to_owned()));
        }
        if !is_alias(text) {
            return Err(InvalidAlias::Form);
        }
        match text.split_once('-') {
            Some((name, _)) if is_service(name) => {
                Err(InvalidAlias::ReservedPrefix(format!("{name}-")))
            }
            _ => Ok(Self(text.into())),
        }
    }

    /// The name that these random octets make, for a client that chooses none: 48 hexadecimal digits.
    pub fn random(octets: [u8; 24]) -> Self {
        Self(hex::encode(octets).into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether hostnames have, or once had, a service of this name.
fn is_service(text: &str) -> bool {
    matches!(text, "http" | "https" | "ssh" | "notifications") || Service::from_slug(text).is_some()
}

/// What an alias or a custom hostname leads to, in its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AliasTarget {
    /// A port.
    Port {
        /// How the port is spoken to.
        scheme: Scheme,
        /// Its number, at least 1.
        port: u16,
    },
    /// A Kit service.
    Kit {
        /// Which.
        service: Service,
        /// Its instance.
        index: u16,
    },
    /// SSH, which browsers are told how to use.
    Ssh,
}

/// Why program, port and index name no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// `http` and `https` need a port: `port`, `http-<port>` or, as once, `index`.
    #[error("port: is required for http and https")]
    PortRequired,
    /// A field breaks its rule.
    #[error(transparent)]
    Field(#[from] FieldError),
}

impl AliasTarget {
    /// Reads what a client says: a program (`terminal`, `tty`, `http`, `http-3000` …), and perhaps a
    /// port, which only `http` and `https` look at, and an index, which is 1 when absent. Of several
    /// ports `port` goes first, then the one in the program, then the index.
    pub fn parse(
        program: &str,
        port: Option<i64>,
        index: Option<i64>,
    ) -> Result<Self, InvalidTarget> {
        let (name, inner) = match program.split_once('-') {
            Some((name @ ("http" | "https"), inner)) => (name, Some(inner)),
            _ => (program, None),
        };
        let scheme = match name {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "ssh" => return Ok(Self::Ssh),
            // Known to hostnames, but no alias has ever led there.
            "workspaces" => return Err(unknown_program()),
            _ => {
                let service = Service::from_synonym(name).ok_or_else(unknown_program)?;
                let (min, max) = (service.index_min().max(1), service.index_max());
                let index = number("index", index.unwrap_or(1), min, max)?;
                return Ok(Self::Kit { service, index });
            }
        };
        let inner = match inner {
            None => None,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|o| o.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_too_long| unknown_program())?)
            }
            Some(_) => return Err(unknown_program()),
        };
        let (field, port) = match (port, inner, index) {
            (Some(port), _, _) => ("port", port),
            (None, Some(port), _) => ("program", port),
            (None, None, Some(port)) => ("index", port),
            (None, None, None) => return Err(InvalidTarget::PortRequired),
        };
        Ok(Self::Port { scheme, port: number(field, port, 1, u16::MAX)? })
    }

    /// The program, in its one spelling.
    pub fn program(&self) -> Program {
        Program::of(&Target::from(*self))
    }

    /// The index or port; SSH has none.
    pub const fn number(&self) -> Option<u16> {
        match self {
            Self::Port { port, .. } => Some(*port),
            Self::Kit { index, .. } => Some(*index),
            Self::Ssh => None,
        }
    }
}

fn unknown_program() -> InvalidTarget {
    FieldError::new("program", "must be http, https, ssh or a service of the Kit").into()
}

fn number(field: &str, value: i64, min: u16, max: u16) -> Result<u16, InvalidTarget> {
    let number = u16::try_from(value).ok().filter(|number| (min..=max).contains(number));
    let rule = || FieldError::new(field, format!("must be a number from {min} to {max}"));
    Ok(number.ok_or_else(rule)?)
}

impl From<AliasTarget> for Target<'_> {
    fn from(target: AliasTarget) -> Self {
        match target {
            AliasTarget::Port { scheme, port } => Self::Port { scheme, port },
            AliasTarget::Kit { service, index } => Self::Kit { service, index, sub: None },
            AliasTarget::Ssh => Self::Ssh,
        }
    }
}

/// Where `/` of an alias leads: a path that begins with `/`, perhaps with a query; at most 2,048
/// octets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Landing {
    /// The path and query, as a request line has them.
    path_and_query: String,
    /// Whether nothing but `/` and the landing path exists.
    pinned: bool,
}

/// What a landing makes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landed {
    /// It goes on as it came.
    Unchanged,
    /// It goes on with this path and query.
    Rewritten(String),
    /// The alias is pinned to another path: 404.
    Pinned404,
}

impl Landing {
    /// The longest path and query, in octets.
    pub const LEN_MAX: usize = 2048;

    /// Checks a path, perhaps with a query, that a client chose; a `/` is put in front of one without.
    /// An alias that is pinned, but has no path, has the landing `/`.
    pub fn parse(field: &str, text: &str, pinned: bool) -> Result<Self, FieldError> {
        let error = |rule| Err(FieldError::new(field, rule));
        let slash = if text.starts_with('/') { "" } else { "/" };
        let path_and_query = format!("{slash}{text}");
        if path_and_query.len() > Self::LEN_MAX {
            return error("must be at most 2048 octets");
        }
        if !is_target(path_and_query.as_bytes()) {
            return error(
                "must be a path, perhaps with a query, as URLs have it: other characters than \
                 letters, digits and punctuation are written as %XX",
            );
        }
        let (path, _) = split(&path_and_query);
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return error("must not contain the segments . and ..");
        }
        Ok(Self { path_and_query, pinned })
    }

    /// The path and query.
    pub fn as_str(&self) -> &str {
        &self.path_and_query
    }

    /// Whether nothing but `/` and the landing path exists.
    pub const fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// What becomes of a request for this path and query. A request for `/` goes to the landing path;
    /// the keys of its query win over the caller's, which for the rest is kept.
    pub fn apply(&self, path_and_query: &str) -> Landed {
        let (path, query) = split(path_and_query);
        let (own_path, own_query) = split(&self.path_and_query);
        if path != "/" && !(self.pinned && path == own_path) {
            return if self.pinned { Landed::Pinned404 } else { Landed::Unchanged };
        }
        let mut own_keys: Vec<Cow<'_, [u8]>> = pairs(own_query).map(key).collect();
        own_keys.sort_unstable();
        let is_own = |key: &[u8]| own_keys.binary_search_by(|own| (**own).cmp(key)).is_ok();
        let mut target = self.path_and_query.clone();
        for pair in pairs(query).filter(|pair| !sets(pair, is_own)) {
            push(&mut target, pair);
        }
        if target == path_and_query { Landed::Unchanged } else { Landed::Rewritten(target) }
    }
}

/// Whether these octets may stand in a request line (RFC 3986, sections 3.3 and 3.4).
fn is_target(octets: &[u8]) -> bool {
    let mut rest = octets;
    while let [first, tail @ ..] = rest {
        let fits = first.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(first);
        let escaped =
            *first == b'%' && tail.first_chunk().is_some_and(|digits| escape(*digits).is_some());
        if !fits && !escaped {
            return false;
        }
        rest = tail;
    }
    true
}
