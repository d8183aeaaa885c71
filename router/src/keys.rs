//! Which container an SSH key opens.

use std::{
    collections::hash_map,
    sync::{Arc, Mutex, PoisonError},
};

use foldhash::fast::RandomState;
use gantry_model::{ContainerId, Generation, ProjectId, access::Policy, ssh::KeyFingerprint};
use papaya::HashMap;

use crate::{RouteState, ServerIndex};

/// A container as its key finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRoute {
    /// The project that it belongs to.
    pub project: ProjectId,
    /// The container.
    pub container: ContainerId,
    /// The server that it is on.
    pub server: ServerIndex,
    /// The number of its present or last start.
    pub generation: Generation,
    /// Whether it can be entered.
    pub state: RouteState,
    /// What its documents say, if it has any.
    pub policy: Option<Arc<Policy>>,
    /// Whether connections may be forwarded, either way.
    pub forwards: bool,
    /// Whether who proves to be known wakes it.
    pub wakes: bool,
}

/// Containers by their keys. One task writes, everybody reads.
#[derive(Debug)]
pub(crate) struct Keys {
    // Fingerprints are digests: strangers choose what is looked up, not where that lies.
    routes: HashMap<KeyFingerprint, Arc<KeyRoute>, RandomState>,
    /// The key of each container, for the writer alone.
    of: Mutex<hash_map::HashMap<ContainerId, KeyFingerprint, RandomState>>,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self {
            routes: HashMap::builder().hasher(RandomState::default()).build(),
            of: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, key: &KeyFingerprint) -> Option<Arc<KeyRoute>> {
        self.routes.pin().get(key).cloned()
    }

    /// Takes over what a container has now.
    pub(crate) fn put(&self, container: ContainerId, now: Option<(KeyFingerprint, KeyRoute)>) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let routes = self.routes.pin();
        let is_its = |key: &KeyFingerprint| {
            routes.get(key).is_some_and(|route| route.container == container)
        };
        match now {
            Some((key, route)) => {
                let before = of.insert(container, key);
                if let Some(before) = before.filter(|before| *before != key && is_its(before)) {
                    routes.remove(&before);
                }
                // The store gives a key to one container only. While a key moves from one to another, the
                // record that is read later is the newer one.
                routes.insert(key, Arc::new(route));
            }
            None => {
                if let Some(before) = of.remove(&container).filter(is_its) {
                    routes.remove(&before);
                }
            }
        }
    }
}
