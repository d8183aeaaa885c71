//! `gantry upgrade`: asks the running Gantry, through the socket in the state directory, to have a new
//! process follow it, and tells what became of that.

use std::{io, path::Path};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
    sync::{mpsc, oneshot},
};

use super::{explain, files::Files};
use crate::{
    args::Upgrade,
    exit::{Class, Failure},
    output::{self, Format},
};

/// What is asked; no URL begins like that.
pub(super) const QUESTION: &str = "!upgrade\n";
/// What those hear that ask at the wrong moment.
const TOO_LATE: &str = "the process that was asked ends, or was followed just now";
/// The longest answer, in octets.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Who waits for the outcome of an upgrade: the new process, or why there is none.
pub(super) type Asker = oneshot::Sender<Result<Upgraded, String>>;

/// The process that runs after an upgrade.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Upgraded {
    pub(super) pid: u32,
    pub(super) version: String,
    /// The process that it has replaced, which ends with the last of what it has under way.
    pub(super) before: u32,
}

/// What is answered.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Upgraded(Upgraded),
    Failed(String),
}

/// Passes a question on, and answers it once the outcome is known.
pub(super) async fn answer(
    to: &mut (impl AsyncWrite + Unpin),
    upgrades: &mpsc::Sender<Asker>,
) -> io::Result<()> {
    let (asker, outcome) = oneshot::channel();
    let outcome = match upgrades.send(asker).await {
        Ok(()) => outcome.await.unwrap_or_else(|_| Err(TOO_LATE.to_owned())),
        Err(_ending) => Err(TOO_LATE.to_owned()),
    };
    let answer = outcome.map_or_else(Answer::Failed, Answer::Upgraded);
    to.write_all(&serde_json::to_vec(&answer)?).await?;
    to.shutdown().await
}

/// `gantry upgrade`
pub(crate) fn upgrade(command: &Upgrade, format: Format) -> Result<(), Failure> {
    let config = explain::config_of(command.state.as_deref(), &command.settings)?;
    let files = Files::new(&config.server.state);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    match runtime.block_on(ask(&files.socket())) {
        Ok(Answer::Upgraded(upgraded)) => match format {
            Format::Json => output::json(&serde_json::to_value(&upgraded).context("no JSON")?),
            Format::Table => output::line(&format!(
                "Gantry {} runs as process {}; process {} ends with what it has under way.",
                upgraded.version, upgraded.pid, upgraded.before
            )),
        },
        Ok(Answer::Failed(why)) => Err(Failure::new(Class::General, why)
            .hint("nothing was replaced: the Gantry that was running goes on")),
        Err(error) => {
            let message = format!("cannot ask through {}: {error}", files.socket().display());
            Err(Failure::new(Class::Unavailable, message)
                .hint("does Gantry run, and on this state directory?"))
        }
    }
}

async fn ask(socket: &Path) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(QUESTION.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(serde_json::from_slice(&answer)?)
}
