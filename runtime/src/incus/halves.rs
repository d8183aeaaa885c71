//! What is left of copies that were given up.
//!
//! Incus ends few of its operations before their time, and no copy. One that nobody waits for any more goes
//! on by itself, and its half can be removed when it has ended.

use std::{sync::Arc, time::Duration};

use http::Method;

use super::{
    client::{Client, Fault},
    instance,
    lifecycle::Inner,
    wire::{NewInstance, Operations},
};
use crate::{
    Error, Result,
    embedded::{copies::UnderWay, copy::GiveUp},
};

/// How long it may take to move the files of a container: they are as many as they are.
pub(super) const FILES_TIMEOUT: Duration = Duration::from_hours(12);

/// How often a copy under way looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// How long one call waits for an operation that nobody else waits for.
const ROUND: Duration = Duration::from_mins(1);

/// The pauses between attempts to remove something: the first, doubled each time, and how many.
const PAUSE: Duration = Duration::from_secs(1);
const ATTEMPTS_MAX: u32 = 12;

/// What became of a copy.
pub(super) enum Copied {
    /// All files are there.
    Whole,
    /// It was told to give way.
    GivenUp,
}

impl Inner {
    /// Has something removed, again and again for about an hour; what stays is removed by the next start.
    pub(super) fn later<F>(self: &Arc<Self>, removal: impl Fn(Arc<Self>) -> F + Send + 'static)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let Ok(handle) = tokio::runtime::Handle::try_current() else { return };
        let (inner, shutdown) = (Arc::clone(self), self.shutdown.clone());
        let removing = async move {
            for attempt in 1..=ATTEMPTS_MAX {
                let Err(error) = removal(Arc::clone(&inner)).await else { return };
                tracing::warn!(%error, attempt, "what is not needed any more stays for now");
                tokio::time::sleep(PAUSE * (1 << (attempt - 1))).await;
            }
        };
        // Its tasks hold the runtime, which tells them that it ends.
        let removing = async move { shutdown.run_until_cancelled(removing).await };
        self.tasks.spawn_on(removing, &handle);
    }

    /// Has Incus make a container by copying files, for as long as it says that it does so. What is given up,
    /// or ends in a way that nobody knows, is removed when it has ended.
    pub(super) async fn make_copy(
        self: &Arc<Self>,
        new: &NewInstance<'_>,
        under_way: &UnderWay,
    ) -> Result<Copied, Fault> {
        let begun = self.client.start(Method::POST, "/1.0/instances", Some(new)).await;
        let operation = match begun {
            Ok(None) => return Ok(Copied::Whole),
            Ok(Some(operation)) => operation,
            Err(fault) => {
                // What is refused has left nothing.
                if !fault.is_refusal() {
                    self.abandon(new.name, None);
                }
                return Err(fault);
            }
        };
        let ended = outcome(&self.client, &operation, &under_way.give_up()).await;
        let is_over = match &ended {
            Ok(Copied::Whole) => true,
            Ok(Copied::GivenUp) => false,
            Err(fault) => fault.is_refusal(),
        };
        if !is_over {
            self.abandon(new.name, Some(operation));
        }
        ended
    }

    /// Has what a copy is making removed when it has ended.
    fn abandon(self: &Arc<Self>, name: &str, operation: Option<String>) {
        let name = name.to_owned();
        self.later(move |inner| {
            let (name, operation) = (name.clone(), operation.clone());
            async move {
                if let Some(operation) = operation {
                    inner.cancel_or_wait(&operation).await;
                }
                inner.discard_half(&name).await
            }
        });
    }

    /// Ends an operation, or waits for its end.
    async fn cancel_or_wait(&self, operation: &str) {
        if let Err(fault) = self.client.cancel(operation).await {
            tracing::debug!(%fault, operation, "an operation is waited for");
        }
        // However it ends, also that nobody knows it any more.
        while let Err(Fault::Late { .. }) = self.client.wait(operation, ROUND).await {}
    }

