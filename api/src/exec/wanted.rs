//! What a request asks for.

use gantry_model::FieldError;
use http::Uri;

use super::{Command, TerminalSize};
use crate::{
    body::JsonObject,
    fields::{Field, Holds as Has},
    problem::Problem,
    query::{Holds, Param, Query},
};

/// All words of a command, and all variables, in octets: less than one message to the container may have.
const WORDS_MAX: usize = 96 << 10;
/// The longest login name and the longest path, in octets.
const USER_MAX: usize = 256;
const PATH_MAX: usize = 4095;
/// The size of a terminal whose client says none.
const SIZE: TerminalSize = TerminalSize { columns: 80, rows: 24 };
/// What is set for a terminal unless the client says so.
const TERM: (&str, &str) = ("TERM", "xterm");
/// How long a command may take, in seconds: unless said, and at most. An answer has to begin within 300 s.
const TIMEOUT: u32 = 30;
const TIMEOUT_MAX: u32 = 240;

const WHO: &str = "An account of the container by its login name; root unless given";
const WHERE: &str = "An absolute path to begin in; the account's home unless given";
const TTY: &str = "Whether it has a terminal, which output and errors are seen on together";

pub(super) static PARAMS: [Param; 10] = [
    Param::new("command", Holds::Texts, "Program and arguments, in order; without, a login shell"),
    Param::new(
        "stdin",
        Holds::Flag,
        "Whether input is sent; false unless given, and then it has none",
    ),
    Param::new("stdout", Holds::Flag, "Whether output is told; true unless given"),
    Param::new("stderr", Holds::Flag, "Whether errors are told; true unless given"),
    Param::new("tty", Holds::Flag, TTY),
    Param::new(
        "columns",
        Holds::Count { min: 1, max: 65_535 },
        "The terminal's width at first; 80",
    ),
    Param::new("rows", Holds::Count { min: 1, max: 65_535 }, "The terminal's height at first; 24"),
    Param::new("user", Holds::Text, WHO),
    Param::new("cwd", Holds::Text, WHERE),
    Param::new("env", Holds::Texts, "A variable, NAME=value"),
];

pub(super) static FIELDS: [Field; 7] = [
    Field::new("command", Has::Texts, "Program and arguments, at least one").required(),
    Field::new("stdin", Has::Text { min: 0, max: 1 << 20 }, "Its input; without, it has none"),
    Field::new("tty", Has::Flag, TTY),
    Field::new(
        "timeout_seconds",
        Has::Count,
        "How long it may take, 1 to 240 seconds; 30 when absent",
    ),
    Field::new("user", Has::Text { min: 1, max: USER_MAX }, WHO),
    Field::new("cwd", Has::Text { min: 1, max: PATH_MAX }, WHERE),
    Field::new("env", Has::TextMap, "Variables, which go before those of the container"),
];

/// What a session asks for.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) command: Command,
    /// Whether input is sent,
    pub(super) input: bool,
    /// and what is told.
    pub(super) output: bool,
    pub(super) errors: bool,
}

/// What is asked for with one answer.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) command: Command,
    pub(super) input: String,
    pub(super) timeout_s: u32,
}

impl Session {
    pub(super) fn read(uri: &Uri) -> Result<Self, Problem> {
        let mut query = Query::new(uri, &PARAMS);
        let (argv, env) = (query.texts("command"), query.texts("env"));
        let mut switch = |name, otherwise| query.switch(name).unwrap_or(otherwise);
        let (input, output) = (switch("stdin", false), switch("stdout", true));
        let (errors, tty) = (switch("stderr", true), switch("tty", false));
        let mut size = |name, otherwise| {
            query.count(name).and_then(|count| u16::try_from(count).ok()).unwrap_or(otherwise)
        };
        let size =
            TerminalSize { columns: size("columns", SIZE.columns), rows: size("rows", SIZE.rows) };
        let (user, directory) = (query.text("user"), query.text("cwd"));
        let variable = |text: String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            // Refused below, as one without a name.
            None => (String::new(), text),
        };
        let env = env.into_iter().map(variable).collect();
        let terminal = tty.then_some(size);
        let (command, mistakes) = command(argv, user, directory, env, terminal);
        for mistake in mistakes {
            query.refuse(mistake);
        }
        query.finish()?;
        Ok(Self { command, input, output, errors })
    }
}

