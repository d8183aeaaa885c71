//! Which copies are under way, so that whoever needs a container at once can have them given up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_model::ContainerId;

use super::copy::GiveUp;

/// The copies under way. Few: each of their containers is locked meanwhile.
#[derive(Clone, Debug, Default)]
pub(super) struct Copies(Arc<Mutex<Vec<Copy>>>);

#[derive(Clone, Debug)]
struct Copy {
    from: Option<ContainerId>,
    into: Option<ContainerId>,
    give_up: GiveUp,
    /// Tells it from others of the same containers.
    number: u64,
}

/// A copy that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay {
    copies: Copies,
    give_up: GiveUp,
    number: u64,
}

impl Copies {
    /// A copy begins that reads the files of one container, if of any, and writes those of another.
    pub(super) fn begin(&self, from: Option<ContainerId>, into: Option<ContainerId>) -> UnderWay {
        let give_up = GiveUp::default();
        let mut copies = self.lock();
        let number = copies.iter().map(|copy| copy.number + 1).max().unwrap_or_default();
        copies.push(Copy { from, into, give_up: give_up.clone(), number });
        drop(copies);
        UnderWay { copies: self.clone(), give_up, number }
    }

    /// Gives up whatever reads or writes this container's files.
    pub(super) fn give_up(&self, id: ContainerId) {
        let copies = self.lock();
        let of_it = |copy: &&Copy| copy.from == Some(id) || copy.into == Some(id);
        copies.iter().filter(of_it).for_each(|copy| copy.give_up.now());
    }

    /// Gives up what writes this container's files.
    pub(super) fn give_up_into(&self, id: ContainerId) {
        let copies = self.lock();
        copies.iter().filter(|copy| copy.into == Some(id)).for_each(|copy| copy.give_up.now());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Copy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    /// What the copy itself looks at.
    pub(super) fn give_up(&self) -> GiveUp {
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

    use super::*;
    use crate::embedded::copy::copy_tree;

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
        let (read, written) = (copies.begin(Some(one), Some(other)), copies.begin(None, Some(one)));
        copies.give_up(third);
        assert!(!ended(&read) && !ended(&written));
        copies.give_up_into(one);
        assert!(!ended(&read) && ended(&written));
        copies.give_up(one);
        assert!(ended(&read));
        drop((read, written));
        let next = copies.begin(Some(one), None);
        assert!(!ended(&next), "what was ends nothing that begins later");
    }
}
