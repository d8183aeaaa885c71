//! The route table.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::RandomState;
use gantry_model::{
    ContainerId, Generation, Phase, ProjectId, access::Policy, edge::WakePolicy,
    ssh::KeyFingerprint,
};
use gantry_store::{EdgeRecord, Epoch, Revision, RouteRecord, RouteSnapshot};
use papaya::HashMap;

use crate::{
    edge::{AliasRoute, Edges, Gate},
    keys::{KeyRoute, Keys},
    servers::{ServerIndex, Servers},
};

/// Where requests for one container go; copied out of the table, so that nothing is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The project that the container belongs to.
    pub project: ProjectId,
    /// The container.
    pub container: ContainerId,
    /// The server that it is on; [`Servers::name`] says how hostnames call it.
    pub server: ServerIndex,
    /// The start that this route is about. Connections of another generation must not be used:
    /// its address may belong to another tenant by now.
    pub generation: Generation,
    /// Whether it can be reached, and where.
    pub state: RouteState,
    /// Whether its owner has set anything about its requests: then they have to pass the gate that
    /// [`RouteTable::gate`] has.
    pub gated: bool,
}

/// Whether a container can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteState {
    /// It runs.
    Running {
        /// Its address on the bridge.
        address: IpAddr,
        /// When this start was done, in milliseconds since the Unix epoch; 0 if that is not known.
        since_ms: i64,
    },
    /// It is being made or started; soon it runs or has failed.
    Starting,
    /// It is frozen.
    Paused,
    /// It is stopped or stopping.
    Stopped,
    /// It has failed.
    Failed,
}

/// Why there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// No container of this project has this id, it has no Kit, it is being deleted, or its server is
    /// none of this process's. Which of these is not told, so that ids cannot be probed.
    #[error("there is no such container")]
    Unknown,
    /// The hostname names another server than the container's. Clients are told the same as above.
    #[error("the hostname names another server than the container's")]
    OtherServer,
}

/// The routes of all containers that hostnames may lead to.
///
/// Changes go into the live table one by one; a request copies its one route out of it and so sees
/// one state from start to end. Memory: at most 200 octets for each container that has neither a gate
/// nor an alias.
#[derive(Debug)]
pub struct RouteTable {
    // Keys are random ids, so the fast hash is enough: what strangers choose is only looked up, and
    // the seed differs from process to process.
    routes: HashMap<ContainerId, Stored, RandomState>,
    edges: Edges,
    keys: Keys,
    servers: Servers,
    epoch: Epoch,
    revision: AtomicU64,
}

impl RouteTable {
    /// The table of a snapshot, with routes to the containers of these servers.
    pub fn build(snapshot: &RouteSnapshot, servers: &Servers) -> Self {
        Self::build_after(snapshot, servers, 0)
    }

    /// The table of a snapshot, to stand in the place of this one. Its gates have other serials.
    pub(crate) fn rebuild(&self, snapshot: &RouteSnapshot) -> Self {
        Self::build_after(snapshot, &self.servers, self.edges.last_serial())
    }

    fn build_after(snapshot: &RouteSnapshot, servers: &Servers, last_serial: u64) -> Self {
        let routes = HashMap::builder()
            .hasher(RandomState::default())
            .capacity(snapshot.containers.len())
            .build();
        let table = Self {
            routes,
            edges: Edges::after(last_serial),
            keys: Keys::new(),
            servers: servers.clone(),
            epoch: snapshot.epoch,
            revision: AtomicU64::new(snapshot.revision.0),
        };
        let pinned = table.routes.pin();
        for record in &snapshot.containers {
            table.keys.put(record.container, table.key(record));
            let Some(route) = table.route(record) else { continue };
            if let Some(edge) = &record.edge {
                table.edges.put(&route, edge);
            }
            pinned.insert(route.container, Stored::from(route));
        }
        drop(pinned);
        table
    }

