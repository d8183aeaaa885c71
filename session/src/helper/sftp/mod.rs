//! SFTP, version 3, with what OpenSSH adds to it, as the user that this process already is.
//!
//! One process serves one channel, one request after the other, and may wait for a file or for its client
//! as long as it likes; nothing else runs in it. Clients send many requests ahead, which are read from a
//! buffer, and answers are collected as long as there are requests in it.
//!
//! Names are text in the library that reads the packets: one that is not UTF-8 is listed with replacement
//! characters, and refused in requests, so that no file is taken for another one.

mod attributes;
mod extensions;
mod handles;
mod requests;
mod status;
mod stream;

use std::{io, path::PathBuf, process::ExitCode};

use russh_sftp::server::{Config, run_with_config};
use rustix::process::getuid;
use tokio::sync::oneshot;

use self::{handles::Handles, stream::Standard};
use super::account::{self, Account};

/// The longest packet, and what OpenSSH reads and writes at most at once, in octets.
const PACKET_LEN_MAX: u32 = 256 * 1024;
const DATA_LEN_MAX: u32 = PACKET_LEN_MAX - 1024;

/// Serves standard input and output to their end, as whoever this process is.
pub(super) fn main() -> io::Result<ExitCode> {
    serve(&Account::of(getuid().as_raw()))
}

/// Serves standard input and output to their end.
pub(super) fn serve(account: &Account) -> io::Result<ExitCode> {
    let stream = Standard::new()?;
    let (gone, end) = oneshot::channel();
    let server = Server {
        handles: Handles::default(),
        home: account.home.clone(),
        users: account::names("/etc/passwd".as_ref()),
        groups: account::names("/etc/group".as_ref()),
        _gone: gone,
    };
    let config = Config { max_client_packet_len: PACKET_LEN_MAX };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        run_with_config(stream, server, config).await;
        // The library runs it in a task of its own, and tells nobody when that has ended.
        end.await.unwrap_or_default();
    });
    Ok(ExitCode::SUCCESS)
}

/// What a channel has.
struct Server {
    handles: Handles,
    home: PathBuf,
    users: Vec<(u32, String)>,
    groups: Vec<(u32, String)>,
    /// Goes with it.
    _gone: oneshot::Sender<()>,
}
