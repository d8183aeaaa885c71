//! What a storage share says: which directory, under which name, and whether it may be written.

use std::fmt;

use crate::FieldError;

/// Below this every share is found in the container that receives it.
pub const MOUNT_DIR: &str = "/hoody/shares";

/// The longest path in octets.
pub const PATH_MAX: usize = 4096;

/// The longest description in characters.
pub const DESCRIPTION_MAX: usize = 1000;

/// What belongs to the kernel or to one run of a system, not to a container's files.
const REFUSED: [&str; 6] = ["/proc", "/sys", "/dev", "/boot", "/run", "/var/run"];

/// A directory inside a container, in its one spelling: absolute, without empty and `.` components.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharePath(String);

impl SharePath {
    /// Checks a path that a client chose; `field` names it in the error.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        let error = |rule: &str| Err(FieldError::new(field, rule));
        if !(1..=PATH_MAX).contains(&text.len()) || !text.starts_with('/') {
            return error("must be an absolute path of 1 to 4096 characters");
        }
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"/-_.".contains(&octet);
        if !text.bytes().all(plain) {
            return error("may have only letters, digits and the characters / - _ .");
        }
        if text.contains("..") {
            return error("must not have .. in it");
        }
        let parts = text.split('/').filter(|part| !part.is_empty() && *part != ".");
        let path = format!("/{}", parts.collect::<Vec<_>>().join("/"));
        let below = |dir: &str| {
            path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if REFUSED.iter().any(|dir| below(dir)) {
            return error("must not be under /proc, /sys, /dev, /boot, /run or /var/run");
        }
        if below(MOUNT_DIR) {
            return error("must not be under /hoody/shares: what was received is not passed on");
        }
        Ok(Self(path))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SharePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that an owner gives: an alias, which becomes the directory's name on the other side, or a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareName(String);

impl ShareName {
    /// Checks a name that a client chose; `field` names it in the error.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        let inner =
            |o: u8| o.is_ascii_lowercase() || o.is_ascii_digit() || matches!(o, b'-' | b'_');
        let outer = |o: Option<&u8>| o.is_some_and(|o| !matches!(o, b'-' | b'_'));
        let octets = text.as_bytes();
        if (3..=63).contains(&text.len())
            && octets.iter().all(|octet| inner(*octet))
            && outer(octets.first())
            && outer(octets.last())
        {
            return Ok(Self(text.to_owned()));
        }
        let rule = "must be 3 to 63 lower-case letters, digits and inner hyphens or underscores";
        Err(FieldError::new(field, rule))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the side that receives a share may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShareMode {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

impl ShareMode {
    /// Every mode.
    pub const ALL: [Self; 2] = [Self::ReadOnly, Self::ReadWrite];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "readonly",
            Self::ReadWrite => "readwrite",
        }
    }

    /// The mode of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_plain_and_of_the_containers_own_files() {
        let long = format!("/{}", "a".repeat(PATH_MAX));
        for (text, want) in [
            ("/data", Some("/data")),
            ("/", Some("/")),
            ("//srv/./data/", Some("/srv/data")), // one spelling
            ("/process", Some("/process")),       // not below /proc
            ("/opt/my_app-1.2", Some("/opt/my_app-1.2")),
            ("data", None),
            ("", None),
            ("/a/../etc", None),
            ("/a..b", None),
            ("/with space", None),
            ("/é", None),
            ("/a\0", None),
            ("/proc", None),
            ("/./proc/1", None), // as it is spelt after all
            ("/var//run/x", None),
            ("/hoody/shares/other", None),
            (long.as_str(), None),
        ] {
            let got = SharePath::parse("source_path", text).ok();
            assert_eq!(got.as_ref().map(SharePath::as_str), want, "{text:?}");
        }
    }

    #[test]
    fn a_name_can_be_a_directory() {
        let (longest, longer) = ("a".repeat(63), "a".repeat(64));
        for (text, is_valid) in [
            ("web", true),
            ("a_b-1", true),
            (longest.as_str(), true),
            ("ab", false),
            (longer.as_str(), false),
            ("-ab", false),
            ("ab_", false),
            ("a.b", false),
            ("a/b", false),
            ("ABC", false),
        ] {
            assert_eq!(ShareName::parse("alias", text).is_ok(), is_valid, "{text:?}");
        }
    }
}