    /// Takes over the present records of some containers, `None` for one that is gone. Afterwards
    /// the table is at `revision`.
    ///
    /// May be repeated; only one task may call this at a time.
    pub fn apply(&self, records: &[(ContainerId, Option<RouteRecord>)], revision: Revision) {
        let pinned = self.routes.pin();
        for (container, record) in records {
            let route = record.as_ref().and_then(|record| self.route(record));
            let key = record.as_ref().and_then(|record| self.key(record));
            self.keys.put(*container, key);
            let edge = record.as_ref().and_then(|record| record.edge.as_deref());
            // Whoever sees a new route finds its gate, so a gate comes before and goes after.
            if let (Some(route), Some(edge)) = (&route, edge) {
                self.edges.put(route, edge);
            }
            match route {
                Some(route) => pinned.insert(*container, Stored::from(route)),
                None => pinned.remove(container),
            };
            if route.is_none() || edge.is_none() {
                self.edges.remove(*container);
            }
        }
        self.revision.store(revision.0, Ordering::Release);
    }

    /// Finds the route of a container that a hostname names with its project.
    ///
    /// Takes no lock and allocates nothing.
    pub fn lookup(&self, project: ProjectId, container: ContainerId) -> Result<Route, NoRoute> {
        match self.routes.pin().get(&container) {
            Some(stored) if stored.project == project => Ok(stored.route(container)),
            Some(_) | None => Err(NoRoute::Unknown),
        }
    }

    /// As [`RouteTable::lookup`], for a hostname with this server label.
    pub fn lookup_on(
        &self,
        server: &str,
        project: ProjectId,
        container: ContainerId,
    ) -> Result<Route, NoRoute> {
        let route = self.lookup(project, container)?;
        if self.servers.name(route.server) == server {
            Ok(route)
        } else {
            Err(NoRoute::OtherServer)
        }
    }

    /// Whether a container with a route is on the server with this label.
    pub fn is_on(&self, server: &str, container: ContainerId) -> bool {
        let routes = self.routes.pin();
        routes.get(&container).is_some_and(|stored| self.servers.name(stored.server) == server)
    }

    /// What requests to a container have to pass now; ask when its route says that it is gated.
    /// Nothing if all that its owner had set was taken back since the route was looked up, or if it
    /// is gone.
    pub fn gate(&self, container: ContainerId) -> Option<Arc<Gate>> {
        self.edges.gate(container)
    }

    /// The containers whose owners want them paused when they are idle, and after how many seconds;
    /// in no order.
    pub fn sleepers(&self) -> Vec<(Route, u32)> {
        let routes = self.routes.pin();
        let sleeper =
            |(container, after_s)| Some((routes.get(&container)?.route(container), after_s));
        self.edges.sleepers().into_iter().filter_map(sleeper).collect()
    }

    /// Where an alias below a server's label leads, by its own label in lower case; also when it is off
    /// or expired.
    pub fn alias(&self, server: &str, label: &str) -> Option<Arc<AliasRoute>> {
        self.edges.alias(label).filter(|alias| self.is_on(server, alias.container))
    }

    /// Where a custom hostname leads, by its text in lower case and without a final dot; also when
    /// its alias is off or expired.
    pub fn custom(&self, hostname: &str) -> Option<Arc<AliasRoute>> {
        self.edges.hostname(hostname)
    }

    /// The container that an SSH key opens, also one without a Kit, or that does not run. Nothing for a
    /// key that no container has.
    pub fn by_key(&self, key: &KeyFingerprint) -> Option<Arc<KeyRoute>> {
        self.keys.get(key)
    }

    /// The revision of the store that the table has caught up with.
    pub fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    /// The history that the revision belongs to.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many containers have a route.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether no container has a route.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// A copy of all routes, in no order; for tests and for people who ask.
    pub fn routes(&self) -> Vec<Route> {
        self.routes.pin().iter().map(|(container, stored)| stored.route(*container)).collect()
    }

    /// What a record means for requests.
    fn route(&self, record: &RouteRecord) -> Option<Route> {
        route(record, self.servers.index(record.server)?)
    }

