//! What every use case stands on.

use std::sync::{Arc, Mutex};

use gantry_model::{Domain, ServerId, ServerName};
use gantry_store::{Quotas, Revision, Store};
use tokio::sync::{broadcast, watch};

use crate::{
    activity::HEARD_MAX,
    clock::Clock,
    error::{Error, Result, Thing},
    idempotency::Unsettled,
    inside::Looks,
    names::Names,
    password::Passwords,
    seal::{SealingKeys, Unopened},
    secrets::{self, Plain},
    servers::Servers,
    session::SessionKeys,
    signing::{Signer, Signing},
    throttle::Throttle,
};

/// What a [`Controller`] is made of.
pub struct Deps {
    /// Where records live.
    pub store: Store,
    /// The servers that this process runs.
    pub servers: Servers,
    /// The operator's domain.
    pub domain: Domain,
    /// The port that clients reach the edge on; URLs name it unless it is 443.
    pub url_port: u16,
    /// The time of day.
    pub clock: Clock,
    /// The domain name system, which proves custom hostnames.
    pub names: Arc<dyn Names>,
    /// The revision that the edge's routes have come to, so that writes can say whether they are in
    /// effect; unknown when absent.
    pub published: Option<watch::Receiver<Revision>>,
    /// Bounds that an operator may change.
    pub limits: Limits,
    /// What secrets in the store are sealed with.
    pub sealing: SealingKeys,
    /// What is signed.
    pub signing: Signing,
}

/// Bounds that an operator may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failed logins from one address within `login_window_ms` before more are refused.
    pub login_failures_per_address_max: u32,
    /// Failed logins to one account from one address within `login_window_ms`.
    pub login_failures_per_account_max: u32,
    /// How long failed logins count, in milliseconds.
    pub login_window_ms: i64,
    /// Password hashes computed at the same time; each takes 19 MiB and a processor.
    pub password_hashes_max: usize,
    /// Logins waiting for their turn; more are refused as busy.
    pub password_queue_max: usize,
    /// Containers of one project whose deletion is waited for, in milliseconds.
    pub project_delete_timeout_ms: u64,
    /// Containers that one user may have, unless an administrator has set another number for it.
    pub containers_per_user_max: u32,
    /// Containers of one user that may run or be paused, unless an administrator has set another number.
    pub running_containers_per_user_max: u32,
    /// Containers of all users on one server.
    pub containers_per_server_max: u32,
    /// Projects that one user may have, unless an administrator has set another number for it.
    pub projects_per_user_max: u32,
    /// API tokens that one user may have.
    pub tokens_per_user_max: usize,
    /// Aliases that one user may have.
    pub aliases_per_user_max: u32,
    /// Snapshots that one user may have, those of deleted containers included.
    pub snapshots_per_user_max: u32,
    /// Snapshots that one container may have.
    pub snapshots_per_container_max: u32,
    /// Members that one project may have, at most [`crate::MEMBERS_MAX`].
    pub members_per_project_max: u32,
    /// Keys in the vault of one user, in all of its realms.
    pub vault_keys_per_user_max: u32,
    /// Octets of values and metadata in the vault of one user, in all of its realms.
    pub vault_octets_per_user_max: u64,
    /// Storage shares from one container, and as many to one container or project.
    pub shares_per_container_max: u32,
    /// Storage shares from all containers of one user.
    pub shares_per_user_max: u32,
    /// Containers of one user that may wait in the warm pool.
    pub prespawned_per_user_max: u32,
    /// Containers of all users that may wait in the warm pool of one server.
    pub prespawned_per_server_max: u32,
    /// How long the name of a removed alias waits for its last owner only, in milliseconds.
    pub alias_quarantine_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            login_failures_per_address_max: 1000,
            login_failures_per_account_max: 100,
            login_window_ms: 30 * 60 * 1000,
            password_hashes_max: std::thread::available_parallelism().map_or(2, usize::from),
            password_queue_max: 64,
            project_delete_timeout_ms: 25_000,
            containers_per_user_max: 1000,
            running_containers_per_user_max: 1000,
            containers_per_server_max: 10_000,
            projects_per_user_max: 1000,
            tokens_per_user_max: 1000,
            aliases_per_user_max: 1000,
            snapshots_per_user_max: 2000,
            snapshots_per_container_max: 1000,
            members_per_project_max: 100,
            vault_keys_per_user_max: 1000,
            vault_octets_per_user_max: 10 << 20,
            shares_per_container_max: 100,
            shares_per_user_max: 1000,
            prespawned_per_user_max: 10,
            prespawned_per_server_max: 100,
            alias_quarantine_ms: 7 * 24 * 60 * 60 * 1000,
        }
    }
}

