//! The processes before this one, while they end what they have under way.
//!
//! The one that runs has a link to each of them: whoever is followed passes its own links on, so that a process
//! that ends cuts none of the others off. Their number has a bound, because each takes memory; beyond it the
//! oldest is told to end.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures_util::future::{BoxFuture, join_all};
use gantry_store::{Holder, Store};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    before::Giver,
    glue,
    link::{Link, Message},
};
use crate::config::Config;

/// How long the process that runs may take to say that it has stopped.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one that was followed is given to end by itself before it is counted.
const SETTLE: Duration = Duration::from_secs(3);
/// How much longer than it was given a process is waited for.
const GRACE: Duration = Duration::from_secs(5);

/// One of them.
#[derive(Debug)]
struct Process {
    pid: u32,
    /// Its name in the store.
    name: Holder,
    link: Link,
    /// Whether it was told to make room.
    leaves: AtomicBool,
    http3_ended: CancellationToken,
    ended: CancellationToken,
}

/// All of them; clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Earlier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The oldest first. The last one is the one that this process has followed, as long as it lives.
    processes: Mutex<Vec<Arc<Process>>>,
    /// The one that this process follows, until it serves.
    before: Mutex<Option<Arc<Process>>>,
    bound: Bound,
    activity: gantry_proxy::Activity,
    store: Store,
    tasks: TaskTracker,
    deaf: CancellationToken,
}

/// How many there may be, and how long one that is too much may take to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) processes: usize,
    pub(super) within: Duration,
}

impl Bound {
    pub(super) const fn of(config: &Config) -> Self {
        Self { processes: config.edge.drain_processes, within: config.edge.drain }
    }
}

impl Earlier {
    /// None but the one that this process follows, if there is one.
    pub(super) fn new(
        giver: Option<Giver>,
        bound: Bound,
        activity: &gantry_proxy::Activity,
        store: &Store,
    ) -> Self {
        let before =
            giver.map(|giver| Arc::new(Process::new(giver.pid, giver.process, giver.link)));
        Self(Arc::new(Inner {
            processes: Mutex::default(),
            before: Mutex::new(before),
            bound,
            activity: activity.clone(),
            store: store.clone(),
            tasks: TaskTracker::new(),
            deaf: CancellationToken::new(),
        }))
    }

    fn before(&self) -> Option<Arc<Process>> {
        self.0.before.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn processes(&self) -> MutexGuard<'_, Vec<Arc<Process>>> {
        self.0.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Process>> {
        self.processes().clone()
    }

    /// Says that everything is prepared, and waits until the process before changes nothing any more.
    pub(super) async fn begin(&self) -> anyhow::Result<()> {
        let Some(before) = self.before() else { return Ok(()) };
        before.link.send(&Message::Ready).await.context("the running process has gone")?;
        match tokio::time::timeout(BEGIN_TIMEOUT, before.link.receive()).await {
            Ok(Ok(Some(Message::Begin))) => {}
            Ok(Ok(Some(other))) => bail!("the running process says {other:?}"),
            // It ends this process before it closes the link if it gives it up; so it has gone by itself.
            Ok(Ok(None)) => tracing::warn!("the running process has gone; this one goes on alone"),
            Ok(Err(error)) => return Err(error).context("the running process is not understood"),
            Err(_elapsed) => bail!("the running process does not say that it has stopped"),
        }
        Ok(())
    }

    /// Says that this process serves, and hears the one before from now on; says whether there is one.
    pub(super) async fn serving(&self) -> bool {
        let before = self.0.before.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(before) = before else { return false };
        if let Err(error) = before.link.send(&Message::Serving).await {
            tracing::warn!(%error, "the process before has gone; this one goes on alone");
        }
        self.processes().push(Arc::clone(&before));
        self.listen_to(before);
        self.keep_to_the_bound();
        true
    }

    fn listen_to(&self, process: Arc<Process>) {
        let (earlier, deaf) = (self.clone(), self.0.deaf.clone());
        let hear: BoxFuture<'static, ()> = Box::pin(async move { earlier.hear(&process).await });
        self.0.tasks.spawn(deaf.run_until_cancelled_owned(hear));
    }

    /// Hears what a process says until it has ended.
    async fn hear(&self, process: &Arc<Process>) {
        let pid = process.pid;
        loop {
            match process.link.receive_with().await {
                Ok(Some((Message::Http3Ended, _))) => process.http3_ended.cancel(),
                Ok(Some((Message::Active { containers }, _))) => {
                    let now_ms = glue::now_ms();
                    let containers = containers.iter().filter_map(|id| id.parse().ok());
                    containers.for_each(|container| self.0.activity.note(container, now_ms));
                }
                Ok(Some((Message::Earlier { pid, process: name }, links))) => {
                    self.admit(pid, name, links, process);
                }
                Ok(Some((other, _))) => tracing::debug!(pid, ?other, "a process before says"),
                Ok(None) => break tracing::info!(pid, "a process before this one has ended"),
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    tracing::debug!(pid, %error, "a process before says something else");
                }
                Err(error) => {
                    break tracing::warn!(pid, %error, "a process before cannot be heard");
                }
            }
        }
        self.processes().retain(|other| !Arc::ptr_eq(other, process));
        process.http3_ended.cancel();
        process.ended.cancel();
        // One that has ended in order has finished what it had.
        match self.0.store.forget_process(process.name).await {
            Ok(0) => {}
            Ok(keys) => tracing::warn!(pid, keys, "it had requests with a key under way"),
            Err(error) => tracing::warn!(pid, %error, "its idempotency keys stay for a day"),
        }
    }