    /// What a record means for SSH.
    fn key(&self, record: &RouteRecord) -> Option<(KeyFingerprint, KeyRoute)> {
        let key = record.ssh_key?;
        let server = self.servers.index(record.server)?;
        let edge = record.edge.as_deref();
        let merge =
            |edge: &EdgeRecord| Policy::merge(edge.project.as_deref(), edge.container.as_deref());
        let route = KeyRoute {
            project: record.project,
            container: record.container,
            server,
            generation: record.generation,
            state: state(record)?,
            policy: edge.and_then(merge).map(Arc::new),
            forwards: record.ssh_forwarding,
            wakes: edge.is_some_and(|edge| {
                matches!(edge.settings.wake, WakePolicy::Any | WakePolicy::Authed)
            }),
        };
        Some((key, route))
    }

    /// Puts back a route whose record cannot be read at present, with all that `from` has of it.
    pub(crate) fn keep(&self, route: Route, from: &Self) {
        self.edges.keep(route.container, &from.edges);
        self.routes.pin().insert(route.container, Stored::from(route));
    }
}

/// A [`Route`] as the table keeps it. Together with its key it fills one cache line, since a lookup
/// in a large table costs what it touches.
#[derive(Clone, Copy, Debug)]
struct Stored {
    /// An IPv4 address takes the first four.
    address: [u8; 16],
    since_ms: i64,
    generation: Generation,
    project: ProjectId,
    server: ServerIndex,
    state: State,
    gated: bool,
}

/// The state without what goes with it.
#[derive(Clone, Copy, Debug)]
enum State {
    Running4,
    Running6,
    Starting,
    Paused,
    Stopped,
    Failed,
}

const _: () = assert!(size_of::<(ContainerId, Stored)>() == 64);

impl From<Route> for Stored {
    fn from(route: Route) -> Self {
        let Route { project, container: _, server, generation, state, gated } = route;
        let (state, address, since_ms) = match state {
            RouteState::Running { address: IpAddr::V4(address), since_ms } => {
                let [a, b, c, d] = address.octets();
                (State::Running4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], since_ms)
            }
            RouteState::Running { address: IpAddr::V6(address), since_ms } => {
                (State::Running6, address.octets(), since_ms)
            }
            RouteState::Starting => (State::Starting, [0; 16], 0),
            RouteState::Paused => (State::Paused, [0; 16], 0),
            RouteState::Stopped => (State::Stopped, [0; 16], 0),
            RouteState::Failed => (State::Failed, [0; 16], 0),
        };
        Self { address, since_ms, generation, project, server, state, gated }
    }
}

impl Stored {
    fn route(&self, container: ContainerId) -> Route {
        let Self { address, since_ms, generation, project, server, state, gated } = *self;
        let state = match state {
            State::Running4 => {
                let [a, b, c, d, ..] = address;
                RouteState::Running { address: [a, b, c, d].into(), since_ms }
            }
            State::Running6 => RouteState::Running { address: address.into(), since_ms },
            State::Starting => RouteState::Starting,
            State::Paused => RouteState::Paused,
            State::Stopped => RouteState::Stopped,
            State::Failed => RouteState::Failed,
        };
        Route { project, container, server, generation, state, gated }
    }
}

/// What a record means for requests; nothing if no hostname leads to the container.
fn route(record: &RouteRecord, server: ServerIndex) -> Option<Route> {
    if !record.hoody_kit {
        return None;
    }
    let state = state(record)?;
    let RouteRecord { project, container, generation, .. } = *record;
    let gated = record.edge.as_ref().is_some_and(|edge| edge.is_gated());
    Some(Route { project, container, server, generation, state, gated })
}

/// Where a container stands; nothing for one that is being deleted.
fn state(record: &RouteRecord) -> Option<RouteState> {
    Some(match (record.phase, record.address) {
        (Phase::Running, Some(address)) => {
            RouteState::Running { address, since_ms: record.started_at_ms.unwrap_or(0) }
        }
        // It runs, but where is not recorded yet.
        (Phase::Running, None)
        | (Phase::Creating | Phase::Copying | Phase::Claiming | Phase::Starting, _) => {
            RouteState::Starting
        }
        (Phase::Paused, _) => RouteState::Paused,
        (Phase::Stopping | Phase::Stopped, _) => RouteState::Stopped,
        (Phase::Failed, _) => RouteState::Failed,
        (Phase::Deleting, _) => return None,
    })
}
