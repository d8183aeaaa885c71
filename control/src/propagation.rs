//! Whether a write is in effect at the edge yet.

use std::time::Duration;

use gantry_store::Revision;

use crate::controller::Controller;

/// How long an answer is held for the edge to take a write over; it mostly needs some milliseconds.
const WAIT: Duration = Duration::from_millis(250);

/// How far the last write has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// The revision of the store that holds it.
    pub revision: Revision,
    /// Whether the edge has taken it over; unknown where no edge runs in this process.
    pub applied: Option<bool>,
}

impl Controller {
    /// Waits a moment for the edge to take over all that is written by now.
    pub async fn propagation(&self) -> Propagation {
        let revision = *self.store().head().borrow();
        let Some(published) = &self.inner.published else {
            return Propagation { revision, applied: None };
        };
        let mut published = published.clone();
        let reached = published.wait_for(|published| *published >= revision);
        let applied = matches!(tokio::time::timeout(WAIT, reached).await, Ok(Ok(_)));
        Propagation { revision, applied: Some(applied) }
    }
}
