//! From a process that runs to one that has been followed: it gives what it has, and ends with the last of
//! what it has under way.

use std::{pin::pin, sync::Arc, time::Duration};

use anyhow::bail;
use gantry_model::ContainerId;
use gantry_proxy::Stopper;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    files::Files,
    glue,
    link::{Link, Message},
    manager,
    next::{self, Estate, Next},
    serve::{Daemon, heed_others},
    signals::{Signals, Wanted},
    upgrade::{Asker, Upgraded},
};
use crate::config::Config;

/// How long the process before may have to end what it has over HTTP/3; the next one waits meanwhile.
const HTTP3_MAX: Duration = Duration::from_mins(1);
/// The same when nobody asks for it, because the next process has crashed: the one that is started then shares no
/// socket with this one, and waits.
const HTTP3_ALONE: Duration = Duration::from_secs(1);
/// How often the next process hears which containers have traffic here.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How many of them at once.
const TOLD_MAX: usize = 1000;

impl Daemon {
    /// Has the program that is there now follow, and tells whoever has asked for that. Without success all is
    /// as it was.
    pub(super) async fn follow(
        &mut self,
        config: &Config,
        files: &Files,
        asker: Option<Asker>,
        to_us: &mpsc::Sender<Asker>,
    ) -> Option<Link> {
        let began = Instant::now();
        tracing::info!("a new process is to follow this one");
        manager::reloading();
        let outcome = self.try_follow(config, files, to_us).await;
        let (outcome, link) = match outcome {
            Ok((link, upgraded)) => {
                let took = began.elapsed().as_millis();
                tracing::info!(
                    "process {} (version {}) has followed within {took} ms",
                    upgraded.pid,
                    upgraded.version
                );
                manager::followed(upgraded.pid);
                (Ok(upgraded), Some(link))
            }
            Err(error) => {
                let why = format!("{error:#}");
                tracing::error!("no new process has followed, and this one goes on: {why}");
                manager::not_followed(&why);
                (Err(why), None)
            }
        };
        if let Some(asker) = asker {
            // Whoever has asked may have gone.
            drop(asker.send(outcome));
        }
        link
    }

    async fn try_follow(
        &mut self,
        config: &Config,
        files: &Files,
        to_us: &mpsc::Sender<Asker>,
    ) -> anyhow::Result<(Link, Upgraded)> {
        self.check_copies()?;
        let next = next::start(files.door()).await?;
        let (schema, version) = (next.schema(), next.version().to_owned());
        if schema.0 != schema.1 {
            tracing::info!(
                "version {version} brings the store from schema {} to {}",
                schema.0,
                schema.1
            );
        }
        self.earlier.end_http3(config.edge.drain.min(HTTP3_MAX)).await;
        self.keepers.rest().await;
        let mut has_begun = false;
        let given = match self.check_copies() {
            Ok(()) => self.give(next, &mut has_begun).await,
            Err(error) => Err(error),
        };
        if given.is_err() {
            self.keep(config, files);
        }
        if given.is_err() && has_begun {
            // It may have come so far that connections and questions would go to it.
            self.edge.begin()?;
            self.tell(config, files, to_us)?;
        }
        match given {
            Ok(given) => Ok(given),
            Err(error) => Err(told_of_schema(error, schema.0, files).await),
        }
    }

    /// A copy goes on in this process whoever waits for it; the next one would begin it anew, into the same files.
    fn check_copies(&self) -> anyhow::Result<()> {
        let copying = self.servers.iter().find(|served| served.runtime.is_copying());
        match copying {
            None => Ok(()),
            Some(served) => bail!(
                "files of containers are being copied on server {}; try again when that is done",
                served.server.name
            ),
        }
    }

    /// Gives the next process all that it needs, has it begin, and returns when it serves.
    async fn give(&self, next: Next, has_begun: &mut bool) -> anyhow::Result<(Link, Upgraded)> {
        let mut sockets = self.edge.sockets()?;
        sockets.tcp.extend(self.ssh.share()?);
        let mut runtimes = Vec::new();
        for served in self.servers.iter() {
            runtimes.push((served.server.name.to_string(), served.runtime.bequest()?));
        }
        let (process, lock) = (self.core.store.process(), self.lock.share()?);
        next.prepare(Estate { process, lock, sockets, runtimes }).await?;
        let (pid, version) = (next.pid(), next.version().to_owned());
        *has_begun = true;
        let link = next.begin().await?;
        Ok((link, Upgraded { pid, version, before: std::process::id() }))
    }

