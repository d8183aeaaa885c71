//! Programs in Python: clients and servers made of libraries that others wrote.
//!
//! `scripts/test` puts the libraries of `tests/python.txt` into `target/python`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::bed::Bed;

/// A running program; it ends when dropped.
pub(crate) struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
}

/// The interpreter with the libraries; it may be missing at the desk.
pub(crate) fn interpreter() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python/bin/python3")
}

/// Starts `proxy/tests/foreign/<script>`; nothing (only at the desk) if Python lacks the libraries.
pub(crate) fn start(script: &str, arguments: &[&str]) -> Option<Program> {
    let python = interpreter();
    if !python.exists() {
        assert!(std::env::var_os("CI").is_none(), "no {}", python.display());
        eprintln!("not run, {script}: no {}", python.display());
        return None;
    }
    Some(run(Command::new(python).arg("-B").arg(foreign(script)).args(arguments)))
}

fn foreign(script: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(script)
}

fn run(command: &mut Command) -> Program {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    Program { child, output }
}

/// Starts a server of a container that is written for Node, and waits until it listens; nothing (only at the
/// desk) if Node or its libraries are missing.
pub(crate) fn serve_node(script: &str, address: SocketAddr) -> Option<Program> {
    const LIBRARIES: &str = "/usr/share/nodejs";
    if !Path::new(LIBRARIES).join("ws").exists() {
        assert!(std::env::var_os("CI").is_none(), "no {LIBRARIES}/ws");
        eprintln!("not run, {script}: no {LIBRARIES}/ws");
        return None;
    }
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let mut node = Command::new("node");
    let mut program = run(node.env("NODE_PATH", LIBRARIES).arg(foreign(script)).args([ip, port]));
    program.says("ready");
    Some(program)
}

/// Starts a server of a container, and waits until it listens.
pub(crate) fn serve(script: &str, address: SocketAddr) -> Option<Program> {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let mut program = start(script, &[&ip, &port])?;
    program.says("ready");
    Some(program)
}

/// Starts a client of the edge that asks `host`.
pub(crate) fn ask(bed: &Bed, script: &str, host: &str, arguments: &[&str]) -> Option<Program> {
    let address = bed.https();
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let ca = bed.ca_path.to_str().unwrap();
    start(script, &[&[&*ip, &*port, host, ca], arguments].concat())
}

impl Program {
    /// Waits for the line that the program is to say next.
    pub(crate) fn says(&mut self, want: &str) {
        assert_eq!(self.line(), want, "the program's reasons are on the standard error");
    }

    /// The line that the program says next.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Tells the program to go on.
    pub(crate) fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Waits for the program's end, which must be a good one; returns what else it said.
    pub(crate) fn ends(mut self) -> String {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
        rest
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
