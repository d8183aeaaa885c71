//! What a container shall be: every field that a client may set, with its limits.

use std::collections::BTreeMap;

use crate::{ContainerId, FieldError, RealmId, ssh::SshPublicKey};

/// Counts the starts of one container; a new one for each, never used twice. Connections to a
/// container belong to a generation, because addresses are given to other tenants later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// The name of a container: 3 to 100 of `a-zA-Z0-9-_`, unique in its project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerName(String);

/// A colour, kept and shown as `#RRGGBB` in upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Color([u8; 3]);

/// The name of an image, `<os>/<release>`, at most 255 octets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName(String);

/// Environment variables: at most 256, keys of 1 to 128 of `a-zA-Z0-9_` not starting with a digit
/// and not with `HOODY_`, values of 1 to 4096 octets without NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

/// A free text of the owner, at most 16,000 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment(String);

/// Who shares what is in a container's `/ramdisk`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RamdiskScope {
    /// Nobody.
    #[default]
    Container,
    /// What is in `/ramdisk/project`: the containers of its project on its server that say the same.
    Project,
}

impl RamdiskScope {
    /// The word that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Project => "project",
        }
    }

    /// The scope with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Container, Self::Project].into_iter().find(|scope| scope.as_str() == word)
    }
}

/// What a container shall be. Immutable after creation: `image`, `hoody_kit`, `dev_kit`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one switch of the API, set by its name")]
pub struct ContainerSpec {
    /// Its name in the project.
    pub name: ContainerName,
    /// The colour that user interfaces show.
    pub color: Color,
    /// The image that its file system starts from.
    pub image: ImageName,
    /// Whether the Kit services are installed; without them no hostname leads to it.
    pub hoody_kit: bool,
    /// Whether the developer services are installed, too.
    pub dev_kit: bool,
    /// Whether AI features are on; stored and returned.
    pub ai: bool,
    /// Whether it starts after the host has rebooted.
    pub autostart: bool,
    /// Whether `/ramdisk` is mounted.
    pub ramdisk: bool,
    /// Who shares what is in `/ramdisk`.
    pub ramdisk_scope: RamdiskScope,
    /// Whether it has the host's `/dev/kvm`, and so virtual machines of its own.
    pub kvm: bool,
    /// Whether the image cache may be used.
    pub cache: bool,
    /// Its environment variables.
    pub environment: Environment,
    /// The key that opens it over SSH; unique across all containers.
    pub ssh_public_key: Option<SshPublicKey>,
    /// Whether SSH may carry connections to and from it, besides sessions.
    pub ssh_forwarding: bool,
    /// The owner's note.
    pub comment: Option<Comment>,
    /// The realms that it is visible in, sorted, without repetition, at most 64.
    pub realms: Vec<RealmId>,
}

impl ContainerName {
    /// Checks a name that a client chose; `field` names it in the error.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        let valid = (3..=100).contains(&text.len())
            && text
                .bytes()
                .all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(FieldError::new(field, "must be 3 to 100 letters, digits, hyphens or underscores"))
        }
    }

    /// The name that a container has while it waits in a warm pool.
    pub fn of_prespawned(id: ContainerId) -> Self {
        Self(format!("prespawn-{id}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Color {
    /// Reads `#RGB` or `#RRGGBB`, with or without `#`, in any case.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        let error =
            || FieldError::new(field, "must be a hexadecimal colour such as #3498DB or #39D");
        let digits = text.strip_prefix('#').unwrap_or(text);
        let mut six = [0; 6];
        match *digits.as_bytes() {
            [r, g, b] => six = [r, r, g, g, b, b],
            ref long if long.len() == 6 => six.copy_from_slice(long),
            _ => return Err(error()),
        }
        let mut rgb = [0; 3];
        hex::decode_to_slice(six, &mut rgb).map_err(|_not_hex| error())?;
        Ok(Self(rgb))
    }

    /// The colour with these components.
    pub const fn from_rgb(rgb: [u8; 3]) -> Self {
        Self(rgb)
    }

    /// The components, red, green, blue.
    pub const fn rgb(self) -> [u8; 3] {
        self.0
    }
}

impl std::fmt::Display for Color {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [r, g, b] = self.0;
        write!(f, "#{r:02X}{g:02X}{b:02X}")
    }
}

