//! What a project is.

use crate::{FieldError, RealmId, container::Color};

/// The alias of a project: 1 to 100 characters without control characters, unique per owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectAlias(String);

/// Every field of a project that its owner may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectSpec {
    /// Its name for people.
    pub alias: ProjectAlias,
    /// The colour that user interfaces show.
    pub color: Color,
    /// The most containers that it may hold; unlimited when absent.
    pub max_containers: Option<u32>,
    /// The realms that it is visible in, sorted, without repetition.
    pub realms: Vec<RealmId>,
}

/// What a member of a project may do with it and with all that is in it; each level includes those
/// before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// See it.
    Read,
    /// Change it, and say who else is a member.
    Edit,
    /// Delete it.
    Delete,
}

impl Level {
    /// Every level, the least first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Edit, Self::Delete];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Edit => "edit",
            Self::Delete => "delete",
        }
    }

    /// The level of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }
}

impl ProjectAlias {
    /// Checks an alias that a client chose; `field` names it in the error.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        let valid = (1..=100).contains(&text.chars().count())
            && !text.chars().any(char::is_control)
            && text.trim() == text;
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(FieldError::new(
                field,
                "must be 1 to 100 characters without control characters or outer spaces",
            ))
        }
    }

    /// The alias.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
