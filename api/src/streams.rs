//! Places for streams of events: so many for all, and so many of them for one account.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gantry_model::UserId;

use crate::problem::{Kind, Problem};

/// The places. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Streams(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all_max: u32,
    per_account_max: u32,
    /// How many each account has; none without any.
    taken: Mutex<HashMap<UserId, u32>>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    streams: Streams,
    user: UserId,
}

impl Streams {
    pub(crate) fn new(all_max: u32, per_account_max: u32) -> Self {
        Self(Arc::new(Shared { all_max, per_account_max, taken: Mutex::default() }))
    }

    /// Takes a place for an account; 429 if there is none.
    pub(crate) fn take(&self, user: UserId) -> Result<Place, Problem> {
        let Shared { all_max, per_account_max, .. } = *self.0;
        let mut taken = self.lock();
        let own = taken.get(&user).copied().unwrap_or_default();
        let all = taken.values().fold(0_u32, |sum, count| sum.saturating_add(*count));
        let message = if own >= per_account_max {
            format!("The account has {own} streams of events, as many as it may have at once")
        } else if all >= all_max {
            "There are as many streams of events as there may be".to_owned()
        } else {
            taken.insert(user, own.saturating_add(1));
            drop(taken);
            return Ok(Place { streams: self.clone(), user });
        };
        Err(Problem::new(Kind::TooManyAttempts, message).retry_after_s(5))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, u32>> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.streams.lock();
        let left = taken.get(&self.user).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            taken.remove(&self.user);
        } else {
            taken.insert(self.user, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_for_all_and_for_each() {
        let [alice, bob, carol] = [1, 2, 3].map(|byte| UserId::from_bytes([byte; 12]));
        let streams = Streams::new(3, 2);
        let hers = [streams.take(alice), streams.take(alice)];
        assert!(hers.iter().all(Result::is_ok) && streams.take(alice).is_err());
        let his = streams.take(bob);
        assert!(his.is_ok() && streams.take(carol).is_err(), "none is left for anybody");
        drop(hers);
        assert!(streams.take(carol).is_ok() && streams.take(alice).is_ok());
        drop(his);
        assert!(streams.lock().is_empty(), "nobody is remembered");
    }
}