impl ImageName {
    /// The image of a container that names none.
    pub const DEFAULT: &'static str = "debian/13";

    /// Checks the form `<os>/<release>`; a wrong separator is refused with the right spelling.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        let part = |text: &str| {
            !text.is_empty()
                && !text.starts_with(['.', '-'])
                && text.bytes().all(|o| {
                    o.is_ascii_lowercase() || o.is_ascii_digit() || matches!(o, b'.' | b'-' | b'_')
                })
        };
        if text.len() <= 255
            && text.split_once('/').is_some_and(|(os, release)| part(os) && part(release))
        {
            return Ok(Self(text.to_owned()));
        }
        let rule = match text.split_once([':', '-', ' ']) {
            Some((os, release)) if part(os) && part(release) => {
                format!("must be <os>/<release>: write \"{os}/{release}\"")
            }
            _ => "must be <os>/<release> in lower case, such as \"debian/13\"".to_owned(),
        };
        Err(FieldError::new(field, rule))
    }

    /// `<os>/<release>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The operating system and its release.
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or((&self.0, ""))
    }
}

impl Environment {
    /// The most variables that a container may have.
    pub const COUNT_MAX: usize = 256;
    /// The longest key, in octets.
    pub const KEY_LEN_MAX: usize = 128;
    /// The longest value, in octets.
    pub const VALUE_LEN_MAX: usize = 4096;

    /// Checks all variables; every broken rule is reported, under `field.KEY`.
    pub fn parse(field: &str, vars: BTreeMap<String, String>) -> Result<Self, Vec<FieldError>> {
        let mut errors: Vec<FieldError> = vars
            .iter()
            .filter_map(|(key, value)| Self::check(&format!("{field}.{key}"), key, value))
            .collect();
        if vars.len() > Self::COUNT_MAX {
            errors.push(FieldError::new(field, "must hold at most 256 variables"));
        }
        if errors.is_empty() { Ok(Self(vars)) } else { Err(errors) }
    }

    /// Checks one variable.
    pub fn check(field: &str, key: &str, value: &str) -> Option<FieldError> {
        let rule = if let Some(fault) = KeyFault::of(key) {
            fault.rule()
        } else if !(1..=Self::VALUE_LEN_MAX).contains(&value.len()) {
            "the value must be 1 to 4096 octets"
        } else if value.contains('\0') {
            "the value must not contain NUL"
        } else {
            return None;
        };
        Some(FieldError::new(field, rule))
    }

    /// The variables, sorted by name.
    pub fn vars(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// What is wrong with the name of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// It is too long, or has other characters than it may have.
    Form,
    /// It starts with `HOODY_`.
    Reserved,
}

impl KeyFault {
    /// What is wrong with this name; nothing if it can be set.
    pub fn of(key: &str) -> Option<Self> {
        let form = (1..=Environment::KEY_LEN_MAX).contains(&key.len())
            && !key.starts_with(|c: char| c.is_ascii_digit())
            && key.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_');
        if !form {
            Some(Self::Form)
        } else if key.starts_with("HOODY_") {
            Some(Self::Reserved)
        } else {
            None
        }
    }

    /// The rule that it breaks.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Form => {
                "the name must be 1 to 128 letters, digits or underscores and not start with a digit"
            }
            Self::Reserved => "names that start with HOODY_ are reserved",
        }
    }
}

impl Comment {
    /// Checks the length.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        if text.chars().count() <= 16_000 {
            Ok(Self(text.to_owned()))
        } else {
            Err(FieldError::new(field, "must be at most 16000 characters"))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Sorts realms and drops repetitions; at most 64.
pub fn parse_realms(field: &str, texts: &[String]) -> Result<Vec<RealmId>, FieldError> {
    if texts.len() > 64 {
        return Err(FieldError::new(field, "must hold at most 64 realms"));
    }
    let mut realms = texts
        .iter()
        .enumerate()
        .map(|(at, text)| {
            text.parse().map_err(|error: crate::InvalidId| {
                FieldError::new(format!("{field}[{at}]"), error.to_string())
            })
        })
        .collect::<Result<Vec<RealmId>, FieldError>>()?;
    realms.sort_unstable();
    realms.dedup();
    Ok(realms)
}
