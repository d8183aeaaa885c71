//! The program: what it does is the first word of its command line.
//!
//! `serve` is the helper itself, one for each container. It runs on one thread, reads no file that a user
//! of the container may have made slow, and starts everything else by executing itself again: a process
//! of one thread may give up its rights, make a session and then become what was asked for, all without
//! `unsafe`; and what it reads or waits for concerns nobody else.

mod account;
mod connect;
mod environment;
mod errand;
mod exit;
mod files;
mod launch;
mod listen;
mod modes;
mod process;
mod relay;
mod serve;
mod sftp;
mod signals;
mod terminal;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

const USAGE: &str = "gantry-session runs inside a container for its SSH sessions and commands.

gantry-session serve SOCKET [SECONDS]  serve the edge that listens on this SOCK_SEQPACKET socket (`-`: it is
                                       the standard input); end after that long without anything open (60)
gantry-session sftp                    serve files by SFTP on the standard input and output, as whoever
                                       starts it
gantry-session run ...                 used by `serve`: become a session's process
gantry-session errand ...              used by `serve`: open a socket as a user
";

/// Does what the arguments say.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter().skip(1);
    let done = match arguments.next().as_deref().and_then(|word| word.to_str()) {
        Some("serve") => serve::main(arguments.collect()),
        Some("run") => launch::main(arguments.collect()),
        Some("errand") => errand::main(&arguments.collect::<Vec<_>>()),
        Some("sftp") => sftp::main(),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, USAGE)),
    };
    done.unwrap_or_else(|error| {
        say(&format!("gantry-session: {error}"));
        ExitCode::FAILURE
    })
}

/// An error of the system in its words, as other programs say it: without its number.
fn plain(error: &io::Error) -> String {
    let words = error.to_string();
    words.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Writes a line to the standard error; without a reader there is nobody left to tell.
fn say(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}
