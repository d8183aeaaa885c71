//! Connects the SSH front to the routes and to the control plane.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use async_trait::async_trait;
use gantry_control::{Controller, NoEntry, VisitSender, VisitTeller};
use gantry_model::{Chain, ContainerId, ssh::KeyFingerprint};
use gantry_router::{RouteState, Routes};
use gantry_ssh::{Balancers, Door, DoorState, Doors, Front, NoWay, Visit, Visitor, Ways, Witness};
use ipnet::IpNet;
use tokio::{net::TcpStream, sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::glue::now_ms;
use crate::config::EdgeConfig;

/// Keys lead to the containers that the route table has.
struct Keys {
    routes: Routes,
    changes: watch::Receiver<u64>,
}

impl Doors for Keys {
    fn find(&self, key: &KeyFingerprint) -> Option<Door> {
        let found = self.routes.current().by_key(key)?;
        let state = match found.state {
            RouteState::Running { .. } => DoorState::Open,
            RouteState::Starting => DoorState::Shut("is starting; try again in a moment"),
            RouteState::Paused | RouteState::Stopped if found.wakes => DoorState::Asleep,
            RouteState::Paused => {
                DoorState::Shut("is paused; resume it with `gantry containers manage ID resume`")
            }
            RouteState::Stopped => {
                DoorState::Shut("is stopped; start it with `gantry containers manage ID start`")
            }
            // Whoever has its key learns of that as of any other state, and nobody else does.
            RouteState::Failed => {
                DoorState::Shut("has failed; `gantry containers get ID` says why")
            }
        };
        let (container, generation) = (found.container, found.generation.0);
        Some(Door { container, generation, state, forwards: found.forwards })
    }

    fn admits(&self, key: &KeyFingerprint, address: IpAddr) -> bool {
        let found = self.routes.current().by_key(key);
        found.is_some_and(|found| {
            found.policy.as_ref().is_none_or(|policy| policy.admits_ssh(address))
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// The control plane knows the way in.
struct Entries {
    control: Controller,
    wake: Duration,
}

#[async_trait]
impl Ways for Entries {
    async fn open(&self, container: ContainerId) -> Result<OwnedFd, NoWay> {
        self.control.enter(container).await.map_err(|error| match error {
            NoEntry::NotRunning => NoWay::NotRunning,
            NoEntry::Paused => NoWay::Paused,
            NoEntry::NoPlace => NoWay::NoPlace,
            NoEntry::Store(_) | NoEntry::Runtime(_) => {
                tracing::error!(%container, error = %Chain(&error), "no way in for SSH");
                NoWay::Failed
            }
        })
    }

    async fn wake(&self, container: ContainerId) -> Result<(), NoWay> {
        self.control.wake(container, self.wake).await.map_err(|error| {
            tracing::warn!(%container, error = %Chain(&error), "SSH has not woken it");
            NoWay::NotRunning
        })
    }
}

/// The balancers of the configuration.
struct Listed(Vec<IpNet>);

#[async_trait]
impl Balancers for Listed {
    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    async fn client(&self, stream: &mut TcpStream) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
        let ends = gantry_proxy::carried_for(stream).await.map_err(io::Error::other)?;
        Ok(ends.map(|ends| (ends.source, ends.destination)))
    }
}

/// Owners hear of visits from the control plane, and whoever puts containers to sleep hears of use.
struct Visits {
    sender: VisitSender,
    activity: gantry_proxy::Activity,
}

impl Witness for Visits {
    fn hear(&self, visitor: &Visitor, visit: Visit) {
        let visit = match visit {
            Visit::Begun => gantry_control::Visit::Begun,
            Visit::Refused(refusal) => gantry_control::Visit::Refused(refusal.to_string()),
            Visit::Ended { lasted, received, sent, channels: _, why } => {
                gantry_control::Visit::Ended { lasted, received, sent, why }
            }
        };
        let visitor = gantry_control::Visitor {
            connection: visitor.connection,
            container: visitor.container,
            key: visitor.key,
            user: visitor.user.clone(),
            address: visitor.peer.ip(),
        };
        self.sender.send(visitor, visit);
    }

    fn active(&self, container: ContainerId) {
        self.activity.note(container, now_ms());
    }
}

/// The front, with its listeners, which [`Prepared::serve`] begins to serve: those of the process before, or new ones.
/// Without addresses there are none.
pub(super) struct Prepared {
    pub(super) front: Arc<Front>,
    listeners: Vec<TcpListener>,
    /// Those that run; what is told of visits goes on until they have ended.
    running: TaskTracker,
}

impl Prepared {
    /// What it listens on, for the process that is to follow.
    pub(super) fn share(&self) -> io::Result<Vec<TcpListener>> {
        self.listeners.iter().map(TcpListener::try_clone).collect()
    }

    /// Takes connections from now on, as tasks.
    pub(super) fn serve(&self, tasks: &mut JoinSet<&'static str>) -> io::Result<()> {
        for listener in self.share()? {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let front = Arc::clone(&self.front);
            tasks.spawn(self.running.track_future(async move {
                front.run(listener).await;
                "SSH front"
            }));
        }
        Ok(())
    }

    /// Leaves what comes to another process, which has the listeners, too.
    pub(super) fn close(&mut self) {
        self.front.close();
        self.listeners.clear();
    }
}

/// Opens the listeners.
pub(super) async fn prepare(
    edge: &EdgeConfig,
    control: &Controller,
    (routes, activity): (&Routes, &gantry_proxy::Activity),
    inherited: &mut gantry_proxy::Sockets,
    tasks: &mut JoinSet<&'static str>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Prepared> {
    let mut published = routes.published();
    let (tell, changes) = watch::channel(0);
    let follow = async move {
        while published.changed().await.is_ok() {
            tell.send_modify(|count| *count += 1);
        }
    };
    let follow = shutdown.clone().run_until_cancelled_owned(follow);
    tasks.spawn(async {
        follow.await;
        "follower of routes for SSH"
    });
    let doors = Keys { routes: routes.clone(), changes };
    let ways = Entries { control: control.clone(), wake: edge.wake };
    let (sender, teller) = VisitTeller::new(control.clone());
    let witness = Some(Arc::new(Visits { sender, activity: activity.clone() }) as _);
    let seed = control.host_key_seed();
    let front = Front::new(seed, Arc::new(doors), Arc::new(ways), witness, shutdown);
    let front = Arc::new(front.behind(Arc::new(Listed(edge.proxy_protocol_from.clone()))));
    let mut listeners = Vec::new();
    for &address in &edge.ssh {
        let failed = || format!("edge.ssh: cannot listen on {address}");
        let inherited = inherited.take(address);
        if inherited.is_empty() {
            let listener = tokio::net::TcpListener::bind(address).await.with_context(failed)?;
            listeners.push(listener.into_std().with_context(failed)?);
        }
        for listener in inherited {
            listener.set_nonblocking(true).with_context(failed)?;
            listeners.push(listener);
        }
    }
    let running = TaskTracker::new();
    let fronts = running.clone();
    // The ends of sessions are told, too.
    running.close();
    let (over, shutdown) = (CancellationToken::new(), shutdown.clone());
    let telling = teller.run(over.clone());
    tasks.spawn(async move {
        let ending = async {
            shutdown.cancelled().await;
            running.wait().await;
            over.cancel();
        };
        tokio::join!(telling, ending);
        "teller of visits"
    });
    Ok(Prepared { front, listeners, running: fronts })
}
