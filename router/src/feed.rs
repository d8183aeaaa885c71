//! The feed: the one task that writes the route table.

use std::{collections::HashSet, time::Duration};

use gantry_model::{Chain, ContainerId};
use gantry_store::{Change, Changes, Error, Revision, Store};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{Route, RouteTable, Routes, Servers};

/// After a round, changes gather for this long. The first change after a quiet time is taken at
/// once; a burst costs one round every few milliseconds.
const GATHER: Duration = Duration::from_millis(3);
/// The store is asked this often even if it says nothing: a lost hint costs a second, no more.
const POLL: Duration = Duration::from_secs(1);
/// The most changes taken in one step.
const CHANGES_MAX: u32 = 2_000;

/// Follows the store and keeps [`Routes`] up to date; the only writer of the table.
///
/// It acts on what records say now, never on what a change said, so that repeating a step is
/// harmless. While the store cannot be read the last good table stays; so does the last good route
/// of a record that cannot be read.
#[derive(Debug)]
pub struct Feed {
    store: Store,
    routes: Routes,
    /// Whether the last try failed; so that an outage is logged when it begins and when it ends.
    away: bool,
}

/// How far one step came.
enum Step {
    /// The table holds all that the store does.
    UpToDate,
    /// There is more to take.
    Behind,
}

impl Feed {
    /// Loads all routes to containers of these servers. Whoever opens a port does so after this, when every route is known.
    pub async fn start(store: Store, servers: &Servers) -> Result<(Routes, Self), Error> {
        let table = RouteTable::build(&store.load_routes().await?, servers);
        let routes = Routes::new(table);
        let feed = Self { store, routes: routes.clone(), away: false };
        Ok((routes, feed))
    }

    /// Follows the store until `shutdown`; returns within one step of it.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut head = self.store.head();
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A store that has stopped writing may still be read, and it says so when it cannot.
        let mut writer_gone = false;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                changed = head.changed(), if !writer_gone => writer_gone = changed.is_err(),
                _ = poll.tick() => {}
            }
            self.pass(&shutdown).await;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(GATHER) => {}
            }
        }
    }

    /// One round: catches up with the store, or notes why that is not possible.
    async fn pass(&mut self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            match self.step().await {
                Ok(Step::Behind) => {}
                Ok(Step::UpToDate) => {
                    if std::mem::take(&mut self.away) {
                        tracing::info!("the store can be read again; routes are up to date");
                    }
                    return self.routes.confirm();
                }
                Err(error) => {
                    let why = Chain(&error).to_string();
                    if !std::mem::replace(&mut self.away, true) {
                        tracing::error!(error = %why, "cannot follow the store; routes stay as they are");
                    }
                    return self.routes.fail(why);
                }
            }
        }
    }

    async fn step(&self) -> Result<Step, Error> {
        let (after, epoch) = {
            let table = self.routes.current();
            (table.revision(), table.epoch())
        };
        if self.store.epoch() != epoch {
            return self.relist("the store has another history").await;
        }
        match self.store.changes(after, CHANGES_MAX).await {
            Ok(Changes::Since { changes, head: _ }) => self.follow(after, &changes).await,
            Ok(Changes::Compacted) => self.relist("the changes since are gone").await,
            Ok(Changes::NewEpoch) => self.relist("the store has another history").await,
            // The history is of no use, but the records may well be.
            Err(Error::Corrupt { what }) => self.relist(&what).await,
            Err(error) => Err(error),
        }
    }

    /// Takes over the records that `changes` name.
    async fn follow(&self, after: Revision, changes: &[Change]) -> Result<Step, Error> {
        let Some(last) = changes.last() else { return Ok(Step::UpToDate) };
        if !(after.0 + 1..).zip(changes).all(|(want, change)| change.revision.0 == want) {
            return self.relist("the changes have a gap").await;
        }
        let mut seen = HashSet::with_capacity(changes.len());
        let ids: Vec<ContainerId> = changes
            .iter()
            .map(|change| change.container)
            .filter(|container| seen.insert(*container))
            .collect();
        let records = self.store.route_records(&ids).await?;
        self.routes.current().apply(&records, last.revision);
        self.routes.publish();
        Ok(Step::Behind)
    }

    /// Builds a new table from all records and publishes it.
    async fn relist(&self, why: &str) -> Result<Step, Error> {
        tracing::warn!(why, "loading all routes again");
        let snapshot = self.store.load_routes().await?;
        let table = self.routes.current().rebuild(&snapshot);
        let listed: HashSet<ContainerId> =
            snapshot.containers.iter().map(|record| record.container).collect();
        let missing: Vec<Route> = self
            .routes
            .current()
            .routes()
            .into_iter()
            .filter(|route| !listed.contains(&route.container))
            .collect();
        // What is listed no more is gone, or its record cannot be read; the latter stays.
        for missing in missing.chunks(CHANGES_MAX as usize) {
            let ids: Vec<ContainerId> = missing.iter().map(|route| route.container).collect();
            let records = self.store.route_records(&ids).await?;
            let known: HashSet<ContainerId> = records.iter().map(|(id, _)| *id).collect();
            table.apply(&records, snapshot.revision);
            for route in missing.iter().filter(|route| !known.contains(&route.container)) {
                table.keep(*route, &self.routes.current());
            }
        }
        self.routes.replace(table);
        self.routes.publish();
        Ok(Step::Behind)
    }
}
