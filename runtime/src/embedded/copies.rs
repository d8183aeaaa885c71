//! Which copies are under way, so that whoever needs a container at once can have them given up.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gantry_model::ContainerId;
use tokio::time::MissedTickBehavior;

use super::copy::GiveUp;

/// How often a copy is looked for that stands in somebody's way.
const AGAIN: Duration = Duration::from_millis(50);

/// The copies under way. Few: each of their containers is locked meanwhile.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copies(Arc<Mutex<Vec<Copy>>>);

/// What a copy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The files of a container.
    Container(ContainerId),
    /// A snapshot, which whoever needs its container waits for.
    Snapshot,
    /// An archive for elsewhere.
    Archive,
}

#[derive(Clone, Debug)]
struct Copy {
    from: Option<ContainerId>,
    purpose: Purpose,
    give_up: GiveUp,
    /// Tells it from others of the same containers.
    number: u64,
}

/// A copy that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    copies: Copies,
    give_up: GiveUp,
    number: u64,
}

impl Copies {
    /// A copy begins that reads the files of a container, if of any.
    pub(crate) fn begin(&self, from: Option<ContainerId>, purpose: Purpose) -> UnderWay {
        let give_up = GiveUp::default();
        let mut copies = self.lock();
        let number = copies.iter().map(|copy| copy.number + 1).max().unwrap_or_default();
        copies.push(Copy { from, purpose, give_up: give_up.clone(), number });
        drop(copies);
        UnderWay { copies: self.clone(), give_up, number }
    }

    /// Whether none is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Waits for a lock and gives up meanwhile what holds it, again and again: another copy may have
    /// waited for the same lock, and begins only when the one before it has ended.
    pub(crate) async fn out_of_the_way<T>(
        &self,
        lock: impl Future<Output = T>,
        give_up: impl Fn(&Self),
    ) -> T {
        let mut lock = std::pin::pin!(lock);
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                held = &mut lock => return held,
                _ = again.tick() => give_up(self),
            }
        }
    }

    /// Gives up whatever reads or writes this container's files.
    pub(crate) fn give_up(&self, id: ContainerId) {
        let copies = self.lock();
        let own = Purpose::Container(id);
        let of_it = |copy: &&Copy| copy.from == Some(id) || copy.purpose == own;
        copies.iter().filter(of_it).for_each(|copy| copy.give_up.now());
    }

    /// Gives up what reads this container's files for others. A snapshot of it goes on.
    pub(crate) fn give_up_for_others(&self, id: ContainerId) {
        let copies = self.lock();
        let is_for_others = |purpose| match purpose {
            Purpose::Container(into) => into != id,
            Purpose::Snapshot => false,
            Purpose::Archive => true,
        };
        let for_others = |copy: &&Copy| copy.from == Some(id) && is_for_others(copy.purpose);
        copies.iter().filter(for_others).for_each(|copy| copy.give_up.now());
    }

    /// Gives up what writes this container's files.
    pub(crate) fn give_up_into(&self, id: ContainerId) {
        let copies = self.lock();
        let own = Purpose::Container(id);
        copies.iter().filter(|copy| copy.purpose == own).for_each(|copy| copy.give_up.now());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Copy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    /// What the copy itself looks at.
    pub(crate) fn give_up(&self) -> GiveUp {
        self.give_up.clone()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.copies.lock().retain(|copy| copy.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use tokio::{sync::oneshot, task::JoinSet};

    use super::*;
    use crate::{embedded::copy::copy_tree, locks::Locks};

    #[test]
    fn who_stops_a_container_ends_its_copies_and_who_deletes_it_those_into_it() {
        let [one, other, third] = [1, 2, 3].map(|byte| ContainerId::from_bytes([byte; 12]));
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        let copies = Copies::default();
        let ended = |under_way: &UnderWay| {
            let to = dir.path().join("to");
            let outcome = copy_tree(&from, &to, &under_way.give_up());
            fs::remove_dir_all(&to).unwrap();
            outcome.is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
        };
        let into = Purpose::Container;
        let (read, written) = (copies.begin(Some(one), into(other)), copies.begin(None, into(one)));
        copies.give_up(third);
        assert!(!ended(&read) && !ended(&written));
        copies.give_up_into(one);
        assert!(!ended(&read) && ended(&written));
        copies.give_up(one);
        assert!(ended(&read));
        drop((read, written));
        let next = copies.begin(Some(one), Purpose::Snapshot);
        assert!(!ended(&next), "what was ends nothing that begins later");
        let for_another = copies.begin(Some(one), into(other));
        let for_elsewhere = copies.begin(Some(one), Purpose::Archive);
        copies.give_up_for_others(one);
        assert!(!ended(&next) && ended(&for_another), "a snapshot goes on");
        assert!(ended(&for_elsewhere));
    }

    #[tokio::test]
    async fn a_copy_that_begins_while_somebody_waits_is_given_up_too() {
        let [id, into] = [1, 2].map(|byte| ContainerId::from_bytes([byte; 12]));
        let (copies, locks) = (Copies::default(), Arc::new(Locks::default()));
        let mut tasks = JoinSet::new();
        // Three queue for the lock before the one that they stand in the way of.
        for count in 1..=3 {
            let (copies, locks) = (copies.clone(), Arc::clone(&locks));
            let (asks, asked) = oneshot::channel();
            tasks.spawn(async move {
                let lock = locks.lock(id);
                asks.send(()).unwrap();
                let _busy = lock.await;
                let under_way = copies.begin(Some(id), Purpose::Container(into));
                while !under_way.give_up().is_told() {
                    tokio::task::yield_now().await;
                }
            });
            asked.await.unwrap();
            assert_eq!(tasks.len(), count);
        }
        let lock = copies.out_of_the_way(locks.lock(id), |copies| copies.give_up(id));
        let _busy = tokio::time::timeout(Duration::from_secs(30), lock).await.unwrap();
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }
}
