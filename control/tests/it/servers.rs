//! Two servers in one process: each has its own containers, and nobody touches those of the other.

use std::{sync::Arc, time::Duration};

use gantry_control::{
    Condition, Error, NewContainer, NewCopy, NewSnapshot, Operation, Served, SnapshotKeeper,
    StartError, Starter, StarterConfig,
};
use gantry_model::{ContainerId, Phase, ProjectId, ServerId, Service};
use gantry_runtime::{
    Exec, Runtime,
    fake::{Call, Fake, World},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, PATIENCE, START_MS, quick, until};

/// A bench with a second server, whose containers are in this world.
struct Two {
    bench: Bench,
    world: World,
    first: Served,
    second: Served,
}

impl Two {
    async fn new() -> Self {
        let mut bench = Bench::new().await;
        let world = World::default();
        let (id, name) = (ServerId::from_bytes([8; 12]), "second".parse().unwrap());
        let server = bench.store.ensure_server(id, &name, START_MS).await.unwrap();
        let second = Served { server, runtime: Arc::new(Fake::new(world.clone())) };
        let first = Served { server: bench.server.clone(), runtime: bench.runtime() };
        bench.serve(vec![first.clone(), second.clone()]).await;
        bench.reconcile(quick());
        Self { bench, world, first, second }
    }

    fn on_second(&self) -> NewContainer {
        let server_id = Some(self.second.server.id.to_string());
        NewContainer { server_id, ..NewContainer::default() }
    }

    /// A container that runs on each.
    async fn one_on_each(&self) -> (ContainerId, ContainerId) {
        let project = self.bench.project().await;
        let one = self.bench.create(&project, self.bench.plain()).await.record.id;
        let two = self.bench.create(&project, self.on_second()).await.record.id;
        self.bench.reach(one, Condition::Running).await;
        self.bench.reach(two, Condition::Running).await;
        (one, two)
    }
}

async fn ids(runtime: &Arc<dyn Runtime>) -> Vec<ContainerId> {
    runtime.list().await.unwrap().into_iter().map(|observed| observed.id).collect()
}

#[tokio::test]
async fn each_container_is_run_by_the_runtime_of_its_server() {
    let two = Two::new().await;
    let (here, there) = two.one_on_each().await;
    let bench = &two.bench;
    assert_eq!(ids(&two.first.runtime).await, [here]);
    assert_eq!(ids(&two.second.runtime).await, [there]);
    for view in bench.all().await {
        let name = if view.record.id == here { "local" } else { "second" };
        assert_eq!(view.server_name.as_str(), name);
    }
    for view in bench.control.servers(&bench.actor).await.unwrap() {
        assert_eq!((view.ready, view.containers), (true, 1), "{}", view.name);
    }
    bench.operate(there, Operation::Pause).await;
    bench.reach(here, Condition::Running).await;
    bench.operate(there, Operation::Resume).await;
    assert_eq!((bench.world.calls(Call::Pause), two.world.calls(Call::Pause)), (0, 1));
    let stats = bench.control.container_stats(&bench.actor, there).await.unwrap();
    assert!(stats.stats.is_some());
    bench.control.reset_firewall(&bench.actor, there).await.unwrap();
    let new = NewSnapshot { alias: Some("kept".to_owned()), expiry_days: None };
    let kept = bench.control.create_snapshot(&bench.actor, there, new).await.unwrap();
    assert_eq!(kept.server, two.second.server.id);
    assert_eq!(two.second.runtime.snapshots().await.unwrap().len(), 1);
    assert_eq!(two.first.runtime.snapshots().await.unwrap(), []);
    bench.control.delete_snapshot(&bench.actor, there, "kept").await.unwrap();
    let looked = SnapshotKeeper::new(bench.control.clone()).look().await.unwrap();
    assert_eq!(looked, (0, 1));
    assert_eq!(two.second.runtime.snapshots().await.unwrap(), []);
    let execs = (bench.world.calls(Call::Exec), two.world.calls(Call::Exec));
    let command = |_, _| Some(vec!["true".to_owned()]);
    let (store, config) = (bench.store.clone(), StarterConfig::default());
    let starter = Starter::new(store, bench.servers(), command, config);
    starter.start_service(there, Service::Terminal, 1).await.unwrap();
    assert_eq!(
        (bench.world.calls(Call::Exec), two.world.calls(Call::Exec)),
        (execs.0, execs.1 + 1)
    );
    bench.control.delete_container(&bench.actor, there).await.unwrap();
    until("it is gone", || two.world.order(there).is_none()).await;
    assert_eq!(ids(&two.first.runtime).await, [here]);
}

