//! Snapshots, restorations, copies and synchronisations, and what crashes make of them.

use std::time::Duration;

use gantry_control::{
    Condition, ContainerView, Error, Limits, NewCopy, NewSnapshot, Operation, Patch, Project,
    ReconcilerConfig, Snapshot, SnapshotError, SnapshotKeeper, Thing,
};
use gantry_model::{ContainerId, Phase};
use gantry_runtime::fake::Call;
use tokio::task::JoinSet;

use crate::bench::{Bench, PATIENCE, quick, until};

const FILE: &str = "/root/note";

async fn snap(bench: &Bench, id: ContainerId, alias: &str) -> Snapshot {
    let new = NewSnapshot { alias: Some(alias.to_owned()), expiry_days: None };
    let snapshot = bench.control.create_snapshot(&bench.actor, id, new).await.unwrap();
    assert!(snapshot.is_ready);
    snapshot
}

async fn restore(bench: &Bench, id: ContainerId, name: &str) -> ContainerView {
    let wait = Some(PATIENCE);
    let restored = bench.control.restore_snapshot(&bench.actor, id, name, wait).await.unwrap();
    assert!(restored.done, "{restored:?}");
    restored.container
}

fn into(project: &Project) -> NewCopy {
    NewCopy { target_project_id: Some(project.id.to_string()), ..NewCopy::default() }
}

async fn copy(bench: &Bench, id: ContainerId, new: NewCopy) -> ContainerView {
    let made = bench.control.copy_container(&bench.actor, id, new).await.unwrap();
    assert_eq!(made.record.status.phase, Phase::Copying);
    bench.reach(made.record.id, Condition::Running).await
}

#[tokio::test]
async fn a_restoration_brings_the_files_back_and_the_state_stays() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let id = bench.running_container(&project).await.record.id;
    bench.world.write(id, FILE, "one");
    let made = snap(&bench, id, "-- first!").await;
    assert_eq!((made.name.as_str(), made.bytes), ("first", 3));
    bench.world.write(id, FILE, "two");
    let view = restore(&bench, id, "first").await;
    assert_eq!(bench.world.file(id, FILE).unwrap(), "one");
    assert_eq!((view.record.status.phase, bench.world.starts(id)), (Phase::Running, 2));
    assert_eq!(view.snapshots.last_used.as_deref(), Some("first"));

    bench.operate(id, Operation::Stop).await;
    bench.world.write(id, FILE, "three");
    let view = restore(&bench, id, "first").await;
    assert_eq!((view.record.status.phase, bench.world.starts(id)), (Phase::Stopped, 2));
    assert_eq!(bench.world.file(id, FILE).unwrap(), "one");
    bench.operate(id, Operation::Start).await;
}

#[tokio::test]
async fn a_snapshot_outlives_its_container_and_becomes_another() {
    let bench = Bench::running().await;
    let (project, other) = (bench.project().await, bench.project_named("other").await);
    let id = bench.running_container(&project).await.record.id;
    bench.world.write(id, FILE, "kept");
    snap(&bench, id, "last").await;
    bench.control.delete_container(&bench.actor, id).await.unwrap();
    match bench.control.wait_for(&bench.actor, id, Condition::Deleted, PATIENCE).await {
        Ok(waited) => assert!(waited.met),
        Err(error) => assert!(matches!(error, Error::NotFound(_)), "{error:?}"),
    }

    let kept = bench.control.snapshots_of(&bench.actor, id).await.unwrap();
    assert_eq!((kept.snapshots.len(), kept.project), (1, project.id));
    let gone = bench.control.restore_snapshot(&bench.actor, id, "last", None).await.unwrap_err();
    assert!(matches!(gone, Error::Snapshot(SnapshotError::ContainerGone)), "{gone:?}");
    let live = bench.control.copy_container(&bench.actor, id, into(&other)).await.unwrap_err();
    assert!(matches!(live, Error::NotFound(Thing::SourceContainer)), "{live:?}");

    let new = NewCopy { source_snapshot: Some("last".to_owned()), ..into(&other) };
    let copied = copy(&bench, id, new).await.record;
    assert_eq!((copied.project, copied.source), (other.id, Some(id)));
    assert_eq!(bench.world.file(copied.id, FILE).unwrap(), "kept");
    let sync = bench.control.sync_container(&bench.actor, copied.id, None).await.unwrap_err();
    assert!(matches!(sync, Error::NotFound(Thing::SourceContainer)), "{sync:?}");

    bench.control.delete_snapshot(&bench.actor, id, "last").await.unwrap();
    let keeper = SnapshotKeeper::new(bench.control.clone());
    assert_eq!(keeper.look().await.unwrap(), (0, 1));
    assert_eq!(bench.runtime().snapshots().await.unwrap(), []);
    let empty = bench.control.snapshots_of(&bench.actor, id).await.unwrap_err();
    assert!(matches!(empty, Error::NotFound(Thing::Container)), "{empty:?}");
}

