//! Renewal: new certificates long before the old ones end.

use std::{fmt, sync::Arc};

use gantry_model::Chain;
use time::{Duration, OffsetDateTime};
use tokio_util::sync::CancellationToken;

use crate::{DevCa, IssueError, LEAF_LIFETIME, Leaf, Resolver, Source};

/// Where the present time comes from.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// How old a certificate is when it is replaced: two thirds of its life.
pub(crate) const RENEW_AFTER: Duration = Duration::seconds(LEAF_LIFETIME.whole_seconds() / 3 * 2);
/// The longest nap. The clock may be set, and a laptop's timers stand still while it sleeps.
const NAP_MAX: std::time::Duration = std::time::Duration::from_mins(15);

/// Keeps the development CA's certificates of a [`Resolver`] fresh; their only writer.
pub struct Renewer {
    ca: DevCa,
    resolver: Arc<Resolver>,
    clock: Clock,
    held: Vec<Held>,
}

struct Held {
    leaf: Leaf,
    issued: OffsetDateTime,
}

impl Held {
    fn issue(ca: &DevCa, names: &[String], now: OffsetDateTime) -> Result<Self, IssueError> {
        let key = Arc::new(ca.issue(names, now)?);
        Ok(Self { leaf: Leaf { names: names.to_vec(), key }, issued: now })
    }

    /// Due also when it was issued in what is the future now: its validity may not have begun.
    fn is_due(&self, now: OffsetDateTime) -> bool {
        now >= self.issued + RENEW_AFTER || now < self.issued - Duration::minutes(30)
    }
}

impl Renewer {
    /// Issues one certificate for each set of names and publishes them; afterwards every name has
    /// one. The first set's is also shown to clients that name no server.
    pub fn start(
        ca: DevCa,
        name_sets: &[Vec<String>],
        clock: Clock,
    ) -> Result<(Arc<Resolver>, Self), IssueError> {
        let now = clock();
        let held = name_sets
            .iter()
            .map(|names| Held::issue(&ca, names, now))
            .collect::<Result<Vec<Held>, IssueError>>()?;
        let resolver = Arc::new(Resolver::new());
        let renewer = Self { ca, resolver: Arc::clone(&resolver), clock, held };
        renewer.publish();
        Ok((resolver, renewer))
    }

    /// Renews what is two thirds through its life, until `shutdown`. A failure is logged and tried
    /// again; the old certificate stays.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let nap = self.pass();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    /// One round: replaces what is due. Gives the time until the next round.
    fn pass(&mut self) -> std::time::Duration {
        let now = (self.clock)();
        let mut renewed = false;
        for held in &mut self.held {
            if !held.is_due(now) {
                continue;
            }
            match Held::issue(&self.ca, &held.leaf.names, now) {
                Ok(new) => {
                    tracing::info!(names = ?new.leaf.names, "renewed a certificate");
                    *held = new;
                    renewed = true;
                }
                Err(error) => {
                    tracing::error!(
                        names = ?held.leaf.names, error = %Chain(&error),
                        "cannot renew a certificate; the old one stays"
                    );
                }
            }
        }
        if renewed {
            self.publish();
        }
        let next = self.held.iter().map(|held| held.issued + RENEW_AFTER - now).min();
        let until = next.and_then(|until| std::time::Duration::try_from(until).ok());
        // What is overdue has failed just now; it gets a minute.
        until.unwrap_or_default().clamp(std::time::Duration::from_mins(1), NAP_MAX)
    }

    fn publish(&self) {
        let leafs = self.held.iter().map(|held| held.leaf.clone()).collect();
        self.resolver.publish(Source::Development, leafs);
    }
}

impl fmt::Debug for Renewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.held.iter().map(|held| &held.leaf.names).collect();
        f.debug_struct("Renewer").field("names", &names).finish_non_exhaustive()
    }
}
