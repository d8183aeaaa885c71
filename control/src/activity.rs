//! The log of what was written through the API: who asked for what, from where, with what result.

use std::net::IpAddr;

use gantry_model::{RealmId, TokenId, UserId};
use gantry_store::{Activity, ActivityFilter, ActivityTotals, Listed, Page};
use tokio::sync::broadcast;

use crate::{actor::Actor, controller::Controller, error::Result, permissions::Leaf, random};

/// How long entries are kept, in days.
pub const RETENTION_DAYS: u32 = 90;
/// The same in milliseconds.
pub(crate) const KEPT_MS: i64 = RETENTION_DAYS as i64 * 86_400_000;
/// The entries that wait for whoever hears of them as they are written, at most.
pub(crate) const HEARD_MAX: usize = 256;
/// The longest text of an entry, in characters.
const TEXT_MAX: usize = 512;

/// A request that was no read, and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Written<'w> {
    /// Who asked.
    pub user: UserId,
    /// The token that it was asked with, if it was one.
    pub token: Option<TokenId>,
    /// The realm of the host that was asked.
    pub realm: Option<RealmId>,
    /// The method.
    pub method: &'w str,
    /// The path, without its query.
    pub path: &'w str,
    /// The status of the answer.
    pub status: u16,
    /// Where it came from.
    pub client: Option<IpAddr>,
    /// What the client called itself.
    pub user_agent: Option<&'w str>,
    /// Whether it was about passwords, sessions or tokens.
    pub security: bool,
}

/// Which entries are asked for.
#[derive(Clone, Debug, Default)]
pub struct ActivityQuery {
    /// Only those in this realm; must be the host's realm if that has one.
    pub realm: Option<RealmId>,
    /// Only those with this method.
    pub method: Option<String>,
    /// Only those answered with this status or a greater one.
    pub status_min: Option<u16>,
    /// Only those answered with this status or a smaller one.
    pub status_max: Option<u16>,
    /// Only those of this time or later, in milliseconds since the epoch.
    pub from_ms: Option<i64>,
    /// Only those of this time or earlier, in milliseconds since the epoch.
    pub to_ms: Option<i64>,
    /// Only those about passwords, sessions and tokens.
    pub security: bool,
    /// Which page; 1 and up.
    pub page: u32,
    /// How many entries a page has.
    pub limit: u32,
    /// Whether the newest come first.
    pub descending: bool,
}

/// The entries of one user, as they are written. Who is too slow misses some: they can be listed.
#[derive(Debug)]
pub struct ActivityFeed {
    entries: broadcast::Receiver<Activity>,
    owner: UserId,
    realm: Option<RealmId>,
}

impl ActivityFeed {
    /// The next entry; nothing once the control plane has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Activity> {
        loop {
            match self.entries.recv().await {
                Ok(entry) if entry.owner == self.owner && self.is_in_realm(&entry) => {
                    return Some(entry);
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    fn is_in_realm(&self, entry: &Activity) -> bool {
        self.realm.is_none() || self.realm == entry.realm
    }
}

impl Controller {
    /// Keeps an entry about a request. A failure costs the entry and is logged: the request has had its
    /// effect by then.
    pub async fn note_written(&self, written: Written<'_>) {
        if let Err(error) = self.keep(written).await {
            tracing::warn!(%error, "an entry of the activity log was not kept");
        }
    }

    async fn keep(&self, written: Written<'_>) -> Result<()> {
        let cut = |text: &str| text.chars().take(TEXT_MAX).collect::<String>();
        let entry = Activity {
            id: random::id()?,
            owner: written.user,
            token: written.token,
            realm: written.realm,
            method: cut(written.method),
            path: cut(written.path),
            status: written.status,
            ip: written.client.map(|ip| ip.to_canonical().to_string()),
            user_agent: written.user_agent.map(cut),
            security: written.security,
            at_ms: self.now_ms(),
        };
        self.store().add_activity(&entry).await?;
        // It fails where nobody listens.
        drop(self.inner.written.send(entry));
        Ok(())
    }

    /// What the actor's user writes from now on.
    pub fn activity_feed(&self, actor: &Actor) -> Result<ActivityFeed> {
        actor.require(Leaf::ResourcesReadAccount)?;
        let entries = self.inner.written.subscribe();
        Ok(ActivityFeed { entries, owner: actor.user, realm: actor.realm })
    }

    /// One page of what the actor's user has written.
    pub async fn activity(&self, actor: &Actor, query: ActivityQuery) -> Result<Listed<Activity>> {
        actor.require(Leaf::ResourcesReadAccount)?;
        let filter = ActivityFilter {
            owner: Some(actor.user),
            realm: actor.realm_filter(query.realm)?,
            method: query.method,
            paths: Vec::new(),
            status_min: query.status_min,
            status_max: query.status_max,
            from_ms: query.from_ms,
            to_ms: query.to_ms,
            security: query.security,
        };
        let (page, limit, descending) = (query.page, query.limit, query.descending);
        Ok(self.store().activity(filter, Page { page, limit, sort: (), descending }).await?)
    }

    /// When and from where the last requests of a user to one of these paths were good, newest first. For whoever has
    /// just proved to be that user.
    pub async fn last_good(
        &self,
        user: UserId,
        paths: &[&str],
        limit: u32,
    ) -> Result<Vec<Activity>> {
        let filter = ActivityFilter {
            owner: Some(user),
            paths: paths.iter().copied().map(str::to_owned).collect(),
            status_max: Some(299),
            ..ActivityFilter::default()
        };
        let page = Page { page: 1, limit, sort: (), descending: true };
        Ok(self.store().activity(filter, page).await?.items)
    }

    /// How much of what the actor's user has written is kept.
    pub async fn activity_totals(&self, actor: &Actor) -> Result<ActivityTotals> {
        actor.require(Leaf::ResourcesReadAccount)?;
        Ok(self.store().activity_totals(actor.user, actor.realm).await?)
    }
}