#[tokio::test]
async fn a_copy_takes_snapshots_along_and_is_synchronised() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let source = bench.running_container(&project).await.record;
    bench.world.write(source.id, FILE, "one");
    snap(&bench, source.id, "shared").await;
    let view = copy(&bench, source.id, into(&project)).await;
    assert_eq!((view.snapshots.count, view.record.spec.image), (1, source.spec.image));
    let id = view.record.id;
    assert_eq!(bench.world.file(id, FILE).unwrap(), "one");
    bench.world.write(source.id, FILE, "two");
    let (view, done) =
        bench.control.sync_container(&bench.actor, id, Some(PATIENCE)).await.unwrap();
    assert!(done, "{view:?}");
    assert_eq!(bench.world.file(id, FILE).unwrap(), "two");
    restore(&bench, id, "shared").await;
    assert_eq!(bench.world.file(id, FILE).unwrap(), "one");

    let keeper = SnapshotKeeper::new(bench.control.clone());
    bench.control.delete_snapshot(&bench.actor, source.id, "shared").await.unwrap();
    assert_eq!(keeper.look().await.unwrap(), (0, 0), "the copy's snapshot needs the files");
    let not = bench.control.sync_container(&bench.actor, source.id, None).await.unwrap_err();
    assert!(matches!(not, Error::Snapshot(SnapshotError::NotACopy)), "{not:?}");
}

#[tokio::test]
async fn what_a_crash_interrupts_is_done_by_the_next_process() {
    let mut bench = Bench::running().await;
    let project = bench.project().await;
    let id = bench.running_container(&project).await.record.id;
    bench.world.write(id, FILE, "one");
    snap(&bench, id, "first").await;
    bench.world.write(id, FILE, "two");
    // Nobody works on what is asked for now.
    bench.crash().await;
    bench.control.restore_snapshot(&bench.actor, id, "first", None).await.unwrap();
    let busy =
        bench.control.create_snapshot(&bench.actor, id, NewSnapshot::default()).await.unwrap_err();
    assert!(matches!(busy, Error::Snapshot(SnapshotError::Busy)), "{busy:?}");
    bench.world.delay(Call::Refill, Duration::from_millis(20));
    bench.reconcile(quick());
    until("it has begun", || bench.world.calls(Call::Refill) > 0).await;
    bench.crash().await;
    bench.reconcile(quick());
    bench.reach(id, Condition::Running).await;
    assert_eq!(bench.world.file(id, FILE).unwrap(), "one");

    bench.world.delay(Call::Copy, Duration::from_millis(20));
    let new = NewCopy { source_snapshot: Some("first".to_owned()), ..into(&project) };
    let copied = bench.control.copy_container(&bench.actor, id, new).await.unwrap().record.id;
    until("it has begun", || bench.world.calls(Call::Copy) > 0).await;
    bench.crash().await;
    bench.reconcile(quick());
    bench.reach(copied, Condition::Running).await;
    assert_eq!(bench.world.file(copied, FILE).unwrap(), "one");

    bench.world.delay(Call::Snapshot, Duration::from_hours(1));
    let control = bench.control.clone();
    let actor = bench.actor.clone();
    let asked = bench.world.calls(Call::Snapshot);
    let making = async { control.create_snapshot(&actor, id, NewSnapshot::default()).await };
    let crash = async {
        until("it has begun", || bench.world.calls(Call::Snapshot) > asked).await;
        bench.crash().await;
        bench.world.delay(Call::Snapshot, Duration::ZERO);
        bench.reconcile(quick());
    };
    let (made, ()) = tokio::join!(making, crash);
    let made = made.unwrap();
    assert!(made.is_ready && made.name.starts_with("snap-20260101-000000"), "{made:?}");
}

