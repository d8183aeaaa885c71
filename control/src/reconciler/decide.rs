//! What to do next for one container: a pure function of its record and of what the runtime sees.
//!
//! Nothing here knows what happened before. Whatever a crash left behind is one more combination in
//! this table, and each answer either closes the gap or moves one step towards it.

use gantry_model::{Generation, Phase, Wish};
use gantry_runtime::{Observed, State};
use gantry_store::Container;

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Record and runtime agree.
    Nothing,
    /// Make it, if it is not there.
    Create,
    /// Start its init; record that it runs.
    Start,
    /// Make its init end.
    Stop(Stop),
    /// Freeze it.
    Pause,
    /// Thaw it.
    Resume,
    /// Remove it, then its record.
    Delete,
    /// Remove what a failed creation left behind; the record stays.
    Sweep,
    /// Nothing to do but to record this.
    Record(Finding),
}

/// How an init is made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is asked, and gets time.
    Ordered,
    /// It is killed.
    Forced,
}

/// What a look at the runtime told, or what follows without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The last wish is true.
    Done,
    /// It runs, at another address or under another boot than recorded.
    Moved,
    /// It does not run, as was asked.
    Stopped,
    /// It has stopped and shall start again.
    Restart,
    /// The host has rebooted, and it starts by itself.
    RebootedStart,
    /// The host has rebooted, and it stays stopped.
    RebootedStop,
    /// Its init ended though nobody asked.
    Died,
    /// The runtime does not have it any more.
    Vanished,
}

impl Step {
    /// What to do for this container.
    pub(super) fn next(container: &Container, observed: Option<&Observed>, boot_id: &str) -> Self {
        let status = &container.status;
        let done = status.done_seq >= container.wish_seq;
        let settle = if done { Self::Nothing } else { Self::Record(Finding::Done) };
        let state = observed.map(|observed| observed.state);
        match status.phase {
            Phase::Deleting => Self::Delete,
            Phase::Creating | Phase::Copying | Phase::Claiming | Phase::Starting => {
                if state.is_none() { Self::Create } else { Self::Start }
            }
            Phase::Running => match state {
                Some(State::Running) if is_as_recorded(container, observed, boot_id) => settle,
                Some(State::Running) => Self::Record(Finding::Moved),
                Some(State::Paused) => Self::Resume,
                Some(State::Created | State::Stopped) | None => ended(container, state, boot_id),
            },
            Phase::Paused => match state {
                Some(State::Paused) => settle,
                Some(State::Running) => Self::Pause,
                Some(State::Created | State::Stopped) | None => ended(container, state, boot_id),
            },
            Phase::Stopping => match state {
                Some(State::Running | State::Paused) => Self::Stop(manner(container.wish)),
                Some(State::Created | State::Stopped) | None => Self::Record(Finding::Stopped),
            },
            Phase::Stopped => match state {
                _ if !done && container.wish == Wish::Running => Self::Record(Finding::Restart),
                Some(State::Running | State::Paused) => Self::Stop(Stop::Forced),
                Some(State::Created | State::Stopped) | None => settle,
            },
            Phase::Failed => match state {
                // It never ran: nothing in it is worth keeping.
                Some(_) if status.generation == Generation(0) => Self::Sweep,
                Some(State::Running | State::Paused) => Self::Stop(Stop::Forced),
                Some(State::Created | State::Stopped) | None => settle,
            },
        }
    }
}

fn is_as_recorded(container: &Container, observed: Option<&Observed>, boot_id: &str) -> bool {
    container.status.address == observed.and_then(|observed| observed.address)
        && container.status.boot_id.as_deref() == Some(boot_id)
}

/// A container that should run or be frozen does neither.
fn ended(container: &Container, state: Option<State>, boot_id: &str) -> Step {
    Step::Record(match state {
        // To make it anew would hide that its data is lost.
        None => Finding::Vanished,
        Some(_) if container.status.boot_id.as_deref() == Some(boot_id) => Finding::Died,
        Some(_) if container.spec.autostart => Finding::RebootedStart,
        Some(_) => Finding::RebootedStop,
    })
}

fn manner(wish: Wish) -> Stop {
    match wish {
        Wish::ForceStopped | Wish::Deleted => Stop::Forced,
        Wish::Running | Wish::Paused | Wish::Stopped => Stop::Ordered,
    }
}