impl Question {
    pub(super) fn read(body: JsonObject) -> Result<Self, Problem> {
        let mut fields = body.fields(&FIELDS);
        let argv = fields.texts("command").value();
        let input = fields.text("stdin").value().unwrap_or_default();
        let tty = fields.flag("tty").value().unwrap_or(false);
        let timeout_s = fields.count("timeout_seconds").value().unwrap_or(TIMEOUT);
        if !(1..=TIMEOUT_MAX).contains(&timeout_s) {
            let rule = format!("must be 1 to {TIMEOUT_MAX} seconds");
            fields.refuse_all([FieldError::new("timeout_seconds", rule)]);
        }
        let (user, directory) = (fields.text("user").value(), fields.text("cwd").value());
        let env = fields.text_map("env").value().unwrap_or_default().into_iter().collect();
        if argv.as_ref().is_some_and(Vec::is_empty) {
            let rule = "must have at least one word: a program";
            fields.refuse_all([FieldError::new("command", rule)]);
        }
        let argv = argv.unwrap_or_default();
        let (command, mistakes) = command(argv, user, directory, env, tty.then_some(SIZE));
        fields.refuse_all(mistakes);
        fields.finish(Some(Self { command, input, timeout_s }))
    }
}

/// A command and what is wrong with it.
fn command(
    argv: Vec<String>,
    user: Option<String>,
    directory: Option<String>,
    mut env: Vec<(String, String)>,
    terminal: Option<TerminalSize>,
) -> (Command, Vec<FieldError>) {
    let mut mistakes = Vec::new();
    let mut refuse = |is_wrong: bool, field: &str, rule: &str| {
        if is_wrong {
            mistakes.push(FieldError::new(field, rule));
        }
    };
    let user = user.unwrap_or_else(|| "root".to_owned());
    let has_nul = |text: &String| text.contains('\0');
    refuse(argv.first().is_some_and(String::is_empty), "command", "must begin with a program");
    refuse(argv.iter().any(has_nul), "command", "must have no NUL in it");
    let is_login = (1..=USER_MAX).contains(&user.len())
        && !user.contains(|it: char| it == ':' || it.is_control());
    refuse(!is_login, "user", "must be a login name: 1 to 256 octets without colon and controls");
    if let Some(path) = &directory {
        let is_path = path.starts_with('/') && path.len() <= PATH_MAX && !has_nul(path);
        refuse(!is_path, "cwd", "must be an absolute path of at most 4095 octets");
        refuse(argv.is_empty(), "cwd", "needs a command: a login shell begins at home");
    }
    let is_variable = |(name, value): &(String, String)| {
        !name.is_empty() && !name.contains(['=', '\0']) && !has_nul(value)
    };
    refuse(!env.iter().all(is_variable), "env", "must be NAME=value, with no NUL in it");
    let octets = argv.iter().map(String::len).sum::<usize>()
        + env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    refuse(octets > WORDS_MAX, "command", "must have, with env, at most 98304 octets");
    if terminal.is_some() && !env.iter().any(|(name, _)| name == TERM.0) {
        env.push((TERM.0.to_owned(), TERM.1.to_owned()));
    }
    (Command { user, argv, directory, env, terminal }, mistakes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Session, Problem> {
        Session::read(&format!("/x?{query}").parse().unwrap())
    }

    #[test]
    fn a_session_is_asked_for_as_kubernetes_does() {
        let asked =
            "command=sh&command=-c&command=a+b%26c&container=&stdin=True&stdout=True&tty=false";
        let Session { command, input, output, errors } = read(asked).unwrap();
        assert_eq!(command.argv, ["sh", "-c", "a b&c"], "in their order");
        assert_eq!((command.user.as_str(), command.terminal), ("root", None));
        assert!(input && output && errors);
        let shell = read("tty=1&env=A=b=c&env=TERM=vt100&user=ann&rows=50").unwrap();
        let want = [("A".to_owned(), "b=c".to_owned()), ("TERM".to_owned(), "vt100".to_owned())];
        assert_eq!(shell.command.env, want);
        assert_eq!(shell.command.terminal, Some(TerminalSize { columns: 80, rows: 50 }));
        assert!(shell.command.argv.is_empty() && !shell.input);
        let term = read("tty=true").unwrap().command.env;
        assert_eq!(term, [("TERM".to_owned(), "xterm".to_owned())]);
        assert_eq!(read(&"command=a&".repeat(1000)).unwrap().command.argv.len(), 1000);
    }

    #[test]
    fn what_no_process_can_have_is_refused() {
        let many = "command=a&".repeat(1001);
        for query in [
            "command=",
            "command=a%00b",
            "command=a&cwd=home",
            "cwd=/tmp",
            "user=",
            "user=a:b",
            "env=A",
            "env==a",
            "tty=perhaps",
            "tty=true&rows=0",
            "tty=true&tty=true",
            many.as_str(),
        ] {
            assert!(read(query).is_err(), "{query}");
        }
        // More than fits into an address; a body may have it.
        for (length, is_refused) in [(WORDS_MAX, false), (WORDS_MAX + 1, true)] {
            let (_, mistakes) = command(vec!["x".repeat(length)], None, None, Vec::new(), None);
            assert_eq!(!mistakes.is_empty(), is_refused, "{length}");
        }
    }
}
