//! The only place of the binary that writes to the terminal.
//!
//! Results go to standard output, everything said to a person to standard error, so that
//! `gantry … -o json | …` carries results only. A closed pipe ends the output in silence: a reader
//! that has seen enough is no fault of ours.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::exit::{Class, Failure};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// The `data` of the answer, for programs.
    Json,
}

/// Whether a person sits at the other end of the input and can be asked.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// One line of a result.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    written(writeln!(io::stdout().lock(), "{text}"))
}

/// One line of a result that has no end; false when nobody reads it any more.
pub(crate) fn stream(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    let result = writeln!(out, "{text}").and_then(|()| out.flush());
    let closed = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    written(result).map(|()| !closed)
}

/// A JSON value, indented.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    line(&format!("{value:#}"))
}

/// Text as it is, without a line end of ours (shell completions).
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Columns under a header; values as they come, headers in capitals.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header.to_vec());
    table.add_rows(rows);
    line(&table.trim_fmt())
}

/// One line for the person, on standard error. Nothing can be done where that fails.
pub(crate) fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// A question for the person, on standard error, without a line end.
pub(crate) fn ask(question: &str) {
    let mut err = io::stderr().lock();
    drop(write!(err, "{question}").and_then(|()| err.flush()));
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Class::General, format!("cannot write to standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
