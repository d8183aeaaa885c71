//! Whatever happens, in whatever order, wherever the process dies: afterwards records and reality
//! agree, and every wish is met or found failed.

use std::{collections::BTreeMap, time::Duration};

use gantry_control::{LogSort, NewContainer, Operation, Page};
use gantry_model::{ContainerId, Phase, Wish};
use gantry_runtime::{Error, Observed, State, fake::Call};
use gantry_store::Container;
use proptest::{prelude::*, sample::Index};

use crate::bench::{Bench, PATIENCE, quick};

#[derive(Clone, Debug)]
enum Event {
    Create {
        autostart: bool,
        broken: bool,
    },
    Operate(Index, Operation),
    Delete(Index),
    /// The init of a container ends by itself.
    Exit(Index),
    /// A container is removed behind our back.
    Lose(Index),
    /// The next call of this kind fails.
    Fail(Call, bool),
    /// Calls of this kind take a little.
    Slow(Call),
    /// Let the others work for so many turns.
    Turns(u16),
    /// The process dies and starts again.
    Crash,
    /// The host dies and starts again.
    Reboot,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let calls = [Call::Create, Call::Run, Call::Stop, Call::Pause, Call::Resume, Call::Delete];
    let call = prop::sample::select(calls.to_vec());
    let failing = prop::sample::select([calls.as_slice(), &[Call::List]].concat());
    let operation = prop::sample::select(Operation::ALL.to_vec());
    let event = prop_oneof![
        4 => (any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(autostart, broken)| Event::Create { autostart, broken }),
        10 => (any::<Index>(), operation).prop_map(|(at, op)| Event::Operate(at, op)),
        2 => any::<Index>().prop_map(Event::Delete),
        2 => any::<Index>().prop_map(Event::Exit),
        1 => any::<Index>().prop_map(Event::Lose),
        4 => (failing, any::<bool>()).prop_map(|(call, again)| Event::Fail(call, again)),
        2 => call.prop_map(Event::Slow),
        12 => (0_u16..400).prop_map(Event::Turns),
        3 => Just(Event::Crash),
        1 => Just(Event::Reboot),
    ];
    prop::collection::vec(event, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_and_reality_agree_in_the_end(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::running().await;
            let mut wishes = BTreeMap::new();
            play(&mut bench, &events, &mut wishes).await;
            bench.crash().await;
            for call in [Call::Create, Call::Run, Call::Stop, Call::Pause, Call::Resume, Call::Delete] {
                bench.world.delay(call, Duration::ZERO);
            }
            bench.reconcile(quick());
            let settled = tokio::time::timeout(PATIENCE, settled(&bench)).await;
            let records = settled.unwrap_or_else(|_elapsed| panic!("not settled: {:#?}", bench.world));
            agree(&bench, &records).await;
            answered(&bench, &records, &wishes).await;
        });
    }
}

#[expect(clippy::too_many_lines, reason = "one arm for each event")]
async fn play(bench: &mut Bench, events: &[Event], wishes: &mut BTreeMap<ContainerId, Wish>) {
    let project = bench.project().await;
    let mut ids: Vec<ContainerId> = Vec::new();
    let pick = |ids: &[ContainerId], at: &Index| {
        if ids.is_empty() { None } else { Some(ids[at.index(ids.len())]) }
    };
    for event in events {
        match event {
            Event::Create { autostart, broken } => {
                let image = broken.then(|| "plan/9".to_owned());
                let new = NewContainer {
                    autostart: Some(*autostart),
                    container_image: image,
                    ..bench.plain()
                };
                let id = bench.create(&project, new).await.record.id;
                ids.push(id);
                wishes.insert(id, Wish::Running);
            }
            Event::Operate(at, operation) => {
                let Some(id) = pick(&ids, at) else { continue };
                // Refusals are part of the play.
                if bench.control.operate(&bench.actor, id, *operation, None).await.is_ok() {
                    let wish = match operation {
                        Operation::Start | Operation::Restart | Operation::Resume => Wish::Running,
                        Operation::Stop | Operation::ForceStop => Wish::Stopped,
                        Operation::Pause => Wish::Paused,
                    };
                    wishes.insert(id, wish);
                }
            }
            Event::Delete(at) => {
                let Some(id) = pick(&ids, at) else { continue };
                if bench.control.delete_container(&bench.actor, id).await.is_ok() {
                    wishes.insert(id, Wish::Deleted);
                }
            }
            Event::Exit(at) => {
                if let Some(id) = pick(&ids, at) {
                    bench.world.crash(id);
                }
            }
            Event::Lose(at) => {
                if let Some(id) = pick(&ids, at) {
                    bench.world.lose(id);
                }
            }
            Event::Fail(call, again) => {
                bench.world.fail_next(*call, Error::failed("it", "injected"));
                if *again {
                    let reason = Error::Denied { missing: vec!["something".to_owned()] };
                    bench.world.fail_next(*call, reason);
                }
            }
            Event::Slow(call) => bench.world.delay(*call, Duration::from_millis(2)),
            Event::Turns(turns) => {
                for _ in 0..*turns {
                    tokio::task::yield_now().await;
                }
            }
            Event::Crash => {
                bench.crash().await;
                bench.reconcile(quick());
            }
            Event::Reboot => {
                bench.crash().await;
                bench.world.reboot();
                bench.reconcile(quick());
            }
        }
    }
}

