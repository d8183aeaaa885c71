//! What to do next for one container: a pure function of its record and of what the runtime sees.
//!
//! Nothing here knows what happened before. Whatever a crash left behind is one more combination in
//! this table, and each answer either closes the gap or moves one step towards it.

use std::net::IpAddr;

use gantry_model::{Generation, Phase, Wish};
use gantry_runtime::{Observed, State};
use gantry_store::{Container, ContainerStatus, Fill, FillSource};

/// The causes that status logs name.
pub(super) const BY_RECONCILER: &str = "reconciler";
const BY_REBOOT: &str = "host_reboot";
const BY_RUNTIME: &str = "runtime";

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Record and runtime agree.
    Nothing,
    /// Make it, if it is not there.
    Create,
    /// Make it of another's files, if it is not there.
    Copy(FillSource),
    /// Replace its files; record that this is done.
    Refill(FillSource),
    /// Start its init; record that it runs.
    Start,
    /// Make its init end.
    Stop(Stop),
    /// Give it the name and the variables of who has claimed it; record that it is theirs.
    Adopt,
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
    /// Its files are those that it was to get.
    Filled,
    /// It was started.
    Started,
    /// It was given to who has claimed it.
    Claimed,
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
    /// It is to start without the files that it was to get of another.
    NotCopied,
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
            Phase::Creating | Phase::Claiming | Phase::Starting => {
                match state {
                    Some(State::Running) if status.phase == Phase::Claiming => Self::Adopt,
                    // A copy whose image alone would start is not what its owner asked for.
                    None if container.source.is_some() => Self::Record(Finding::NotCopied),
                    None => Self::Create,
                    Some(_) => Self::Start,
                }
            }
            Phase::Copying => fill(container, state),
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
                // It never ran: nothing in it is worth keeping, unless it is another's.
                Some(_) if status.generation == Generation(0) && container.source.is_none() => {
                    Self::Sweep
                }
                Some(State::Running | State::Paused) => Self::Stop(Stop::Forced),
                Some(State::Created | State::Stopped) | None => settle,
            },
        }
    }
}

/// What was seen beside the finding itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'l> {
    /// Where the container answers.
    pub(super) address: Option<IpAddr>,
    /// This boot of the host.
    pub(super) boot_id: &'l str,
    pub(super) now_ms: i64,
}

impl Finding {
    /// What the status log names as the cause.
    pub(super) const fn cause(self) -> &'static str {
        match self {
            Self::Done
            | Self::Filled
            | Self::Started
            | Self::Claimed
            | Self::Moved
            | Self::Stopped
            | Self::Restart
            | Self::NotCopied => BY_RECONCILER,
            Self::RebootedStart | Self::RebootedStop => BY_REBOOT,
            Self::Died | Self::Vanished => BY_RUNTIME,
        }
    }

    /// The status that follows.
    pub(super) fn apply(self, container: &Container, look: &Look<'_>) -> ContainerStatus {
        let seq = container.wish_seq;
        let old = &container.status;
        let running = |phase: Phase, started_at_ms: Option<i64>| ContainerStatus {
            phase,
            address: look.address,
            generation: Generation(old.generation.0 + 1),
            why: None,
            done_seq: seq,
            started_at_ms,
            boot_id: Some(look.boot_id.to_owned()),
            fill: None,
        };
        let idle = |phase: Phase, done_seq: u64| ContainerStatus {
            phase,
            address: None,
            started_at_ms: None,
            why: None,
            done_seq,
            fill: None,
            ..old.clone()
        };
        let failed = |why: &str| ContainerStatus {
            why: Some(why.to_owned()),
            ..idle(old.phase.exited(), seq)
        };
        match self {
            Self::Done => ContainerStatus { done_seq: seq, ..old.clone() },
            Self::Filled if container.wish == Wish::Running => {
                ContainerStatus { fill: None, ..old.clone() }
            }
            Self::Filled => idle(old.phase.filled(), seq),
            Self::Started => running(old.phase.booted(), Some(look.now_ms)),
            Self::Claimed => ContainerStatus {
                phase: old.phase.booted(),
                why: None,
                done_seq: seq,
                ..old.clone()
            },
            Self::Moved => running(old.phase, old.started_at_ms.or(Some(look.now_ms))),
            // On the way of a restart: the wish is still open.
            Self::Stopped if container.wish == Wish::Running => {
                idle(old.phase.exited(), old.done_seq)
            }
            Self::Stopped => idle(old.phase.exited(), seq),
            Self::Restart | Self::RebootedStart => idle(Phase::Starting, old.done_seq),
            Self::RebootedStop => idle(Phase::Stopped, seq),
            Self::Died => failed("its init ended by itself"),
            Self::Vanished => failed("this server does not have the container any more"),
            Self::NotCopied => failed(
                "the files that it was to be a copy of are not there: synchronise it with its source, or \
                 delete it",
            ),
        }
    }
}

