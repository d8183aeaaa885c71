//! What is said to a person while something takes long: a line on the terminal that goes away when it is done.
//!
//! Nothing of it reaches a file, a program or a terminal that cannot move its cursor, and whoever has asked for
//! plain output or JSON sees none either.

use std::{
    env,
    io::{self, IsTerminal as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Format;

/// How often the line moves.
const TICK: Duration = Duration::from_millis(100);

/// The line of one command, or none. Dropping it takes the line away.
pub(super) struct Progress {
    line: Option<ProgressBar>,
    doing: String,
}

impl Progress {
    /// Says what is being done, if there is somebody to say it to.
    pub(super) fn start(out: Format, doing: impl Into<String>) -> Self {
        let (doing, plain) = (doing.into(), env::var_os("NO_COLOR"));
        let said = Said {
            is_terminal: io::stderr().is_terminal(),
            is_dumb: env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb"),
            is_plain: plain.is_some_and(|value| !value.is_empty()),
        };
        let line = said.shows(out).then(|| line(&doing));
        Self { line, doing }
    }

    /// Says nothing.
    pub(super) fn none() -> Self {
        Self { line: None, doing: String::new() }
    }

    /// Whether somebody sees it: then it is asked often where things stand, not once for their end.
    pub(super) fn is_shown(&self) -> bool {
        self.line.is_some()
    }

    /// Says where it stands.
    pub(super) fn phase(&self, phase: &str) {
        if let Some(line) = &self.line {
            line.set_message(format!("{}: {phase}", self.doing));
            line.tick();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
    }
}

fn line(doing: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
    line.set_message(doing.to_owned());
    line.enable_steady_tick(TICK);
    line
}

/// What is known of the other end of the output.
#[derive(Clone, Copy)]
struct Said {
    is_terminal: bool,
    is_dumb: bool,
    is_plain: bool,
}

impl Said {
    const fn shows(self, out: Format) -> bool {
        matches!(out, Format::Table) && self.is_terminal && !self.is_dumb && !self.is_plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_that_wants_it_sees_a_line() {
        let person = Said { is_terminal: true, is_dumb: false, is_plain: false };
        assert!(person.shows(Format::Table));
        assert!(!person.shows(Format::Json));
        for said in [
            Said { is_terminal: false, ..person },
            Said { is_dumb: true, ..person },
            Said { is_plain: true, ..person },
        ] {
            assert!(!said.shows(Format::Table));
        }
    }
}