/// Waits until every record says that its last wish is met or failed, and nothing is under way.
async fn settled(bench: &Bench) -> Vec<Container> {
    let mut head = bench.store.head();
    loop {
        head.mark_unchanged();
        let records = bench.store.containers_of_server(bench.server.id).await.unwrap();
        let all_done = records.iter().all(|record| {
            record.status.done_seq == record.wish_seq
                && matches!(
                    record.status.phase,
                    Phase::Running | Phase::Paused | Phase::Stopped | Phase::Failed
                )
        });
        if all_done && agrees(bench, &records).await {
            return records;
        }
        // Sweeping after a failure changes no record: look again after a while, too.
        let again = tokio::time::timeout(Duration::from_millis(5), head.changed()).await;
        if let Ok(changed) = again {
            changed.unwrap();
        }
    }
}

async fn agrees(bench: &Bench, records: &[Container]) -> bool {
    let Ok(listed) = bench.runtime().list().await else { return false };
    let seen: BTreeMap<ContainerId, Observed> =
        listed.into_iter().map(|observed| (observed.id, observed)).collect();
    let all_match = records.iter().all(|record| {
        let state = seen.get(&record.id).map(|observed| observed.state);
        let address = seen.get(&record.id).and_then(|observed| observed.address);
        match record.status.phase {
            Phase::Running => state == Some(State::Running) && record.status.address == address,
            Phase::Paused => state == Some(State::Paused),
            Phase::Stopped => !matches!(state, Some(State::Running | State::Paused)),
            Phase::Failed if record.status.generation.0 == 0 => state.is_none(),
            Phase::Failed => !matches!(state, Some(State::Running | State::Paused)),
            Phase::Creating
            | Phase::Copying
            | Phase::Claiming
            | Phase::Starting
            | Phase::Stopping
            | Phase::Deleting => false,
        }
    });
    all_match && seen.keys().all(|id| records.iter().any(|record| record.id == *id))
}

/// As `agrees`, but tells what does not.
async fn agree(bench: &Bench, records: &[Container]) {
    assert!(agrees(bench, records).await, "{records:#?} {:#?}", bench.world);
}

/// Each container stands where its owner last wanted it, or says why not.
async fn answered(bench: &Bench, records: &[Container], wishes: &BTreeMap<ContainerId, Wish>) {
    for (id, wish) in wishes {
        let record = records.iter().find(|record| record.id == *id);
        let Some(record) = record else {
            assert_eq!(*wish, Wish::Deleted, "{id} is gone though nobody asked");
            continue;
        };
        let status = &record.status;
        let fits = match wish {
            Wish::Running | Wish::Paused => match status.phase {
                Phase::Running => {
                    *wish == Wish::Running || status.why.is_some() || rebooted(record)
                }
                Phase::Paused => *wish == Wish::Paused || status.why.is_some(),
                Phase::Failed => status.why.is_some(),
                // After a reboot of the host, by its owner's choice.
                Phase::Stopped => !record.spec.autostart,
                Phase::Creating
                | Phase::Copying
                | Phase::Claiming
                | Phase::Starting
                | Phase::Stopping
                | Phase::Deleting => false,
            },
            Wish::Stopped | Wish::ForceStopped => {
                status.phase == Phase::Stopped
                    || status.phase == Phase::Failed && status.why.is_some()
            }
            Wish::Deleted => false,
        };
        let page = Page { page: 1, limit: 100, sort: LogSort::At, descending: false };
        let logs = bench.store.status_logs(*id, page).await.unwrap().items;
        let told: Vec<_> = logs.iter().map(|log| (log.to, &log.triggered_by, &log.note)).collect();
        assert!(fits, "{wish:?} is not answered by {:?} {status:?}: {told:?}", record.wish);
    }
}

/// Frozen memory does not survive a reboot: the container has started again instead.
fn rebooted(record: &Container) -> bool {
    record.status.generation.0 > 1 && record.spec.autostart
}