#[tokio::test]
async fn what_one_server_removes_is_its_own() {
    let mut two = Two::new().await;
    let (here, there) = two.one_on_each().await;
    let bench = &mut two.bench;
    bench.control.delete_container(&bench.actor, there).await.unwrap();
    until("it is gone", || two.world.order(there).is_none()).await;
    bench.crash().await;
    // What an overtaken creation left on each; on the first it is one that the second has a record of.
    let order = two.world.order(here);
    assert_eq!(order, None);
    let order = bench.world.order(here).unwrap();
    for (id, runtime) in [(there, &two.second.runtime), (here, &two.second.runtime)] {
        let mut order = order.clone();
        order.id = id;
        runtime.ensure_running(&order).await.unwrap();
    }
    let mut config = quick();
    config.resync = Duration::from_millis(2);
    bench.reconcile(config);
    until("the rest is removed", || two.world.order(there).is_none()).await;
    let seen = two.world.calls(Call::List);
    until("it was looked at again", || two.world.calls(Call::List) > seen + 4).await;
    assert!(two.world.order(here).is_some(), "it has a record, if one of another server");
    bench.reach(here, Condition::Running).await;
    assert_eq!(bench.world.starts(here), 1);
}

#[tokio::test]
async fn a_server_that_is_configured_no_more_keeps_its_records() {
    let mut two = Two::new().await;
    let (here, there) = two.one_on_each().await;
    let bench = &mut two.bench;
    let project = bench.all().await[0].record.project;
    bench.shut_down().await;
    bench.serve(vec![two.first.clone()]).await;
    bench.reconcile(quick());
    let (control, actor) = (&bench.control, &bench.actor);
    let view = control.container(actor, there).await.unwrap();
    assert_eq!((view.server_name.as_str(), view.record.status.phase), ("second", Phase::Running));
    let server = control.server_view(actor, two.second.server.id).await.unwrap();
    assert_eq!((server.ready, server.containers), (false, 1));
    assert_eq!(control.container_stats(actor, there).await.unwrap().stats, None);
    let new = NewSnapshot { alias: None, expiry_days: None };
    let copy = NewCopy { target_project_id: Some(project.to_string()), ..NewCopy::default() };
    let on_second =
        NewContainer { server_id: Some(two.second.server.id.to_string()), ..bench.plain() };
    let refused = [
        control.operate(actor, there, Operation::Stop, None).await.err(),
        control.delete_container(actor, there).await.err(),
        control.create_snapshot(actor, there, new).await.err(),
        control.copy_container(actor, there, copy).await.err(),
        control.create_container(actor, project, on_second).await.err(),
        control.reset_firewall(actor, there).await.err(),
        control.delete_project(actor, project).await.err(),
    ];
    for (at, error) in refused.into_iter().enumerate() {
        match error {
            Some(error @ Error::ServerAway { .. }) => {
                let text = error.to_string();
                assert!(text.starts_with("the server second is not configured any more"), "{text}");
            }
            other => panic!("{at}: {other:?}"),
        }
    }
    let command = |_, _| Some(vec!["true".to_owned()]);
    let (store, config) = (bench.store.clone(), StarterConfig::default());
    let starter = Starter::new(store, bench.servers(), command, config);
    let outcome = starter.start_service(there, Service::Terminal, 1).await;
    assert_eq!(outcome, Err(StartError::NotRunning));
    bench.reach(here, Condition::Running).await;
    // Configured again, all is as it was.
    bench.shut_down().await;
    bench.serve(vec![two.first.clone(), two.second.clone()]).await;
    bench.reconcile(quick());
    bench.operate(there, Operation::Stop).await;
    assert_eq!(two.world.starts(there), 1);
}

/// What a client says who wants a copy on the second server.
fn to(two: &Two, project: ProjectId) -> NewCopy {
    NewCopy {
        target_project_id: Some(project.to_string()),
        target_server_id: Some(two.second.server.id.to_string()),
        ..NewCopy::default()
    }
}

async fn write(runtime: &Arc<dyn Runtime>, id: ContainerId, text: &str) {
    let mut command = Exec::new(["tee", "/note"]);
    command.stdin = text.to_owned().into();
    assert!(runtime.exec(id, &command).await.unwrap().status.success());
}

async fn read(runtime: &Arc<dyn Runtime>, id: ContainerId) -> String {
    let output = runtime.exec(id, &Exec::new(["cat", "/note"])).await.unwrap();
    String::from_utf8(output.stdout.to_vec()).unwrap()
}