#[tokio::test]
async fn what_cannot_be_done_leaves_the_files_and_says_why() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let id = bench.running_container(&project).await.record.id;
    bench.world.write(id, FILE, "one");
    let made = snap(&bench, id, "first").await;
    bench.world.write(id, FILE, "two");
    bench.runtime().ensure_snapshot_deleted(made.data).await.unwrap();
    let wait = Some(PATIENCE);
    let failed = bench.control.restore_snapshot(&bench.actor, id, "first", wait).await.unwrap();
    let status = failed.container.record.status;
    assert_eq!((failed.done, status.phase, status.fill), (false, Phase::Failed, None));
    assert!(status.why.unwrap().contains("snapshot does not exist"));
    assert_eq!(bench.world.file(id, FILE).unwrap(), "two");
    bench.operate(id, Operation::Start).await;

    bench.world.fail_next(Call::Snapshot, gantry_runtime::Error::NotFound { id });
    let new = NewSnapshot { alias: Some("second".to_owned()), ..NewSnapshot::default() };
    let lost = bench.control.create_snapshot(&bench.actor, id, new).await.unwrap_err();
    assert!(matches!(lost, Error::Snapshot(SnapshotError::NotMade)), "{lost:?}");
    snap(&bench, id, "second").await;

    let nothing = gantry_runtime::Error::NoAddress;
    for _ in 0..quick().attempts_max {
        bench.world.fail_next(Call::Copy, gantry_runtime::Error::failed("copying", "why not"));
    }
    assert!(nothing.is_retryable());
    let made = bench.control.copy_container(&bench.actor, id, into(&project)).await.unwrap();
    let failed = bench.phase(made.record.id, Phase::Failed).await.record.status;
    assert_eq!((failed.why.as_deref(), failed.fill), (Some("copying failed"), None));
    assert_eq!(bench.world.order(made.record.id), None);

    // Its image alone would be another container than the one that was asked for.
    let copy = made.record.id;
    let start = bench.control.operate(&bench.actor, copy, Operation::Start, wait).await.unwrap();
    let status = start.container.record.status;
    assert_eq!((start.done, status.phase), (false, Phase::Failed));
    assert!(status.why.unwrap().contains("synchronise it with its source"));
    assert_eq!(bench.world.order(copy), None);
    let (view, done) =
        bench.control.sync_container(&bench.actor, copy, Some(PATIENCE)).await.unwrap();
    assert!(done, "{view:?}");
    assert_eq!(bench.world.file(copy, FILE), bench.world.file(id, FILE));
}

#[tokio::test]
async fn a_snapshot_ends_when_its_time_is_over_and_a_container_has_not_too_many() {
    let limits = Limits { snapshots_per_container_max: 2, ..Limits::default() };
    let mut bench = Bench::with_limits(limits).await;
    bench.reconcile(quick());
    let project = bench.project().await;
    let id = bench.running_container(&project).await.record.id;
    let day = |days| NewSnapshot { alias: None, expiry_days: Some(days) };
    for days in [1, 2] {
        bench.control.create_snapshot(&bench.actor, id, day(days)).await.unwrap();
    }
    let names: Vec<String> = bench
        .control
        .snapshots_of(&bench.actor, id)
        .await
        .unwrap()
        .snapshots
        .into_iter()
        .map(|snapshot| snapshot.name)
        .collect();
    assert!(names.contains(&"snap-20260101-000000-2".to_owned()), "{names:?}");
    let limit = bench.control.create_snapshot(&bench.actor, id, day(1)).await.unwrap_err();
    assert!(
        matches!(limit, Error::Snapshot(SnapshotError::Limit { count: 2, max: 2 })),
        "{limit:?}"
    );
    for days in [0, 3651] {
        let bad = bench.control.create_snapshot(&bench.actor, id, day(days)).await.unwrap_err();
        assert!(matches!(bad, Error::Invalid(_)), "{bad:?}");
    }
    bench.clock.advance(Duration::from_hours(24));
    let keeper = SnapshotKeeper::new(bench.control.clone());
    assert_eq!(keeper.look().await.unwrap(), (1, 1));
    assert_eq!(keeper.look().await.unwrap(), (0, 0));
    assert_eq!(bench.runtime().snapshots().await.unwrap().len(), 1);
    let left = bench.control.snapshots_of(&bench.actor, id).await.unwrap().snapshots;
    let renamed = bench
        .control
        .rename_snapshot(&bench.actor, id, &left[0].name, Patch::Set("kept".to_owned()))
        .await
        .unwrap();
    assert_eq!((renamed.alias.as_deref(), &renamed.name), (Some("kept"), &left[0].name));
}

