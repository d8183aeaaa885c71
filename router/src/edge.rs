//! What the edge knows of a container beside its route: its gate, and the names that lead to it.

use std::{
    hash::RandomState,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast;
use gantry_model::{
    ContainerId, ProjectId,
    access::Policy,
    alias::{AliasTarget, Landing},
    edge::EdgeSettings,
    hook::Hook,
};
use gantry_store::EdgeRecord;
use papaya::HashMap;

use crate::Route;

/// What a request to a gated container has to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// What the permission documents of its project and its own say together; without one everything
    /// passes.
    pub policy: Option<Policy>,
    /// Its hooks; of one service in the order in which they are tried.
    pub hooks: Vec<Hook>,
    /// What its owner has set.
    pub settings: EdgeSettings,
    /// Another one whenever anything else in here has changed, never one that was used before by
    /// this process: whoever holds a stream open that an earlier gate let pass judges it again.
    pub serial: u64,
}

/// Where an alias, or a custom hostname that is bound to it, leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasRoute {
    /// The container; whether it can be reached says [`crate::RouteTable::lookup`].
    pub container: ContainerId,
    /// Its project.
    pub project: ProjectId,
    /// Which service of it.
    pub target: AliasTarget,
    /// Where `/` leads.
    pub landing: Option<Landing>,
    /// Whether it leads anywhere.
    pub enabled: bool,
    /// From when on it leads nowhere, in milliseconds since the Unix epoch; never when absent.
    pub expires_at_ms: Option<i64>,
    /// Whether the name belonged to another container before, so that browsers must forget what
    /// they keep for it.
    pub clear_site_data: bool,
}

impl AliasRoute {
    /// Whether the name leads somewhere at a time, in milliseconds since the Unix epoch.
    pub fn is_live(&self, now_ms: i64) -> bool {
        self.enabled && self.expires_at_ms.is_none_or(|end_ms| now_ms < end_ms)
    }
}

/// The gates and names of all containers that have any. One task writes, everybody reads.
#[derive(Debug)]
pub(crate) struct Edges {
    gates: HashMap<ContainerId, Arc<Gate>, fast::RandomState>,
    /// Which names a container has in the two maps below; for the writer alone.
    names: HashMap<ContainerId, Names, fast::RandomState>,
    // People choose these keys, so the hash is one that cannot be aimed at.
    aliases: ByName,
    hostnames: ByName,
    last_serial: AtomicU64,
}

/// Routes by the name that leads to them.
type ByName = HashMap<Box<str>, Arc<AliasRoute>, RandomState>;

#[derive(Clone, Debug, Default)]
struct Names {
    aliases: Vec<Box<str>>,
    hostnames: Vec<Box<str>>,
}

impl Edges {
    /// None yet; serials go on after `last_serial`.
    pub(crate) fn after(last_serial: u64) -> Self {
        Self {
            gates: HashMap::builder().hasher(fast::RandomState::default()).build(),
            names: HashMap::builder().hasher(fast::RandomState::default()).build(),
            aliases: HashMap::builder().hasher(RandomState::new()).build(),
            hostnames: HashMap::builder().hasher(RandomState::new()).build(),
            last_serial: AtomicU64::new(last_serial),
        }
    }

    /// The last serial that was given to a gate.
    pub(crate) fn last_serial(&self) -> u64 {
        self.last_serial.load(Ordering::Relaxed)
    }

    pub(crate) fn gate(&self, container: ContainerId) -> Option<Arc<Gate>> {
        self.gates.pin().get(&container).cloned()
    }

    /// Who sleeps when idle, and after how many seconds.
    pub(crate) fn sleepers(&self) -> Vec<(ContainerId, u32)> {
        let gates = self.gates.pin();
        let sleeper = |(container, gate): (&ContainerId, &Arc<Gate>)| {
            Some((*container, gate.settings.idle_pause_after?))
        };
        gates.iter().filter_map(sleeper).collect()
    }

