//! What looks after all certificates of an installation.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gantry_model::{Chain, Domain};
use gantry_store::{CertificateRecord, Store};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Authority, Dns,
    demand::Demand,
    figures::Figures,
    plan,
    shared::{CLOCK_MAX_MS, Ca, Shared, Work},
};
use crate::{Clock, Seal, Shelf};

/// How many certificates are worked at in one moment: those of the installation itself, and others. They have
/// places apart, so that no customer's names hold the installation's own up.
const OWN_AT_ONCE: usize = 2;
const AT_ONCE: usize = 4;
/// The longest time without a look at what is due.
const NAP_MAX: Duration = Duration::from_mins(1);
/// The shortest: what is due may be somebody else's work at present.
const NAP_MIN: Duration = Duration::from_secs(1);
/// The least time between two passes.
const BREATH: Duration = Duration::from_millis(250);
/// How long a name is not looked up again that may have no certificate, or is tried again by itself.
const PUT_OFF_FOR: Duration = Duration::from_mins(1);
/// When records that could not be removed are tried again.
const CLEAN_AGAIN: Duration = Duration::from_mins(10);
/// The most names of one certificate that every CA takes.
const NAMES_MAX: usize = 100;

/// A certificate that an installation wants by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is called.
    pub name: String,
    /// What it is for.
    pub hostnames: Vec<String>,
}

impl Wanted {
    /// As few certificates as hold these names.
    pub fn of(hostnames: &[String]) -> Vec<Self> {
        let chunks = hostnames.chunks(NAMES_MAX);
        chunks
            .filter_map(|chunk| {
                Some(Self { name: chunk.first()?.clone(), hostnames: chunk.to_vec() })
            })
            .collect()
    }
}

/// What an [`Issuer`] stands on.
pub struct IssuerDeps {
    /// Where everything is kept.
    pub store: Store,
    /// Seals keys.
    pub seal: Arc<dyn Seal>,
    /// The present time.
    pub clock: Clock,
    /// What shows certificates.
    pub shelf: Arc<Shelf>,
    /// What is counted.
    pub figures: Arc<Figures>,
    /// The CAs, the preferred one first.
    pub authorities: Vec<Authority>,
    /// How names of the installation are proved; without, no wildcard can be had.
    pub dns: Option<Dns>,
    /// The domain of the installation: names in it are proved at the domain name system.
    pub domain: Domain,
    /// Whether a name outside of it may have a certificate. Must not wait.
    pub permits: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// How long a process may be silent until another takes its work over.
    pub lease: Duration,
}