    /// Leaves everything new to the next process, and returns when the last of what was under way has ended.
    pub(super) async fn retire(self, next: Link, config: &Config, signals: &mut Signals) {
        let Self { mut core, edge, mut ssh, servers, mut keepers, earlier, lock, activity, .. } =
            self;
        earlier.pass_on(&next).await;
        core.api_config.closing.cancel();
        ssh.close();
        servers.iter().for_each(|served| served.runtime.retire());
        drop(lock);
        heed_others(&core.store, &mut core.tasks, &core.shutdown);
        let (stopper, front) = (edge.stopper(), Arc::clone(&ssh.front));
        let longest = config.edge.drain_streams;
        let mut edge = pin!(edge.hand_over(longest));
        let mut sessions = pin!(timeout(longest, front.ended()));
        let (mut edge_ended, mut sessions_ended, mut hurried) = (false, false, false);
        let mut ear = Ear::new(next, stopper.clone());
        let mut tell = interval(TELL_EVERY);
        tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !edge_ended || !(sessions_ended || hurried) {
            let within = tokio::select! {
                () = &mut edge, if !edge_ended => {
                    edge_ended = true;
                    continue;
                }
                _ = &mut sessions, if !sessions_ended => {
                    sessions_ended = true;
                    continue;
                }
                _ = tell.tick() => {
                    ear.tell_active(&activity.since(since_ms())).await;
                    continue;
                }
                within = ear.hear() => within,
                wanted = signals.next() => match wanted {
                    Wanted::Upgrade => continue,
                    Wanted::End(name) if hurried => {
                        tracing::warn!("{name} again: ending without draining");
                        return;
                    }
                    Wanted::End(_) => config.edge.drain,
                },
            };
            tracing::info!("ending what is under way within {} s", within.as_secs());
            hurried = true;
            core.api_config.ending.cancel();
            stopper.stop(within);
        }
        // The next process hears by the end of the link that nothing is under way any more.
        let mut ended = Box::pin(core.end(&mut keepers));
        loop {
            tokio::select! {
                () = &mut ended => break,
                _ = ear.hear() => {}
            }
        }
    }
}

/// Why nothing has followed, and what has become of the store, which may have been brought to a newer schema.
async fn told_of_schema(error: anyhow::Error, before: i64, files: &Files) -> anyhow::Error {
    match gantry_store::Store::look(&files.store()).await {
        Ok((now, _)) if now == before => error,
        Ok((now, _)) => anyhow::anyhow!(
            "{error:#} (the store has schema {now} now, with which this version goes on, and starts, too)"
        ),
        Err(look) => anyhow::anyhow!(
            "{error:#} (this version goes on, but would not start again: {:#})",
            anyhow::Error::new(look)
        ),
    }
}

/// Hears the next process.
struct Ear {
    next: Link,
    stopper: Stopper,
    /// Whether it lives and is understood.
    hears: bool,
    /// Whether it has told this process to end.
    told: bool,
    /// The end of HTTP/3, if it has asked for that.
    http3: JoinSet<()>,
}

impl Ear {
    fn new(next: Link, stopper: Stopper) -> Self {
        Self { next, stopper, hears: true, told: false, http3: JoinSet::new() }
    }

    /// Waits until it wants this process to end, and within which time; does what else it asks for.
    /// Cancel-safe.
    async fn hear(&mut self) -> Duration {
        loop {
            let message = tokio::select! {
                Some(_) = self.http3.join_next() => {
                    self.hears &= self.next.send(&Message::Http3Ended).await.is_ok();
                    continue;
                }
                message = self.next.receive(), if self.hears => message,
                else => std::future::pending().await,
            };
            match message {
                Ok(Some(Message::EndHttp3 { within_ms })) => {
                    self.end_http3(Duration::from_millis(within_ms));
                }
                Ok(Some(Message::Stop { within_ms })) => {
                    self.told = true;
                    return Duration::from_millis(within_ms);
                }
                Ok(Some(Message::MakeRoom { within_ms })) => {
                    self.told = true;
                    tracing::info!("newer processes need the place (edge.drain_processes)");
                    return Duration::from_millis(within_ms);
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.hears = false;
                    if !self.told {
                        tracing::warn!(
                            "the process that runs has ended without a word; what is under way here goes on, but \
                             HTTP/3, whose ports the next one needs"
                        );
                        self.end_http3(HTTP3_ALONE);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the next process is not understood");
                    self.hears = error.kind() == std::io::ErrorKind::InvalidData;
                }
            }
        }
    }

    fn end_http3(&mut self, within: Duration) {
        let stopper = self.stopper.clone();
        self.http3.spawn(async move { stopper.end_http3(within).await });
    }

    /// Tells it which containers have traffic here.
    async fn tell_active(&mut self, containers: &[ContainerId]) {
        for some in containers.chunks(TOLD_MAX) {
            let containers = some.iter().map(ToString::to_string).collect();
            self.hears =
                self.hears && self.next.send(&Message::Active { containers }).await.is_ok();
        }
    }
}

/// Since when there must have been traffic to be told.
fn since_ms() -> i64 {
    let ago = i64::try_from(2 * TELL_EVERY.as_millis()).unwrap_or(i64::MAX);
    glue::now_ms().saturating_sub(ago)
}