#[tokio::test]
async fn a_copy_on_another_server_has_the_files_and_snapshots_of_its_source() {
    let two = Two::new().await;
    let bench = &two.bench;
    let (control, actor) = (&bench.control, &bench.actor);
    let project = bench.project().await;
    let source = bench.running_container(&project).await.record.id;
    write(&two.first.runtime, source, "kept").await;
    let new = NewSnapshot { alias: Some("kept".to_owned()), expiry_days: None };
    let kept = control.create_snapshot(actor, source, new).await.unwrap();
    write(&two.first.runtime, source, "now").await;
    let copied = control.copy_container(actor, source, to(&two, project.id)).await.unwrap();
    let copy = copied.record.id;
    assert_eq!(
        (copied.record.server, copied.server_name.as_str()),
        (two.second.server.id, "second")
    );
    bench.reach(copy, Condition::Running).await;
    assert_eq!(read(&two.second.runtime, copy).await, "now");
    assert_eq!(read(&two.first.runtime, source).await, "now", "its source stays");
    assert_eq!(ids(&two.second.runtime).await, [copy]);

    // They come when it runs.
    let mut head = bench.store.head();
    let theirs = loop {
        let theirs = control.snapshots_of(actor, copy).await.unwrap().snapshots;
        let [theirs] = &theirs[..] else { panic!("{theirs:?}") };
        if theirs.is_ready {
            break theirs.clone();
        }
        tokio::time::timeout(PATIENCE, head.changed()).await.unwrap().unwrap();
    };
    assert_eq!(theirs.name, "kept");
    assert_eq!((theirs.server, theirs.bytes), (two.second.server.id, kept.bytes));
    assert_ne!(theirs.data, kept.data);
    let restored = control.restore_snapshot(actor, copy, "kept", Some(PATIENCE)).await.unwrap();
    assert!(restored.done);
    assert_eq!(read(&two.second.runtime, copy).await, "kept");

    write(&two.first.runtime, source, "newer").await;
    let (_, done) = control.sync_container(actor, copy, Some(PATIENCE)).await.unwrap();
    assert!(done);
    assert_eq!(read(&two.second.runtime, copy).await, "newer");

    // The snapshots of each are its own.
    control.delete_snapshot(actor, source, "kept").await.unwrap();
    SnapshotKeeper::new(control.clone()).look().await.unwrap();
    assert_eq!(two.first.runtime.snapshots().await.unwrap(), []);
    assert_eq!(two.second.runtime.snapshots().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_snapshot_is_copied_to_another_server_also_when_its_container_is_gone() {
    let two = Two::new().await;
    let bench = &two.bench;
    let (control, actor) = (&bench.control, &bench.actor);
    let project = bench.project().await;
    let source = bench.running_container(&project).await.record.id;
    write(&two.first.runtime, source, "kept").await;
    let new = NewSnapshot { alias: Some("kept".to_owned()), expiry_days: None };
    control.create_snapshot(actor, source, new).await.unwrap();
    control.delete_container(actor, source).await.unwrap();
    until("it is gone", || bench.world.order(source).is_none()).await;
    let new = NewCopy { source_snapshot: Some("kept".to_owned()), ..to(&two, project.id) };
    let copy = control.copy_container(actor, source, new).await.unwrap().record.id;
    bench.reach(copy, Condition::Running).await;
    assert_eq!(read(&two.second.runtime, copy).await, "kept");
    // And one of a snapshot there is a copy here.
    let new = NewSnapshot { alias: Some("back".to_owned()), expiry_days: None };
    control.create_snapshot(actor, copy, new).await.unwrap();
    let new = NewCopy {
        source_snapshot: Some("back".to_owned()),
        target_server_id: Some(two.first.server.id.to_string()),
        ..to(&two, project.id)
    };
    let back = control.copy_container(actor, copy, new).await.unwrap().record.id;
    bench.reach(back, Condition::Running).await;
    assert_eq!(read(&two.first.runtime, back).await, "kept");
}

/// What is not there yet is not waited for, and nothing of it stays: its origin is free.
#[tokio::test]
async fn a_copy_is_deleted_before_its_snapshots_have_come() {
    let mut two = Two::new().await;
    let project = two.bench.project().await;
    let source = two.bench.running_container(&project).await.record.id;
    let new = NewSnapshot { alias: Some("kept".to_owned()), expiry_days: None };
    two.bench.control.create_snapshot(&two.bench.actor, source, new).await.unwrap();
    two.bench.shut_down().await;
    let new = to(&two, project.id);
    let bench = &mut two.bench;
    let copy = bench.control.copy_container(&bench.actor, source, new).await.unwrap().record.id;
    bench.control.delete_container(&bench.actor, copy).await.unwrap();
    let busy = bench.control.delete_snapshot(&bench.actor, source, "kept").await;
    assert!(busy.is_err(), "it is wanted: {busy:?}");
    bench.reconcile(quick());
    let mut head = bench.store.head();
    while bench.store.container(copy).await.unwrap().is_some() {
        tokio::time::timeout(PATIENCE, head.changed()).await.unwrap().unwrap();
    }
    bench.control.delete_snapshot(&bench.actor, source, "kept").await.unwrap();
    assert_eq!(two.second.runtime.snapshots().await.unwrap(), []);
}

#[tokio::test]
async fn a_copy_from_a_server_that_goes_away_meanwhile_fails_and_says_why() {
    let mut two = Two::new().await;
    let project = two.bench.project().await;
    let source = two.bench.running_container(&project).await.record.id;
    two.bench.shut_down().await;
    let new = to(&two, project.id);
    let bench = &mut two.bench;
    let copy = bench.control.copy_container(&bench.actor, source, new).await.unwrap().record.id;
    bench.serve(vec![two.second.clone()]).await;
    bench.reconcile(quick());
    let failed = bench.phase(copy, Phase::Failed).await.record.status;
    let why = "the server that has its source is not configured any more";
    assert_eq!(failed.why.as_deref(), Some(why));
    assert_eq!(two.world.order(copy), None, "nothing is left of it");
}

/// How many snapshots of a container are there, and how many shall be.
async fn came(bench: &Bench, id: ContainerId) -> (usize, usize) {
    let all = bench.control.snapshots_of(&bench.actor, id).await.unwrap().snapshots;
    (all.iter().filter(|snapshot| snapshot.is_ready).count(), all.len())
}

#[tokio::test]
async fn two_transfers_at_a_time_keep_nothing_else_from_being_copied() {
    let mut two = Two::new().await;
    let (source, there) = two.one_on_each().await;
    let project = two.bench.all().await[0].record.project;
    let exports = |two: &Two| two.bench.world.calls(Call::Export);
    two.world.delay(Call::Import, Duration::from_hours(1));
    let mut copies = Vec::new();
    for _ in 0..5 {
        let new = to(&two, project);
        let copy = two.bench.control.copy_container(&two.bench.actor, source, new).await;
        copies.push(copy.unwrap().record.id);
    }
    until("two are under way", || two.world.calls(Call::Import) == 2).await;
    // More of them than there are places for copies on one server.
    for _ in 0..5 {
        let new = NewSnapshot { alias: None, expiry_days: None };
        two.bench.control.create_snapshot(&two.bench.actor, there, new).await.unwrap();
    }
    assert_eq!((exports(&two), two.world.calls(Call::Import)), (2, 2), "the others wait");
    two.bench.crash().await;
    two.world.delay(Call::Import, Duration::ZERO);
    two.bench.reconcile(quick());
    for copy in copies {
        two.bench.reach(copy, Condition::Running).await;
    }
}

#[tokio::test]
async fn many_snapshots_from_another_server_let_those_of_others_come_between() {
    const SNAPSHOTS: usize = 6;
    let two = Two::new().await;
    let bench = &two.bench;
    let project = bench.project().await;
    let source = bench.running_container(&project).await.record.id;
    for _ in 0..SNAPSHOTS {
        let new = NewSnapshot { alias: None, expiry_days: None };
        bench.control.create_snapshot(&bench.actor, source, new).await.unwrap();
    }
    two.world.delay(Call::Import, Duration::from_millis(30));
    let mut copies = Vec::new();
    for _ in 0..3 {
        let new = to(&two, project.id);
        let copy = bench.control.copy_container(&bench.actor, source, new).await.unwrap();
        copies.push(copy.record.id);
    }
    let mut head = bench.store.head();
    let counts = loop {
        let mut counts = Vec::new();
        for copy in &copies {
            let (ready, all) = came(bench, *copy).await;
            assert_eq!(all, SNAPSHOTS);
            counts.push(ready);
        }
        if counts.contains(&SNAPSHOTS) {
            break counts;
        }
        tokio::time::timeout(PATIENCE, head.changed()).await.unwrap().unwrap();
    };
    assert!(counts.iter().all(|count| *count >= 2), "one has all, and of the others {counts:?}");
}

/// Nobody waits for a server that was taken out of the configuration: what its copies were to be filled from can be
/// removed, and they say so when it is back.
#[tokio::test]
async fn what_only_a_removed_server_still_wants_can_be_deleted() {
    let mut two = Two::new().await;
    let project = two.bench.project().await;
    let source = two.bench.running_container(&project).await.record.id;
    let new = NewSnapshot { alias: Some("kept".to_owned()), expiry_days: None };
    two.bench.control.create_snapshot(&two.bench.actor, source, new).await.unwrap();
    two.bench.shut_down().await;
    let (whole, of_snapshot) = (to(&two, project.id), to(&two, project.id));
    let of_snapshot = NewCopy { source_snapshot: Some("kept".to_owned()), ..of_snapshot };
    let both = vec![two.first.clone(), two.second.clone()];
    let actor = two.bench.actor.clone();
    let bench = &mut two.bench;
    let mut copies = Vec::new();
    for new in [whole, of_snapshot] {
        let copy = bench.control.copy_container(&actor, source, new).await.unwrap();
        copies.push(copy.record.id);
    }
    let busy = bench.control.delete_snapshot(&actor, source, "kept").await;
    assert!(busy.is_err(), "it is wanted: {busy:?}");

    bench.serve(vec![two.first.clone()]).await;
    bench.reconcile(quick());
    bench.control.delete_snapshot(&actor, source, "kept").await.unwrap();
    bench.control.delete_container(&actor, source).await.unwrap();
    until("it is gone", || bench.world.order(source).is_none()).await;
    let removed = SnapshotKeeper::new(bench.control.clone()).look().await.unwrap();
    assert_eq!(removed, (0, 1));
    for copy in &copies {
        let record = bench.control.container(&actor, *copy).await.unwrap().record;
        assert_eq!(record.status.phase, Phase::Copying, "nobody works on it");
    }

    bench.shut_down().await;
    bench.serve(both).await;
    bench.reconcile(quick());
    for copy in copies {
        let failed = bench.phase(copy, Phase::Failed).await.record.status;
        let why = "what it was to be a copy of has been deleted meanwhile";
        assert_eq!(failed.why.as_deref(), Some(why));
        let mut head = bench.store.head();
        while bench.store.unfinished_snapshot(copy).await.unwrap().is_some() {
            tokio::time::timeout(PATIENCE, head.changed()).await.unwrap().unwrap();
        }
        assert_eq!(two.world.order(copy), None, "nothing is left of it");
    }
}

/// Two snapshots of each of the containers, that are gone from the records.
async fn discarded_of(two: &Two, (here, there): (ContainerId, ContainerId)) {
    for id in [here, there] {
        for alias in ["one", "two"] {
            let new = NewSnapshot { alias: Some(alias.to_owned()), expiry_days: None };
            two.bench.control.create_snapshot(&two.bench.actor, id, new).await.unwrap();
            two.bench.control.delete_snapshot(&two.bench.actor, id, alias).await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_turn_of_a_server_that_hangs_ends_and_others_have_theirs() {
    let mut two = Two::new().await;
    discarded_of(&two, two.one_on_each().await).await;
    two.bench.shut_down().await;
    two.bench.world.delay(Call::DeleteSnapshot, Duration::from_hours(1));
    let keeper = SnapshotKeeper::new(two.bench.control.clone());
    tokio::time::pause();
    assert_eq!(keeper.look().await.unwrap(), (0, 2), "those of the server that answers");
    let calls =
        (two.bench.world.calls(Call::DeleteSnapshot), two.world.calls(Call::DeleteSnapshot));
    assert_eq!(calls, (1, 2), "it is not asked for one after another");
    two.bench.world.delay(Call::DeleteSnapshot, Duration::ZERO);
    assert_eq!(keeper.look().await.unwrap(), (0, 2));
}

#[tokio::test]
async fn while_a_server_hangs_the_keeper_goes_on_with_others() {
    let two = Two::new().await;
    two.bench.world.delay(Call::DeleteSnapshot, Duration::from_hours(1));
    let shutdown = CancellationToken::new();
    let mut keeping = JoinSet::new();
    keeping.spawn(SnapshotKeeper::new(two.bench.control.clone()).run(shutdown.clone()));
    let both = two.one_on_each().await;
    discarded_of(&two, both).await;
    until("the other is asked", || two.bench.world.calls(Call::DeleteSnapshot) > 0).await;
    until("all is removed", || two.world.calls(Call::DeleteSnapshot) == 2).await;
    // What comes later does not wait either.
    discarded_of(&two, both).await;
    until("all is removed", || two.world.calls(Call::DeleteSnapshot) == 4).await;
    assert_eq!(two.bench.world.calls(Call::DeleteSnapshot), 1, "it still hangs");
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, keeping.join_next()).await.unwrap().unwrap().unwrap();
}