/// Orders and renews certificates.
pub struct Issuer {
    shared: Arc<Shared>,
    wanted: Vec<Wanted>,
    permits: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    demand: Arc<Demand>,
    cleaned: HashMap<String, tokio::time::Instant>,
    running: Arc<Mutex<HashSet<String>>>,
    own_places: Arc<Semaphore>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Issuer {
    /// An issuer that sees to it that `wanted` is there, and whatever clients ask for and may have.
    pub fn new(deps: IssuerDeps, wanted: Vec<Wanted>) -> Result<Self, getrandom::Error> {
        let mut holder = [0; 16];
        getrandom::fill(&mut holder)?;
        let cas = deps.authorities.iter();
        let cas = cas.map(|it| (it.directory.clone(), Ca::new(Arc::clone(&deps.clock)))).collect();
        let shared = Shared {
            store: deps.store,
            seal: deps.seal,
            shelf: deps.shelf,
            figures: deps.figures,
            authorities: deps.authorities,
            dns: deps.dns,
            clock: deps.clock,
            domain: deps.domain,
            cas,
            holder,
            lease: deps.lease,
        };
        Ok(Self {
            shared: Arc::new(shared),
            wanted,
            permits: deps.permits,
            demand: Arc::default(),
            cleaned: HashMap::new(),
            running: Arc::default(),
            own_places: Arc::new(Semaphore::new(OWN_AT_ONCE)),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            tasks: TaskTracker::new(),
        })
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Takes the name of a client that found no certificate; for [`crate::Resolver::on_missing`]. Never waits: what
    /// there is no room for, somebody will ask for again.
    pub fn demand(&self) -> impl Fn(&str) + Send + Sync + 'static + use<> {
        let (demand, permits) = (Arc::clone(&self.demand), Arc::clone(&self.permits));
        move |name| {
            // Whoever asks for names at random fills no queue.
            if permits(name) {
                demand.ask(name);
            }
        }
    }

    /// Works until `shutdown`; orders under way are left where they are, and gone on with later.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut seen = self.shared.shelf.seen();
        while !shutdown.is_cancelled() {
            let nap = match self.pass(&shutdown).await {
                Ok(nap) => nap,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "cannot look after certificates");
                    NAP_MIN
                }
            };
            seen.mark_unchanged();
            self.nap(nap, &mut seen, &shutdown).await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Waits until the next pass makes sense. What clients ask for in vain makes none.
    async fn nap(
        &mut self,
        nap: Duration,
        seen: &mut watch::Receiver<u64>,
        shutdown: &CancellationToken,
    ) {
        let now = tokio::time::Instant::now();
        let (soon, end) = (now + BREATH, now + nap);
        let demand = Arc::clone(&self.demand);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep_until(end) => return,
                name = demand.next() => if !self.look_up(name).await {
                    continue;
                },
                changed = seen.changed() => drop(changed),
            }
            tokio::time::sleep_until(soon).await;
            return;
        }
    }

    /// Begins what is due. Gives the time until the next look.
    async fn pass(&mut self, shutdown: &CancellationToken) -> gantry_store::Result<Duration> {
        let now = self.shared.now_ms();
        let mut records = self.shared.store.certificates().await?;
        for wanted in &self.wanted {
            let is_noted = |record: &CertificateRecord| {
                record.name == wanted.name && record.hostnames == wanted.hostnames
            };
            if !records.iter().any(is_noted) {
                self.shared.store.want_certificate(&wanted.name, &wanted.hostnames, now).await?;
                records = self.shared.store.certificates().await?;
            }
        }
        let orders = self.shared.store.acme_orders().await?;
        let mut next = self.begin_revocations(now, shutdown).await?;
        let mut due = Vec::new();
        for record in records {
            if self.is_wanted(&record) {
                if self.is_of_no_ca(&record) && record.attempts == 0 && record.due_at_ms > now {
                    // Another CA was configured: what that one issued is replaced.
                    self.shared.store.hasten_certificate(&record.name, now).await?;
                }
                match u64::try_from(due_at(&record, now) - now) {
                    Ok(left @ 1..) => next = next.min(Duration::from_millis(left)),
                    Ok(0) | Err(_) => due.push(record),
                }
            } else if record.due_at_ms <= now {
                self.begin(&record.name, Work::Forget, shutdown);
            }
        }
        if !due.is_empty() {
            next = NAP_MIN;
        }
        for record in plan::in_turn(due) {
            self.begin(&record.name, Work::Look, shutdown);
        }
        self.clean_from_time_to_time(&orders, shutdown);
        let shared = &self.shared;
        shared.figures.look(&shared.authorities, &shared.store, now).await?;
        Ok(next.max(NAP_MIN))
    }

    /// Begins what CAs are to be told of revoked certificates. Gives the time until the next of these.
    async fn begin_revocations(
        &mut self,
        now: i64,
        shutdown: &CancellationToken,
    ) -> gantry_store::Result<Duration> {
        let mut next = NAP_MAX;
        for one in self.shared.store.revocations().await? {
            // One that has ended by itself needs nobody any more.
            if one.done_at_ms.is_some() || one.not_after_ms <= now {
                continue;
            }
            if one.due_at_ms <= now {
                self.begin(&one.certificate, Work::Revoke, shutdown);
            }
            let left = u64::try_from(one.due_at_ms - now).unwrap_or(0);
            next = next.min(Duration::from_millis(left));
        }
        Ok(next)
    }

    /// Orders whose records could not be removed are looked at again, and those of a certificate that is gone.
    fn clean_from_time_to_time(&mut self, orders: &[String], shutdown: &CancellationToken) {
        let now = tokio::time::Instant::now();
        self.cleaned.retain(|name, _| orders.contains(name));
        for name in orders {
            let last = self.cleaned.get(name);
            if last.is_none_or(|last| now.duration_since(*last) >= CLEAN_AGAIN) {
                self.cleaned.insert(name.clone(), now);
                self.begin(name, Work::Clean, shutdown);
            }
        }
    }

    fn is_of_no_ca(&self, record: &CertificateRecord) -> bool {
        let issued = record.issued.as_ref();
        issued.is_some_and(|issued| {
            self.shared.authorities.iter().all(|it| it.directory != issued.directory)
        })
    }

    fn is_wanted(&self, record: &CertificateRecord) -> bool {
        self.wanted.iter().any(|wanted| wanted.name == record.name)
            || record.hostnames.iter().all(|name| (self.permits)(name))
    }

    /// Works at a certificate on a task of its own, unless one does already or there is no place: then a later
    /// pass begins it.
    fn begin(&mut self, name: &str, work: Work, shutdown: &CancellationToken) {
        let is_own = self.wanted.iter().any(|wanted| wanted.name == name);
        let places = if is_own { &self.own_places } else { &self.places };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else { return };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !running.insert(name.to_owned()) {
            return;
        }
        drop(running);
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        let done = Done { running: Arc::clone(&self.running), name: name.clone() };
        let shutdown = shutdown.clone();
        self.tasks.spawn(async move {
            let (_done, _place) = (done, place);
            shared.work(&name, work, &shutdown).await;
        });
    }

    /// A client has asked for a name that has no certificate. Says whether there may be something to do.
    async fn look_up(&self, name: String) -> bool {
        if self.shared.is_own(&name) || !(self.permits)(&name) {
            self.demand.put_off(name, PUT_OFF_FOR);
            return false;
        }
        match self.want(&name).await {
            // After a failure it is tried again by itself.
            Ok(left @ 1..) => {
                self.demand.put_off(name, Duration::from_millis(left).min(PUT_OFF_FOR));
                return false;
            }
            Ok(0) => {}
            Err(error) => {
                tracing::warn!(name, error = %Chain(&error), "a certificate cannot be wanted");
            }
        }
        // Whether it is new or pending, the next pass sees it; until then nobody asks the store again.
        self.demand.put_off(name, NAP_MIN);
        true
    }

    /// Notes that a name is to have a certificate. Gives how long it is until something is due, in milliseconds.
    async fn want(&self, name: &str) -> gantry_store::Result<u64> {
        let (store, now) = (&self.shared.store, self.shared.now_ms());
        let hostnames = [name.to_owned()];
        let known = store.certificate(name).await?;
        let record = match known.filter(|record| record.hostnames == hostnames) {
            Some(record) => record,
            None => store.want_certificate(name, &hostnames, now).await?,
        };
        Ok(u64::try_from(due_at(&record, now) - now).unwrap_or(0))
    }
}

/// When there is something to do for a certificate: an attempt, or the question when to renew.
fn due_at(record: &CertificateRecord, now: i64) -> i64 {
    if record.updated_at_ms > now + CLOCK_MAX_MS {
        // Planned by a clock that was ahead.
        return now;
    }
    let ask_at = record.issued.as_ref().map(|_| record.asked_at_ms.unwrap_or(0));
    ask_at.map_or(record.due_at_ms, |ask| ask.min(record.due_at_ms))
}

/// Takes the name out of the running ones at the end of its task, however that ends.
struct Done {
    running: Arc<Mutex<HashSet<String>>>,
    name: String,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl fmt::Debug for IssuerDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerDeps")
            .field("authorities", &self.authorities)
            .field("dns", &self.dns)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}