fn is_as_recorded(container: &Container, observed: Option<&Observed>, boot_id: &str) -> bool {
    container.status.address == observed.and_then(|observed| observed.address)
        && container.status.boot_id.as_deref() == Some(boot_id)
}

/// A container gets its files from elsewhere. Until that is recorded it is not started, so that what a
/// crash makes us do again does no harm.
fn fill(container: &Container, state: Option<State>) -> Step {
    match (container.status.fill, state) {
        (Some(fill), None) => Step::Copy(fill.source),
        // One that was made of them is seen only when it has them all.
        (Some(Fill { is_new: true, .. }), Some(_)) => Step::Record(Finding::Filled),
        (Some(_), Some(State::Running | State::Paused)) => Step::Stop(Stop::Ordered),
        (Some(fill), Some(State::Created | State::Stopped)) => Step::Refill(fill.source),
        (None, None) => Step::Record(Finding::Vanished),
        (None, Some(_)) if container.wish == Wish::Running => Step::Start,
        (None, Some(State::Running | State::Paused)) => Step::Stop(manner(container.wish)),
        (None, Some(State::Created | State::Stopped)) => Step::Record(Finding::Filled),
    }
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use gantry_model::{
        ContainerId, ContainerSpec, ProjectId, ServerId, UserId,
        container::{Color, ContainerName, Environment, ImageName, RamdiskScope},
    };
    use gantry_store::{EnvironmentSync, Version};

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 2));

    fn container(phase: Phase, wish: Wish, done: bool, ran: bool, autostart: bool) -> Container {
        let runs = matches!(phase, Phase::Running | Phase::Paused);
        Container {
            id: ContainerId::from_bytes([1; 12]),
            project: ProjectId::from_bytes([2; 12]),
            owner: UserId::from_bytes([3; 12]),
            server: ServerId::from_bytes([4; 12]),
            spec: ContainerSpec {
                name: ContainerName::parse("name", "test").unwrap(),
                color: Color::from_rgb([0; 3]),
                image: ImageName::parse("image", ImageName::DEFAULT).unwrap(),
                hoody_kit: true,
                dev_kit: true,
                ai: true,
                autostart,
                ramdisk: true,
                kvm: false,
                ramdisk_scope: RamdiskScope::Container,
                cache: true,
                environment: Environment::default(),
                ssh_public_key: None,
                ssh_forwarding: true,
                comment: None,
                realms: Vec::new(),
            },
            wish,
            source: None,
            prespawn: false,
            wish_seq: 7,
            status: ContainerStatus {
                phase,
                address: runs.then_some(ADDRESS),
                generation: Generation(u64::from(ran)),
                why: None,
                done_seq: if done { 7 } else { 6 },
                started_at_ms: runs.then_some(1),
                boot_id: ran.then(|| "old".to_owned()),
                fill: None,
            },
            environment_sync: EnvironmentSync::default(),
            ssh_key_since_ms: None,
            version: Version::FIRST,
            created_at_ms: 0,
            updated_at_ms: 0,
        }
    }

    /// Every combination that a crash, a meddler or a defect could leave.
    fn combinations() -> impl Iterator<Item = (Container, Option<State>, &'static str)> {
        without_fill().flat_map(|(container, state, boot)| {
            let source = FillSource::Container(ContainerId::from_bytes([9; 12]));
            let copying = container.status.phase == Phase::Copying;
            let fills = if copying { vec![None, Some(true), Some(false)] } else { vec![None] };
            fills.into_iter().map(move |is_new| {
                let mut container = container.clone();
                container.status.fill = is_new.map(|is_new| Fill { source, is_new });
                (container, state, boot)
            })
        })
    }

    fn without_fill() -> impl Iterator<Item = (Container, Option<State>, &'static str)> {
        let states = [
            None,
            Some(State::Created),
            Some(State::Running),
            Some(State::Paused),
            Some(State::Stopped),
        ];
        Phase::ALL.into_iter().flat_map(move |phase| {
            Wish::ALL.into_iter().flat_map(move |wish| {
                states.into_iter().flat_map(move |state| {
                    (0..16_u8).map(move |bits| {
                        let [done, ran, autostart, same_boot] =
                            [1, 2, 4, 8].map(|bit| bits & bit != 0);
                        let boot = if same_boot { "old" } else { "new" };
                        (container(phase, wish, done, ran, autostart), state, boot)
                    })
                })
            })
        })
    }

    fn observed(state: Option<State>) -> Option<Observed> {
        let id = ContainerId::from_bytes([1; 12]);
        state.map(|state| Observed { id, state, address: Some(ADDRESS) })
    }

    /// Plays the steps with a runtime that does what it is told; returns them.
    fn play(container: &mut Container, state: &mut Option<State>, boot: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        loop {
            let step = Step::next(container, observed(*state).as_ref(), boot);
            steps.push(step);
            assert!(steps.len() <= 12, "no end: {steps:?}");
            let finding = match step {
                Step::Nothing | Step::Delete => return steps,
                Step::Create | Step::Copy(_) => {
                    *state = Some(State::Created);
                    continue;
                }
                Step::Refill(_) => {
                    assert_ne!(*state, Some(State::Running), "what runs has its files in use");
                    Finding::Filled
                }
                Step::Start => {
                    *state = Some(State::Running);
                    Finding::Started
                }
                Step::Adopt => Finding::Claimed,
                Step::Stop(_) => {
                    *state = Some(State::Stopped);
                    continue;
                }
                Step::Pause => {
                    *state = Some(State::Paused);
                    continue;
                }
                Step::Resume => {
                    *state = Some(State::Running);
                    continue;
                }
                Step::Sweep => {
                    *state = None;
                    continue;
                }
                Step::Record(finding) => finding,
            };
            let look = Look { address: Some(ADDRESS), boot_id: boot, now_ms: 5 };
            container.status = finding.apply(container, &look);
        }
    }

    #[test]
    fn every_combination_settles_and_then_agrees() {
        for (before, state_before, boot) in combinations() {
            let (mut container, mut state) = (before.clone(), state_before);
            let steps = play(&mut container, &mut state, boot);
            let row = format!("{before:?} {state_before:?} {boot}: {steps:?}");
            let status = &container.status;
            let runs = matches!(state, Some(State::Running | State::Paused));
            if before.status.phase == Phase::Deleting {
                assert_eq!(steps, [Step::Delete], "{row}");
                continue;
            }
            assert_eq!(status.done_seq, container.wish_seq, "{row}");
            assert_eq!(status.fill, None, "{row}");
            match status.phase {
                Phase::Running => assert_eq!(state, Some(State::Running), "{row}"),
                Phase::Paused => assert_eq!(state, Some(State::Paused), "{row}"),
                Phase::Stopped => assert!(!runs, "{row}"),
                Phase::Failed => {
                    assert!(
                        !runs && (state.is_none() || status.generation > Generation(0)),
                        "{row}"
                    );
                }
                Phase::Creating
                | Phase::Copying
                | Phase::Claiming
                | Phase::Starting
                | Phase::Stopping
                | Phase::Deleting => panic!("under way: {row}"),
            }
            assert_eq!(
                status.address.is_some(),
                status.phase == Phase::Running || status.phase == Phase::Paused,
                "{row}"
            );
        }
    }

    #[test]
    fn what_has_run_is_removed_only_for_a_deletion() {
        for (mut container, mut state, boot) in combinations() {
            let (phase, ran) = (container.status.phase, container.status.generation.0 > 0);
            let steps = play(&mut container, &mut state, boot);
            let removed = steps.iter().any(|step| matches!(step, Step::Delete | Step::Sweep));
            assert!(!removed || !ran || phase == Phase::Deleting, "{container:?}: {steps:?}");
        }
    }

    #[test]
    fn a_copy_is_never_made_of_its_image_alone() {
        for (mut container, mut state, boot) in combinations() {
            container.source = Some(ContainerId::from_bytes([9; 12]));
            let steps = play(&mut container, &mut state, boot);
            assert!(!steps.contains(&Step::Create), "{container:?}: {steps:?}");
        }
    }

    #[test]
    fn each_start_is_a_new_generation() {
        for (mut container, mut state, boot) in combinations() {
            let before = container.status.generation;
            let steps = play(&mut container, &mut state, boot);
            if steps.contains(&Step::Start) {
                assert!(container.status.generation > before, "{container:?}: {steps:?}");
            }
        }
    }
}