const HOUR: Duration = Duration::from_hours(1);

/// A reconciler with one place of each kind, and two containers that run.
async fn narrow() -> (Bench, Project, [ContainerId; 2]) {
    let mut bench = Bench::new().await;
    bench.reconcile(ReconcilerConfig { concurrency: 1, call_timeout: HOUR, ..quick() });
    let project = bench.project().await;
    let first = bench.running_container(&project).await.record.id;
    let second = bench.running_container(&project).await.record.id;
    (bench, project, [first, second])
}

/// Has a snapshot made that takes an hour; returns when the runtime is at it.
async fn slow_snapshot(bench: &Bench, id: ContainerId, tasks: &mut JoinSet<()>) {
    bench.world.delay(Call::Snapshot, HOUR);
    let (control, actor) = (bench.control.clone(), bench.actor.clone());
    tasks.spawn(async move {
        let new = NewSnapshot { alias: Some("slow".to_owned()), expiry_days: None };
        let made = control.create_snapshot(&actor, id, new).await;
        made.unwrap();
    });
    until("the runtime makes it", || bench.world.calls(Call::Snapshot) > 0).await;
}

#[tokio::test]
async fn a_slow_snapshot_keeps_nobody_from_being_created() {
    let (bench, project, [id, _]) = narrow().await;
    let mut tasks = JoinSet::new();
    slow_snapshot(&bench, id, &mut tasks).await;
    bench.running_container(&project).await;
}