    pub(crate) fn alias(&self, label: &str) -> Option<Arc<AliasRoute>> {
        self.aliases.pin().get(label).cloned()
    }

    pub(crate) fn hostname(&self, name: &str) -> Option<Arc<AliasRoute>> {
        self.hostnames.pin().get(name).cloned()
    }

    /// Takes over the record of a container whose route is `route`.
    pub(crate) fn put(&self, route: &Route, edge: &EdgeRecord) {
        self.put_gate(route, edge);
        let mut names = Names::default();
        let (aliases, hostnames) = (self.aliases.pin(), self.hostnames.pin());
        for alias in &edge.aliases {
            let to = Arc::new(AliasRoute {
                container: route.container,
                project: route.project,
                target: alias.target,
                landing: alias.landing.clone(),
                enabled: alias.enabled,
                expires_at_ms: alias.expires_at_ms,
                clear_site_data: alias.clear_site_data,
            });
            for name in &alias.hostnames {
                hostnames.insert(name.as_str().into(), Arc::clone(&to));
                names.hostnames.push(name.as_str().into());
            }
            aliases.insert(alias.label.as_str().into(), to);
            names.aliases.push(alias.label.as_str().into());
        }
        self.put_names(route.container, names);
    }

    /// Forgets a container.
    pub(crate) fn remove(&self, container: ContainerId) {
        self.gates.pin().remove(&container);
        self.put_names(container, Names::default());
    }

    /// Takes over what `from` has of a container.
    pub(crate) fn keep(&self, container: ContainerId, from: &Self) {
        if let Some(gate) = from.gate(container) {
            self.gates.pin().insert(container, gate);
        }
        let Some(names) = from.names.pin().get(&container).cloned() else { return };
        for (names, to, from) in [
            (&names.aliases, &self.aliases, &from.aliases),
            (&names.hostnames, &self.hostnames, &from.hostnames),
        ] {
            let (to, from) = (to.pin(), from.pin());
            for name in names {
                // A name that another container has by now stays with that one.
                if let (Some(route), None) = (from.get(name), to.get(name)) {
                    to.insert(name.clone(), Arc::clone(route));
                }
            }
        }
        self.names.pin().insert(container, names);
    }

    /// A gate with the same contents stays the same gate: nobody has to be judged again.
    fn put_gate(&self, route: &Route, edge: &EdgeRecord) {
        let gates = self.gates.pin();
        if !route.gated {
            gates.remove(&route.container);
            return;
        }
        let policy = Policy::merge(edge.project.as_deref(), edge.container.as_deref());
        let is_same = gates.get(&route.container).is_some_and(|gate| {
            gate.policy == policy && gate.hooks == edge.hooks && gate.settings == edge.settings
        });
        if !is_same {
            let gate = Gate {
                policy,
                hooks: edge.hooks.clone(),
                settings: edge.settings.clone(),
                serial: self.last_serial.fetch_add(1, Ordering::Relaxed) + 1,
            };
            gates.insert(route.container, Arc::new(gate));
        }
    }

    /// Notes which names a container has now, and removes those that it has no longer.
    fn put_names(&self, container: ContainerId, now: Names) {
        let names = self.names.pin();
        if let Some(before) = names.get(&container) {
            let gone = |before: &[Box<str>], now: &[Box<str>], map: &ByName| {
                let map = map.pin();
                for name in before.iter().filter(|name| !now.contains(name)) {
                    // Another container may have taken it over in the meantime.
                    if map.get(name).is_some_and(|route| route.container == container) {
                        map.remove(name);
                    }
                }
            };
            gone(&before.aliases, &now.aliases, &self.aliases);
            gone(&before.hostnames, &now.hostnames, &self.hostnames);
        }
        if now.aliases.is_empty() && now.hostnames.is_empty() {
            names.remove(&container);
        } else {
            names.insert(container, now);
        }
    }
}
