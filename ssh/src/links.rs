//! The links to the helpers of containers, each made when it is first needed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use gantry_model::ContainerId;

use crate::{
    doors::{NoWay, Ways},
    front::Means,
    link::Link,
};

/// How long a failure is the answer to everybody who comes.
const FAILED: Duration = Duration::from_secs(1);

/// The links.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<HashMap<ContainerId, Arc<Place>>>);

type Place = tokio::sync::Mutex<Option<Made>>;

/// What came of the last attempt.
#[derive(Debug)]
enum Made {
    /// A link into this start of the container.
    Link { link: Arc<Link>, generation: u64 },
    /// None, at that time.
    Failed { no_way: NoWay, at: Instant },
}

impl Made {
    fn is_worth_keeping(&self) -> bool {
        match self {
            Self::Link { link, .. } => link.is_alive(),
            Self::Failed { at, .. } => at.elapsed() < FAILED,
        }
    }
}

impl Links {
    /// The link to a container's helper; whoever comes while it is being made waits for that.
    pub(crate) async fn get(
        &self,
        container: ContainerId,
        generation: u64,
        ways: &dyn Ways,
        means: &Means,
    ) -> Result<Arc<Link>, NoWay> {
        let place = self.place(container);
        let mut made = place.lock().await;
        match &*made {
            Some(Made::Link { link, generation: made }) if *made == generation => {
                if link.is_alive() {
                    return Ok(Arc::clone(link));
                }
            }
            // Whoever asks does not know yet of the container's latest start.
            Some(Made::Link { link, generation: made })
                if *made > generation && link.is_alive() =>
            {
                return Err(NoWay::NotRunning);
            }
            // Of another start: whoever holds its other end is not in this one.
            Some(Made::Link { link, .. }) => link.end(),
            Some(Made::Failed { no_way, at }) if at.elapsed() < FAILED => return Err(*no_way),
            Some(Made::Failed { .. }) | None => {}
        }
        let opened = ways.open(container).await.and_then(|socket| {
            Link::new(socket, means).map_err(|error| {
                tracing::error!(%container, %error, "no link to its session helper");
                NoWay::Failed
            })
        });
        *made = Some(match &opened {
            Ok(link) => Made::Link { link: Arc::clone(link), generation },
            Err(no_way) => Made::Failed { no_way: *no_way, at: Instant::now() },
        });
        opened
    }

    fn place(&self, container: ContainerId) -> Arc<Place> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, place| {
            // One that is locked is being made.
            let is_needed = || {
                place
                    .try_lock()
                    .map_or(true, |made| made.as_ref().is_some_and(Made::is_worth_keeping))
            };
            Arc::strong_count(place) > 1 || is_needed()
        });
        Arc::clone(places.entry(container).or_default())
    }
}
