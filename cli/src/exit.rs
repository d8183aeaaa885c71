//! How a command ends: a message for the person and an exit code that scripts can branch on.

use std::{fmt, process::ExitCode};

/// The classes of failure and their exit codes; `gantry --help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Anything that has no class of its own.
    General,
    /// The command line makes no sense (the code that clap uses as well).
    Usage,
    /// No credential, a wrong one, or one that may not do this.
    Denied,
    /// The thing does not exist, or the caller may not see it.
    NotFound,
    /// The state of the thing forbids it, or a name is taken.
    Conflict,
    /// A value was refused.
    Invalid,
    /// The API cannot be reached or cannot answer now.
    Unavailable,
    /// `--wait` came to its end before the condition held.
    TimedOut,
    /// The configuration has errors.
    Configuration,
    /// A session in a container ended before its command did.
    Severed,
}

/// What `--help` says about exit codes.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
  0  done
  1  any other failure
  2  wrong usage of the command line
  3  not logged in, or not allowed
  4  not found
  5  conflict: the state forbids it, or a name is taken
  6  a value was refused
  7  the API cannot be reached or cannot answer now
  8  --wait ended before the condition held
  9  the configuration has errors
  255  a session in a container broke off; `exec` and `ssh` else have the command's own

Environment:
  GANTRY_API_URL        where the API answers, such as https://api.gantry.localhost:8443
  GANTRY_TOKEN          the credential: a token (hdy_…) or a session
  GANTRY_CA             a PEM file with the CA to trust instead of the system's
  GANTRY_CONNECT        the address to connect to, instead of looking the name up
  GANTRY_SECTION__KEY   overrides a key of the configuration, such as GANTRY_EDGE__HTTPS";

impl Class {
    const fn code(self) -> u8 {
        match self {
            Self::General => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::Invalid => 6,
            Self::Unavailable => 7,
            Self::TimedOut => 8,
            Self::Configuration => 9,
            Self::Severed => 255,
        }
    }

    /// The class of an HTTP status that is no success.
    pub(crate) const fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Denied,
            404 | 410 => Self::NotFound,
            409 | 412 | 428 => Self::Conflict,
            408 | 425 | 429 | 500..=599 => Self::Unavailable,
            400..=499 => Self::Invalid,
            _ => Self::General,
        }
    }
}

/// Why a command failed, in words for the person who typed it.
#[derive(Debug)]
pub(crate) struct Failure {
    class: Class,
    message: String,
    hints: Vec<String>,
}

impl Failure {
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hints: Vec::new() }
    }

    /// Adds a line that says what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Whether the thing that was asked for does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.class == Class::NotFound
    }

    /// Whether the same may be possible a little later.
    pub(crate) fn may_pass(&self) -> bool {
        self.class == Class::Unavailable
    }

    #[cfg(test)]
    pub(crate) fn class(&self) -> Class {
        self.class
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.class.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        self.hints.iter().try_for_each(|hint| write!(f, "\n  {hint}"))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Class::General, format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_one_class() {
        for (status, class) in [
            (400, Class::Invalid),
            (401, Class::Denied),
            (403, Class::Denied),
            (404, Class::NotFound),
            (409, Class::Conflict),
            (422, Class::Invalid),
            (429, Class::Unavailable),
            (500, Class::Unavailable),
            (503, Class::Unavailable),
            (302, Class::General),
        ] {
            assert_eq!(Class::of_status(status), class, "status {status}");
        }
    }

    #[test]
    fn hints_stand_below_the_message() {
        let failure = Failure::new(Class::Denied, "not logged in").hint("run `gantry login`");
        assert_eq!(failure.to_string(), "error: not logged in\n  run `gantry login`");
        assert_eq!(failure.class(), Class::Denied);
    }
}
