//! One connection of OpenSSH's client that carries channels of other calls of it, and what it forwards.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    net::SocketAddr,
    process::Stdio,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UnixListener},
    process::{Child, ChildStdin, Command},
};

use crate::bed::{Bed, PATIENCE, output, text};

pub(crate) struct Master<'a> {
    pub(crate) bed: &'a Bed,
    path: String,
    child: Child,
    stdin: ChildStdin,
}

impl<'a> Master<'a> {
    /// Connects, and returns when others can use it.
    pub(crate) async fn new(bed: &'a Bed, options: &[&str]) -> Self {
        let path = format!("-oControlPath={}", bed.path("control").display());
        let mut ssh = bed.ssh(&[&["-oControlMaster=yes", &path], options].concat());
        ssh.arg("echo in; exec cat").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = ssh.spawn().unwrap();
        let mut line = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut line).await.unwrap();
        let stdin = child.stdin.take().unwrap();
        Self { bed, path, child, stdin }
    }

    /// Another call of the client, through it.
    pub(crate) fn ssh(&self, options: &[&str]) -> Command {
        self.bed.ssh(&[&[self.path.as_str()], options].concat())
    }

    pub(crate) fn run(&self, command: &str) -> Command {
        let mut ssh = self.ssh(&[]);
        ssh.arg(command);
        ssh
    }

    /// Adds a forward. Returns what the client says: the port, if that is the server's choice.
    pub(crate) async fn forward(&self, options: &[&str]) -> String {
        text(self.ssh(&[&["-Oforward"], options].concat())).await.trim().to_owned()
    }

    /// Adds a forward that is refused.
    pub(crate) async fn refuses(&self, options: &[&str]) {
        let ended = output(self.ssh(&[&["-Oforward"], options].concat())).await;
        assert!(!ended.status.success(), "{options:?}");
    }

    /// Ends a forward.
    pub(crate) async fn cancel(&self, options: &[&str]) {
        text(self.ssh(&[&["-Ocancel"], options].concat())).await;
    }

    /// It still works; ends it.
    pub(crate) async fn end(self) {
        drop(self.stdin);
        let ended = tokio::time::timeout(PATIENCE, self.child.wait_with_output()).await;
        assert!(ended.unwrap().unwrap().status.success());
    }
}

/// A port that nobody has at the moment, and none of those that the kernel gives to whoever asks for any.
pub(crate) async fn free_port() -> u16 {
    loop {
        let chance = RandomState::new().build_hasher().finish();
        let port = 10_000 + u16::try_from(chance % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return port;
        }
    }
}

/// Answers each connection, once all that was sent has come, with that.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    stream.write_all(&all).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// A server that echoes when its input has ended.
pub(crate) async fn echo_tcp(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    address
}

pub(crate) fn echo_unix(path: &std::path::Path) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
}

/// Sends this, ends it, and expects it back.
pub(crate) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: S, what: &[u8]) {
    let (mut from, mut to) = tokio::io::split(stream);
    let sending = async {
        to.write_all(what).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let both = async { tokio::join!(sending, from.read_to_end(&mut back)).1.unwrap() };
    tokio::time::timeout(PATIENCE, both).await.expect("an echo");
    assert!(back == what, "{} octets came back of {}", back.len(), what.len());
}
