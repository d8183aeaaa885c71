//! A domain name system in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Error, ErrorKind},
    net::IpAddr,
    sync::{Arc, Mutex},
};

use gantry_control::{Answer, LookUpFailed, Names};

/// Answers what it was told; cheap to clone, all clones know the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeNames(Arc<Mutex<Zone>>);

#[derive(Debug, Default)]
struct Zone {
    canonical: BTreeMap<String, String>,
    texts: BTreeMap<String, Vec<String>>,
    addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    is_away: bool,
}

impl FakeNames {
    pub(crate) fn cname(&self, name: &str, to: &str) {
        self.0.lock().unwrap().canonical.insert(name.to_owned(), to.to_owned());
    }

    pub(crate) fn txt(&self, name: &str, text: &str) {
        self.0.lock().unwrap().texts.insert(name.to_owned(), vec![text.to_owned()]);
    }

    pub(crate) fn addresses(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.0.lock().unwrap().addresses.insert(name.to_owned(), addresses);
    }

    /// Forgets every record of a name.
    pub(crate) fn forget(&self, name: &str) {
        let mut zone = self.0.lock().unwrap();
        zone.canonical.remove(name);
        zone.texts.remove(name);
        zone.addresses.remove(name);
    }

    pub(crate) fn set_away(&self, is_away: bool) {
        self.0.lock().unwrap().is_away = is_away;
    }

    fn answer<T>(&self, find: impl FnOnce(&Zone) -> T) -> Result<T, LookUpFailed> {
        let zone = self.0.lock().unwrap();
        if zone.is_away {
            return Err(LookUpFailed::new(Error::from(ErrorKind::TimedOut)));
        }
        Ok(find(&zone))
    }
}

impl Names for FakeNames {
    fn canonical<'n>(&'n self, name: &'n str) -> Answer<'n, Option<String>> {
        Box::pin(async move { self.answer(|zone| zone.canonical.get(name).cloned()) })
    }

    fn texts<'n>(&'n self, name: &'n str) -> Answer<'n, Vec<String>> {
        Box::pin(
            async move { self.answer(|zone| zone.texts.get(name).cloned().unwrap_or_default()) },
        )
    }

    fn addresses<'n>(&'n self, name: &'n str) -> Answer<'n, BTreeSet<IpAddr>> {
        Box::pin(async move {
            self.answer(|zone| zone.addresses.get(name).cloned().unwrap_or_default())
        })
    }
}