    /// Takes the link to a process that is still older, from one that was linked to it.
    fn admit(&self, pid: u32, name: Holder, links: Vec<OwnedFd>, from: &Arc<Process>) {
        for link in links {
            let link = match Link::adopt(link) {
                Ok(link) => link,
                Err(error) => {
                    tracing::warn!(pid, %error, "a process before this one cannot be heard");
                    continue;
                }
            };
            let process = Arc::new(Process::new(pid, name, link));
            {
                let mut processes = self.processes();
                let at = processes.iter().position(|other| Arc::ptr_eq(other, from));
                let at = at.unwrap_or(processes.len());
                processes.insert(at, Arc::clone(&process));
            }
            self.listen_to(process);
        }
        self.keep_to_the_bound();
    }

    /// Has the oldest end if there are too many, in a moment: the one that was followed just now may have
    /// nothing under way.
    fn keep_to_the_bound(&self) {
        let (earlier, deaf) = (self.clone(), self.0.deaf.clone());
        let keep = async move {
            tokio::time::sleep(SETTLE).await;
            earlier.make_room().await;
        };
        self.0.tasks.spawn(deaf.run_until_cancelled_owned(keep));
    }

    async fn make_room(&self) {
        let Bound { processes: most, within } = self.0.bound;
        let mut staying = self.all();
        staying.retain(|process| !process.leaves.load(Relaxed));
        let too_many = staying.len().saturating_sub(most);
        for process in staying.drain(..too_many) {
            process.leaves.store(true, Relaxed);
            tracing::warn!(
                pid = process.pid,
                "more than {most} processes that were replaced (edge.drain_processes) have something under way: \
                 the oldest ends it within {} s",
                within.as_secs()
            );
            // It may have ended just now.
            drop(process.link.send(&Message::MakeRoom { within_ms: millis(within) }).await);
        }
    }

    /// Has all end what they still serve over HTTP/3, whose sockets the next process needs.
    pub(super) async fn end_http3(&self, within: Duration) {
        let end = |process: Arc<Process>| async move {
            if process.link.send(&Message::EndHttp3 { within_ms: millis(within) }).await.is_err() {
                // It has ended.
                return;
            }
            let ended = process.http3_ended.cancelled();
            if tokio::time::timeout(within + GRACE, ended).await.is_err() {
                let pid = process.pid;
                tracing::warn!(
                    pid,
                    "a process before still serves HTTP/3, and loses what it has of it"
                );
            }
        };
        join_all(self.all().into_iter().map(end)).await;
    }

    /// Has all end within this time, because this one does, and waits until they have, for a little longer.
    pub(super) async fn stop(&self, within: Duration) {
        let stop = |process: Arc<Process>| async move {
            // It may have ended just now.
            drop(process.link.send(&Message::Stop { within_ms: millis(within) }).await);
            if tokio::time::timeout(within + GRACE, process.ended.cancelled()).await.is_err() {
                tracing::warn!(pid = process.pid, "a process before has not ended in time");
            }
        };
        join_all(self.all().into_iter().map(stop)).await;
    }

