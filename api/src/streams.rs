//! Places for streams of events: so many for all, and so many of them for one account or address.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gantry_model::UserId;

use crate::problem::{Kind, Problem};

/// Places for whoever is told apart by `K`. Clones are the same.
#[derive(Debug)]
pub(crate) struct Places<K: Eq + Hash>(Arc<Shared<K>>);

/// The places of accounts for their streams.
pub(crate) type Streams = Places<UserId>;

#[derive(Debug)]
struct Shared<K> {
    all_max: u32,
    each_max: u32,
    /// How many each has; none without any.
    taken: Mutex<HashMap<K, u32>>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Whoever asked has so many, as many as one may have.
    Own(u32),
    /// All have as many as there are.
    All,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Eq + Hash> {
    places: Places<K>,
    key: K,
}

impl<K: Eq + Hash> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Copy + Eq + Hash> Places<K> {
    pub(crate) fn new(all_max: u32, each_max: u32) -> Self {
        Self(Arc::new(Shared { all_max, each_max, taken: Mutex::default() }))
    }

    /// Takes a place, if there is one.
    pub(crate) fn take(&self, key: K) -> Result<Place<K>, Full> {
        let Shared { all_max, each_max, .. } = *self.0;
        let mut taken = self.lock();
        let own = taken.get(&key).copied().unwrap_or_default();
        let all = taken.values().fold(0_u32, |sum, count| sum.saturating_add(*count));
        if own >= each_max {
            return Err(Full::Own(own));
        }
        if all >= all_max {
            return Err(Full::All);
        }
        taken.insert(key, own.saturating_add(1));
        drop(taken);
        Ok(Place { places: self.clone(), key })
    }
}

impl<K: Eq + Hash> Places<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, u32>> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(count) = taken.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

impl Full {
    /// What to say of the streams of an account.
    pub(crate) fn of_account(self) -> String {
        match self {
            Self::Own(own) => {
                format!("The account has {own} streams of events, as many as it may have at once")
            }
            Self::All => "There are as many streams of events as there may be".to_owned(),
        }
    }
}

impl From<Full> for Problem {
    fn from(full: Full) -> Self {
        Self::new(Kind::TooManyAttempts, full.of_account()).retry_after_s(5)
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
        assert!(hers.iter().all(Result::is_ok));
        assert_eq!(streams.take(alice).unwrap_err(), Full::Own(2));
        let his = streams.take(bob);
        assert!(his.is_ok());
        assert_eq!(streams.take(carol).unwrap_err(), Full::All, "none is left for anybody");
        drop(hers);
        assert!(streams.take(carol).is_ok() && streams.take(alice).is_ok());
        drop(his);
        assert!(streams.lock().is_empty(), "nobody is remembered");
    }
}