#[tokio::test]
async fn a_container_is_stopped_and_killed_while_its_snapshot_is_made_or_waits() {
    let (mut bench, _, [id, waiting]) = narrow().await;
    let mut tasks = JoinSet::new();
    slow_snapshot(&bench, id, &mut tasks).await;
    let (control, actor) = (bench.control.clone(), bench.actor.clone());
    let new = NewSnapshot { alias: Some("behind".to_owned()), expiry_days: None };
    tasks.spawn(async move {
        control.create_snapshot(&actor, waiting, new).await.unwrap();
    });
    let recorded = async {
        loop {
            let made = bench.control.snapshots_of(&bench.actor, waiting).await.unwrap();
            if !made.snapshots.is_empty() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, recorded).await.unwrap();
    bench.operate(id, Operation::Stop).await;
    bench.operate(waiting, Operation::ForceStop).await;
    // They are made all the same, of what there is then.
    bench.crash().await;
    bench.world.delay(Call::Snapshot, Duration::ZERO);
    bench.reconcile(quick());
    while let Some(made) = tasks.join_next().await {
        made.unwrap();
    }
    for id in [id, waiting] {
        let all = bench.control.snapshots_of(&bench.actor, id).await.unwrap().snapshots;
        assert!(all.len() == 1 && all[0].is_ready, "{all:?}");
        assert_eq!(bench.world.starts(id), 1, "nothing else has happened to it");
    }
}

/// The runtime could do nothing else before the copy is made, and who waits for it there keeps others
/// from being started and stopped.
#[tokio::test]
async fn a_start_a_pause_and_a_resumption_come_after_the_snapshot_under_way() {
    let cases = [
        (Some(Operation::Stop), Operation::Start, Call::Run),
        (None, Operation::Pause, Call::Pause),
        (Some(Operation::Pause), Operation::Resume, Call::Resume),
    ];
    for (before, operation, call) in cases {
        let (mut bench, _, [id, other]) = narrow().await;
        if let Some(before) = before {
            bench.operate(id, before).await;
        }
        let mut tasks = JoinSet::new();
        slow_snapshot(&bench, id, &mut tasks).await;
        let calls = bench.world.calls(call);
        bench.control.operate(&bench.actor, id, operation, None).await.unwrap();
        until("it is begun again", || bench.world.calls(Call::Snapshot) > 1).await;
        assert_eq!(bench.world.calls(call), calls, "{operation}");
        bench.operate(other, Operation::Stop).await;
        bench.crash().await;
        bench.world.delay(Call::Snapshot, Duration::ZERO);
        bench.reconcile(quick());
        while let Some(made) = tasks.join_next().await {
            made.unwrap();
        }
        until("that is done, too", || bench.world.calls(call) > calls).await;
    }
}

#[tokio::test]
async fn what_is_brought_into_a_settled_container_keeps_nobody_from_stopping() {
    let (bench, _, [first, second]) = narrow().await;
    bench.world.delay(Call::Firewall, HOUR);
    bench.world.delay(Call::Environment, HOUR);
    bench.operate(first, Operation::Pause).await;
    bench.operate(second, Operation::Stop).await;
    // Nor while a pass that began earlier is at it.
    for operation in [Operation::Resume, Operation::Pause, Operation::Resume, Operation::Pause] {
        bench.operate(first, operation).await;
    }
}

/// What was promised is kept: the snapshot was asked for first and outlives the container.
#[tokio::test]
async fn a_deletion_kills_at_once_and_waits_for_the_snapshot_that_was_asked_for_before() {
    let (mut bench, _, [id, _]) = narrow().await;
    let mut tasks = JoinSet::new();
    bench.world.write(id, FILE, "kept");
    slow_snapshot(&bench, id, &mut tasks).await;
    bench.control.delete_container(&bench.actor, id).await.unwrap();
    until("it is stopped", || bench.world.calls(Call::Stop) > 0).await;
    assert!(bench.world.order(id).is_some(), "its files are still needed");
    bench.crash().await;
    bench.world.delay(Call::Snapshot, Duration::ZERO);
    bench.reconcile(quick());
    until("it is gone", || bench.world.order(id).is_none()).await;
    while let Some(made) = tasks.join_next().await {
        made.unwrap();
    }
    let left = bench.control.snapshots_of(&bench.actor, id).await.unwrap().snapshots;
    assert!(left.len() == 1 && left[0].is_ready && left[0].bytes == 4, "{left:?}");
}

/// Whoever stops the source as often as that would else end the copy.
#[tokio::test]
async fn a_copy_and_a_snapshot_that_give_way_are_made_however_often_they_do() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let id = bench.running_container(&project).await.record.id;
    for call in [Call::Copy, Call::Snapshot] {
        for _ in 0..2 * quick().attempts_max {
            bench.world.fail_next(call, gantry_runtime::Error::GivenUp { what: "copying" });
        }
    }
    copy(&bench, id, into(&project)).await;
    snap(&bench, id, "kept").await;
}

/// Its source may be gone by then, so that its files are nowhere else.
#[tokio::test]
async fn a_copy_that_has_its_files_and_does_not_start_keeps_them() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let id = bench.running_container(&project).await.record.id;
    bench.world.write(id, FILE, "kept");
    for _ in 0..ReconcilerConfig::default().attempts_max {
        bench.world.fail_next(Call::Run, gantry_runtime::Error::failed("starting", "why not"));
    }
    let made = bench.control.copy_container(&bench.actor, id, into(&project)).await.unwrap();
    let copy = made.record.id;
    bench.phase(copy, Phase::Failed).await;
    bench.operate(copy, Operation::Start).await;
    assert_eq!(bench.world.file(copy, FILE).unwrap(), "kept");
}