    /// Leaves them to the process that has followed this one, which is linked to them from now on.
    pub(super) async fn pass_on(self, next: &Link) {
        self.end().await;
        for process in self.all() {
            let message = Message::Earlier { pid: process.pid, process: process.name };
            if let Err(error) = next.send_link(&message, &process.link).await {
                tracing::warn!(pid = process.pid, %error, "a process before this one is left alone");
            }
        }
    }

    /// Hears them no more.
    pub(super) async fn end(&self) {
        self.0.deaf.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Process {
    fn new(pid: u32, name: Holder, link: Link) -> Self {
        let (http3_ended, ended) = (CancellationToken::new(), CancellationToken::new());
        Self { pid, name, link, leaves: AtomicBool::new(false), http3_ended, ended }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use gantry_store::Idempotency;

    use super::*;
    use crate::daemon::link::{Door, knock};

    #[tokio::test]
    async fn a_process_that_has_gone_keeps_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let first = Store::open(&path).await.unwrap();
        let begin = |store: Store| async move {
            store.idempotency_begin("scope", "key", &[0; 32], 0).await.unwrap()
        };
        assert_eq!(begin(first.clone()).await, Idempotency::Fresh);
        let second = Store::open_beside(&path).await.unwrap();
        let door = Door::open(dir.path().join("door")).unwrap();
        let link = Link::adopt(knock(&dir.path().join("door")).unwrap()).unwrap();
        let theirs = door.let_in().await.unwrap();
        let bound = Bound { processes: 1, within: Duration::ZERO };
        let giver = Giver { link, pid: 1, process: first.process() };
        let earlier = Earlier::new(Some(giver), bound, &gantry_proxy::Activity::default(), &second);
        assert!(earlier.serving().await);
        assert_eq!(theirs.receive().await.unwrap(), Some(Message::Serving));
        assert_eq!(begin(second.clone()).await, Idempotency::InProgress);
        drop(theirs);
        let freed = async {
            while begin(second.clone()).await != Idempotency::Fresh {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), freed).await.unwrap();
        assert!(earlier.all().is_empty());
        earlier.end().await;
        first.close().await;
        second.close().await;
    }

    #[tokio::test]
    async fn links_are_passed_on_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.db")).await.unwrap();
        let pair = |name: &'static str| {
            let path = dir.path().join(name);
            async move {
                let door = Door::open(path.clone()).unwrap();
                let ours = Link::adopt(knock(&path).unwrap()).unwrap();
                (ours, door.let_in().await.unwrap())
            }
        };
        let bound = Bound { processes: 8, within: Duration::ZERO };
        let (to_second, of_second) = pair("second").await;
        let (to_first, of_first) = pair("first").await;
        let giver = Giver { link: to_second, pid: 2, process: [2; 16] };
        let third = Earlier::new(Some(giver), bound, &gantry_proxy::Activity::default(), &store);
        assert!(third.serving().await);
        let message = Message::Earlier { pid: 1, process: [1; 16] };
        of_second.send_link(&message, &to_first).await.unwrap();
        drop(to_first);
        let both = async {
            while third.all().len() < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), both).await.unwrap();
        let pids: Vec<u32> = third.all().iter().map(|process| process.pid).collect();
        assert_eq!(pids, [1, 2]);

        let (to_third, of_third) = pair("third").await;
        let next = Giver { link: to_third, pid: 3, process: [3; 16] };
        let fourth = Earlier::new(Some(next), bound, &gantry_proxy::Activity::default(), &store);
        assert!(fourth.serving().await);
        third.pass_on(&of_third).await;
        let all = async {
            while fourth.all().len() < 3 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
        let pids: Vec<u32> = fourth.all().iter().map(|process| process.pid).collect();
        assert_eq!(pids, [1, 2, 3]);
        // Each hears the one that runs now.
        let heard = async {
            let stop = Some(Message::Stop { within_ms: 0 });
            assert_eq!(of_first.receive().await.unwrap(), stop);
            for of in [of_second, of_third] {
                assert_eq!(of.receive().await.unwrap(), Some(Message::Serving));
                assert_eq!(of.receive().await.unwrap(), stop);
            }
            drop(of_first);
        };
        tokio::join!(fourth.stop(Duration::ZERO), heard);
        fourth.end().await;
        store.close().await;
    }
}