impl Limits {
    /// Those that the store keeps to.
    const fn quotas(self) -> Quotas {
        Quotas {
            containers_per_user: self.containers_per_user_max,
            running_containers_per_user: self.running_containers_per_user_max,
            projects_per_user: self.projects_per_user_max,
            containers_per_server: self.containers_per_server_max,
        }
    }
}

/// One method per use case: authorise, check, write records. A cheap handle.
///
/// Methods may be dropped at any await: a record is either written whole or not at all.
#[derive(Clone)]
pub struct Controller {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) servers: Servers,
    pub(crate) domain: Domain,
    pub(crate) url_port: u16,
    pub(crate) clock: Clock,
    pub(crate) names: Arc<dyn Names>,
    pub(crate) published: Option<watch::Receiver<Revision>>,
    pub(crate) limits: Limits,
    pub(crate) sessions: SessionKeys,
    pub(crate) pepper: Vec<u8>,
    pub(crate) sealing: Arc<SealingKeys>,
    pub(crate) signing: Signing,
    /// Absent when nothing is signed.
    pub(crate) signer: Option<Signer>,
    pub(crate) host_key_seed: [u8; 32],
    pub(crate) passwords: Passwords,
    /// What runs inside containers.
    pub(crate) looks: Looks,
    /// Short sections only, never held across an await.
    pub(crate) throttle: Mutex<Throttle>,
    /// What could not be written of requests with idempotency keys.
    pub(crate) unsettled: Unsettled,
    /// Tells of what is written through the API.
    pub(crate) written: broadcast::Sender<gantry_store::Activity>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("servers", &self.inner.servers).finish_non_exhaustive()
    }
}

impl Controller {
    /// Loads (the first time: makes) the secrets of the installation.
    pub async fn new(deps: Deps) -> Result<Self> {
        let Deps {
            store,
            servers,
            domain,
            url_port,
            clock,
            names,
            published,
            limits,
            sealing,
            signing,
        } = deps;
        let store = store
            .with_quotas(limits.quotas())
            .with_servers(servers.iter().map(|served| served.server.id));
        let secret = |name, plain| secrets::load(&store, &sealing, name, plain);
        let sessions = SessionKeys::new(&secret("session-key", Plain::Replace).await?);
        let pepper = secret("token-pepper", Plain::Seal).await?;
        let host_key_seed = secret("ssh-host-key", Plain::Replace).await?;
        let host_key_seed =
            host_key_seed.try_into().map_err(|_other_length| Error::Sealed(Unopened::Damaged))?;
        let signer = match signing {
            Signing::Off => None,
            Signing::Claims | Signing::Answers => {
                Some(Signer::new(&secret("signing-key", Plain::Replace).await?)?)
            }
        };
        let passwords =
            Passwords::new(limits.password_hashes_max, limits.password_queue_max).await?;
        let throttle = Mutex::new(Throttle::new(limits.login_window_ms));
        let inner = Inner {
            store,
            servers,
            domain,
            url_port,
            clock,
            names,
            published,
            limits,
            sessions,
            pepper,
            sealing: Arc::new(sealing),
            signing,
            signer,
            host_key_seed,
            passwords,
            looks: Looks::default(),
            throttle,
            unsettled: Unsettled::default(),
            written: broadcast::Sender::new(HEARD_MAX),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The keys that seal what shall not be readable in the store.
    pub fn sealing(&self) -> Arc<SealingKeys> {
        Arc::clone(&self.inner.sealing)
    }

    /// The servers that this process runs.
    pub fn servers_here(&self) -> &Servers {
        &self.inner.servers
    }

    /// The operator's domain.
    pub fn domain(&self) -> &Domain {
        &self.inner.domain
    }

    /// The port that clients reach the edge on.
    pub fn url_port(&self) -> u16 {
        self.inner.url_port
    }

    /// The clock that records are stamped by.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.inner.clock.now_ms()
    }

    /// How much users may have.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The label of a server in hostnames.
    pub(crate) async fn server_name(&self, id: ServerId) -> Result<ServerName> {
        if let Some(served) = self.inner.servers.get(id) {
            return Ok(served.server.name.clone());
        }
        let servers = self.store().servers().await?;
        let other = servers.into_iter().find(|server| server.id == id);
        other.map(|server| server.name).ok_or(Error::NotFound(Thing::Server))
    }
}

/// The attempts of a compare-and-swap loop before it gives up with [`crate::Error::Conflict`].
pub(crate) const CAS_ATTEMPTS: u32 = 16;