    /// Removes what a copy left, unless somebody has made it whole meanwhile.
    async fn discard_half(self: &Arc<Self>, name: &str) -> Result<()> {
        let (own, fresh) = (instance::id(name), instance::fresh(name));
        // Nobody makes it anew while it is removed.
        let _busy = match (own.or(fresh), instance::snapshot(name)) {
            (Some(id), _) => Some(self.locks.lock(id).await),
            (None, Some(snapshot)) => Some(self.snapshot_locks.lock(snapshot).await),
            (None, None) => None,
        };
        match (self.named(name).await?, own) {
            (None, _) => Ok(()),
            (Some(whole), _) if instance::is_made(&whole) => Ok(()),
            (Some(_), Some(id)) => self.delete(id).await,
            (Some(_), None) => self.discard(name).await,
        }
    }

    /// Puts off what needs a name of which Incus still makes a half that was given up.
    pub(super) async fn wait_for_half(&self, name: &str, what: &'static str) -> Result<()> {
        let all: Operations = self
            .client
            .get("/1.0/operations?recursion=1")
            .await
            .map_err(|fault: Fault| fault.during(what))?;
        if all.is_about(name) { Err(Error::GivenUp { what }) } else { Ok(()) }
    }
}

/// Waits for the end of a copy, or that it is to give way.
async fn outcome(client: &Client, operation: &str, give_up: &GiveUp) -> Result<Copied, Fault> {
    let told = async {
        let mut look = tokio::time::interval(LOOK);
        while !give_up.is_told() {
            look.tick().await;
        }
    };
    tokio::select! {
        biased;
        ended = client.wait(operation, FILES_TIMEOUT) => match ended {
            // What it gives way to may have made it fail.
            Err(_) if give_up.is_told() => Ok(Copied::GivenUp),
            ended => ended.map(|_| Copied::Whole),
        },
        () = told => Ok(Copied::GivenUp),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
        task::JoinSet,
    };

    use super::*;

    /// One that answers every question after some time that an operation has ended.
    fn incus(socket: &Path, after: Duration) -> JoinSet<()> {
        let listener = UnixListener::bind(socket).unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await.unwrap());
                }
                assert!(asked.starts_with(b"GET /1.0/operations/1/wait?timeout=43200&"));
                tokio::time::sleep(after).await;
                let body = r#"{"type":"sync","metadata":{"id":"1","status_code":200}}"#;
                let answer =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                // Who has given up hears nothing.
                stream.write_all(answer.as_bytes()).await.unwrap_or(());
            }
        });
        server
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_takes_as_long_as_it_takes_unless_it_is_to_give_way() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _server = incus(&socket, Duration::from_mins(20));
        let (client, give_up) = (Client::new(&socket, "p"), GiveUp::default());
        let begun = tokio::time::Instant::now();
        let ended = outcome(&client, "/1.0/operations/1", &give_up).await.unwrap();
        assert!(matches!(ended, Copied::Whole));
        assert!(begun.elapsed() >= Duration::from_mins(20));
        give_up.now();
        let ended = outcome(&client, "/1.0/operations/1", &give_up).await.unwrap();
        assert!(matches!(ended, Copied::GivenUp));
        assert!(begun.elapsed() < Duration::from_mins(21), "nobody waits for the rest of it");
    }

    #[test]
    fn what_goes_on_is_found_by_the_name_that_it_is_about() {
        let told = r#"{
            "running": [
                {"status_code": 103, "resources": {"instances": ["/1.0/instances/e-1?project=p"]}},
                {"status_code": 103, "resources": null}
            ],
            "failure": [{"status_code": 400, "resources": {"instances": ["/1.0/instances/e-2"]}}]
        }"#;
        let all: Operations = serde_json::from_str(told).unwrap();
        let found = ["e-1", "e-2", "1", "instances"].map(|name| all.is_about(name));
        assert_eq!(found, [true, false, false, false]);
        assert!(!serde_json::from_str::<Operations>("{}").unwrap().is_about("e-1"));
    }
}
