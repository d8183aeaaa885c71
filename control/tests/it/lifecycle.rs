//! Containers from their making to their end.

use std::{collections::BTreeMap, time::Duration};

use gantry_control::{
    Condition, ContainerChange, Error, LogSort, NewContainer, NewProject, Operation, Page,
    ProjectChange, Thing,
};
use gantry_model::{Generation, Phase};
use gantry_runtime::{Error as RuntimeError, Kit, State, fake::Call};

use crate::bench::{Bench, PATIENCE, ssh_key, until};

#[tokio::test]
async fn a_container_goes_through_its_whole_life() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let made = bench
        .create(
            &project,
            NewContainer {
                name: Some("My_Box".into()),
                environment_vars: BTreeMap::from([("A".into(), "1".into())]),
                ..bench.plain()
            },
        )
        .await;
    let id = made.record.id;
    assert_eq!(made.record.status.phase, Phase::Creating);
    assert_eq!(made.project_alias, "main");
    assert_eq!(made.server_name.as_str(), "local");

    let status = bench.reach(id, Condition::Running).await.record.status;
    assert_eq!((status.generation, status.done_seq), (Generation(1), 1));
    let order = bench.world.order(id).unwrap();
    assert_eq!((order.hostname.as_str(), order.kit), ("my-box", Kit::Dev));
    assert_eq!(order.env["A"], "1");
    assert!(status.address.is_some() && status.started_at_ms.is_some());

    assert_eq!(bench.operate(id, Operation::Pause).await.record.status.phase, Phase::Paused);
    assert_eq!(state(&bench, id).await, Some(State::Paused));
    bench.operate(id, Operation::Resume).await;
    assert_eq!(state(&bench, id).await, Some(State::Running));
    assert_eq!(bench.world.starts(id), 1);

    let status = bench.operate(id, Operation::Restart).await.record.status;
    assert_eq!((status.generation, bench.world.starts(id)), (Generation(2), 2));
    let status = bench.operate(id, Operation::Stop).await.record.status;
    assert_eq!((status.phase, status.address), (Phase::Stopped, None));
    bench.operate(id, Operation::Start).await;
    bench.operate(id, Operation::ForceStop).await;
    bench.operate(id, Operation::Restart).await;
    assert_eq!(bench.world.starts(id), 4);

    bench.control.delete_container(&bench.actor, id).await.unwrap();
    let waited = bench.control.wait_for(&bench.actor, id, Condition::Deleted, PATIENCE).await;
    assert!(matches!(waited, Ok(waited) if waited.met) || is_gone(&bench, id).await);
    assert_eq!(state(&bench, id).await, None);
    assert!(is_gone(&bench, id).await);
}

#[tokio::test]
async fn the_status_log_tells_each_phase_and_its_cause() {
    let bench = Bench::running().await;
    let id = bench.running_container(&bench.project().await).await.record.id;
    bench.operate(id, Operation::Restart).await;
    bench.world.crash(id);
    bench.phase(id, Phase::Failed).await;
    let page = Page { page: 1, limit: 100, sort: LogSort::At, descending: false };
    let logs = bench.control.status_logs(&bench.actor, id, page).await.unwrap().items;
    let told: Vec<(Phase, &str)> =
        logs.iter().map(|log| (log.to, log.triggered_by.as_str())).collect();
    assert_eq!(
        told,
        [
            (Phase::Creating, "create"),
            (Phase::Running, "reconciler"),
            (Phase::Stopping, "manual_operation"),
            (Phase::Stopped, "reconciler"),
            (Phase::Starting, "reconciler"),
            (Phase::Running, "reconciler"),
            (Phase::Failed, "runtime"),
        ]
    );
}

#[tokio::test]
async fn operations_are_refused_where_the_phase_does_not_allow_them() {
    let bench = Bench::running().await;
    let id = bench.running_container(&bench.project().await).await.record.id;
    let ask = async |operation| bench.control.operate(&bench.actor, id, operation, None).await;
    for operation in [Operation::Start, Operation::Resume] {
        let refused = ask(operation).await.unwrap_err();
        assert!(matches!(refused, Error::AlreadyThere { phase: Phase::Running, .. }), "{refused}");
    }
    bench.operate(id, Operation::Pause).await;
    for operation in [Operation::Start, Operation::Restart] {
        let refused = ask(operation).await.unwrap_err();
        assert!(matches!(refused, Error::Refused { phase: Phase::Paused, .. }), "{refused}");
    }
    let refused = ask(Operation::Pause).await.unwrap_err();
    assert!(matches!(refused, Error::AlreadyThere { .. }), "{refused}");
    bench.operate(id, Operation::Stop).await;
    for operation in [Operation::Stop, Operation::ForceStop] {
        let refused = ask(operation).await.unwrap_err();
        assert!(matches!(refused, Error::AlreadyThere { .. }), "{refused}");
    }
    for operation in [Operation::Pause, Operation::Resume] {
        let refused = ask(operation).await.unwrap_err();
        assert!(matches!(refused, Error::Refused { phase: Phase::Stopped, .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_restart_wins() {
    let mut bench = Bench::running().await;
    let id = bench.running_container(&bench.project().await).await.record.id;
    bench.world.delay(Call::Run, Duration::from_hours(1));
    bench.control.operate(&bench.actor, id, Operation::Restart, None).await.unwrap();
    bench.phase(id, Phase::Starting).await;
    bench.operate(id, Operation::Stop).await;
    assert_eq!(bench.world.starts(id), 1);
    // The moment between: stopped, and about to start again.
    bench.world.delay(Call::Run, Duration::ZERO);
    bench.operate(id, Operation::Start).await;
    bench.shut_down().await;
    bench.control.operate(&bench.actor, id, Operation::Restart, None).await.unwrap();
    let record = bench.control.container(&bench.actor, id).await.unwrap().record;
    let mut status = record.status;
    status.phase = Phase::Stopped;
    bench.store.set_status(id, record.version, &status, "test", 0).await.unwrap();
    bench.control.operate(&bench.actor, id, Operation::Stop, None).await.unwrap();
    bench.reconcile(crate::bench::quick());
    bench.reach(id, Condition::Stopped).await;
    assert_eq!(bench.world.starts(id), 2);
}

#[tokio::test]
async fn an_unknown_image_fails_the_container_with_the_reason() {
    let bench = Bench::running().await;
    let new = NewContainer { container_image: Some("plan/9".into()), ..bench.plain() };
    let id = bench.create(&bench.project().await, new).await.record.id;
    let waited =
        bench.control.wait_for(&bench.actor, id, Condition::Running, PATIENCE).await.unwrap();
    assert!(!waited.met);
    let status = waited.container.unwrap().record.status;
    assert_eq!(status.phase, Phase::Failed);
    assert_eq!(status.why.as_deref(), Some("no image is named plan/9"));
    assert_eq!(bench.world.calls(Call::Create), 1, "trying again does not help");
    bench.control.delete_container(&bench.actor, id).await.unwrap();
    gone(&bench, id).await;
}

#[tokio::test]
async fn a_start_that_keeps_failing_is_given_up_and_swept() {
    let bench = Bench::running().await;
    for _ in 0..8 {
        let error = RuntimeError::failed("starting the container", "no such luck");
        bench.world.fail_next(Call::Run, error);
    }
    let id = bench.create(&bench.project().await, bench.plain()).await.record.id;
    let status = bench.phase(id, Phase::Failed).await.record.status;
    assert_eq!(status.why.as_deref(), Some("starting the container failed"));
    assert_eq!(state(&bench, id).await, None, "nothing is left when it shows");
    assert_eq!(bench.world.calls(Call::Run), 4);
    // What an owner changes is tried anew.
    bench.control.operate(&bench.actor, id, Operation::Start, None).await.unwrap();
    bench.reach(id, Condition::Settled).await;
}

#[tokio::test]
async fn a_deletion_that_takes_long_says_why_and_goes_on() {
    let bench = Bench::running().await;
    let id = bench.running_container(&bench.project().await).await.record.id;
    for _ in 0..10 {
        bench.world.fail_next(Call::Delete, RuntimeError::failed("unmounting", "busy"));
    }
    let mut head = bench.store.head();
    bench.control.delete_container(&bench.actor, id).await.unwrap();
    let told = async {
        loop {
            head.mark_unchanged();
            let status = bench.control.container(&bench.actor, id).await.unwrap().record.status;
            assert_eq!(status.phase, Phase::Deleting);
            if let Some(why) = status.why {
                return why;
            }
            head.changed().await.unwrap();
        }
    };
    let why = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!(why, "unmounting failed");
    gone(&bench, id).await;
}

#[tokio::test]
async fn a_passing_failure_is_tried_again() {
    let bench = Bench::running().await;
    for call in [Call::Create, Call::Run, Call::Stop, Call::Pause, Call::Resume, Call::Delete] {
        bench.world.fail_next(call, RuntimeError::failed("it", "busy"));
        bench.world.fail_next(Call::List, RuntimeError::failed("looking", "busy"));
    }
    let id = bench.running_container(&bench.project().await).await.record.id;
    bench.operate(id, Operation::Pause).await;
    bench.operate(id, Operation::Resume).await;
    bench.operate(id, Operation::Stop).await;
    bench.control.delete_container(&bench.actor, id).await.unwrap();
    gone(&bench, id).await;
}

#[tokio::test]
async fn a_container_that_cannot_be_frozen_keeps_running_and_says_why() {
    let bench = Bench::running().await;
    let id = bench.running_container(&bench.project().await).await.record.id;
    for _ in 0..8 {
        bench.world.fail_next(Call::Pause, RuntimeError::failed("freezing the container", "no"));
    }
    let operated =
        bench.control.operate(&bench.actor, id, Operation::Pause, Some(PATIENCE)).await.unwrap();
    let status = operated.container.record.status;
    assert!(!operated.done);
    assert_eq!(status.phase, Phase::Running);
    assert_eq!(status.why.as_deref(), Some("freezing the container failed"));
}

#[tokio::test]
async fn a_container_whose_init_ends_is_failed_and_can_start_again() {
    let bench = Bench::running().await;
    let id = bench.running_container(&bench.project().await).await.record.id;
    bench.world.crash(id);
    let status = bench.phase(id, Phase::Failed).await.record.status;
    assert_eq!(status.why.as_deref(), Some("its init ended by itself"));
    assert_eq!(status.address, None);
    let status = bench.operate(id, Operation::Start).await.record.status;
    assert_eq!((status.why, status.generation), (None, Generation(2)));
}

#[tokio::test]
async fn a_deletion_does_not_wait_for_the_creation() {
    let bench = Bench::running().await;
    bench.world.delay(Call::Create, Duration::from_hours(1));
    let id = bench.create(&bench.project().await, bench.plain()).await.record.id;
    until("the creation is under way", || bench.world.calls(Call::Create) == 1).await;
    bench.control.delete_container(&bench.actor, id).await.unwrap();
    gone(&bench, id).await;
}

#[tokio::test]
async fn a_wish_made_while_a_pass_looks_is_not_lost() {
    let bench = Bench::running().await;
    let id = bench.running_container(&bench.project().await).await.record.id;
    bench.world.delay(Call::List, Duration::from_millis(20));
    let looks = bench.world.calls(Call::List);
    let change = ContainerChange { color: Some("#fff".into()), ..ContainerChange::default() };
    bench.control.update_container(&bench.actor, id, change).await.unwrap();
    // The pass has read the record by now, and is about to find that all is well.
    until("a pass looks", || bench.world.calls(Call::List) > looks).await;
    bench.operate(id, Operation::Stop).await;
}

#[tokio::test]
async fn creations_that_wait_do_not_keep_others_from_stopping() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let id = bench.running_container(&project).await.record.id;
    bench.world.delay(Call::Create, Duration::from_hours(1));
    for _ in 0..10 {
        bench.create(&project, bench.plain()).await;
    }
    until("all turns are taken", || bench.world.calls(Call::Create) == 1 + 8).await;
    bench.operate(id, Operation::Stop).await;
}

#[tokio::test]
async fn waiting_ends_when_its_time_is_over() {
    let bench = Bench::new().await;
    let id = bench.create(&bench.project().await, bench.plain()).await.record.id;
    let short = Duration::from_millis(5);
    let waited = bench.control.wait_for(&bench.actor, id, Condition::Running, short).await.unwrap();
    assert!(!waited.met);
    assert_eq!(waited.container.unwrap().record.status.phase, Phase::Creating);
    let missing = gantry_model::ContainerId::from_bytes([9; 12]);
    let error =
        bench.control.wait_for(&bench.actor, missing, Condition::Running, short).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(Thing::Container)), "{error}");
}

#[tokio::test]
async fn a_hundred_creations_at_once_succeed() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let creations = (0..100).map(|_| bench.create(&project, bench.plain()));
    let made = futures_util::future::join_all(creations).await;
    for view in &made {
        bench.reach(view.record.id, Condition::Running).await;
    }
    let mut names: Vec<_> = made.iter().map(|view| view.record.spec.name.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 100);
    let addresses: std::collections::BTreeSet<_> =
        bench.all().await.into_iter().map(|view| view.record.status.address).collect();
    assert_eq!(addresses.len(), 100);
}

#[tokio::test]
async fn of_two_creations_with_one_key_exactly_one_succeeds() {
    let bench = Bench::new().await;
    let project = bench.project().await;
    let with = |name: Option<&str>, key| NewContainer {
        name: name.map(Into::into),
        ssh_public_key: key,
        ..bench.plain()
    };
    let create = |new| bench.control.create_container(&bench.actor, project.id, new);
    for round in 0..5 {
        let key = || Some(ssh_key(round));
        let pair = tokio::join!(create(with(None, key())), create(with(None, key())));
        let (Ok(_), Err(error)) = sorted(pair) else { panic!("both or neither") };
        assert!(matches!(error, Error::KeyTaken(gantry_control::During::Create)), "{error}");
        let name = format!("name-{round}");
        let pair = tokio::join!(create(with(Some(&name), None)), create(with(Some(&name), None)));
        let (Ok(_), Err(error)) = sorted(pair) else { panic!("both or neither") };
        assert!(matches!(error, Error::NameTaken(gantry_control::During::Create)), "{error}");
    }
    assert_eq!(bench.all().await.len(), 10);
}

fn sorted<T>(pair: (Result<T, Error>, Result<T, Error>)) -> (Result<T, Error>, Result<T, Error>) {
    if pair.0.is_ok() { pair } else { (pair.1, pair.0) }
}

#[tokio::test]
async fn a_project_holds_no_more_containers_than_it_may() {
    let bench = Bench::new().await;
    let new = NewProject {
        alias: Some("small".into()),
        max_containers: Some(3),
        ..NewProject::default()
    };
    let project = bench.control.create_project(&bench.actor, new).await.unwrap();
    let create = || bench.control.create_container(&bench.actor, project.id, bench.plain());
    let made = futures_util::future::join_all((0..8).map(|_| create())).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 3);
    for error in made.into_iter().filter_map(Result::err) {
        assert!(matches!(error, Error::Quota { max: 3 }), "{error}");
    }
    let change =
        ProjectChange { max_containers: gantry_control::Patch::Clear, ..ProjectChange::default() };
    bench.control.update_project(&bench.actor, project.id, change).await.unwrap();
    create().await.unwrap();
}

#[tokio::test]
async fn a_project_takes_its_containers_along() {
    let bench = Bench::running().await;
    let (project, other) = (bench.project().await, bench.project_named("other").await);
    let kept = bench.running_container(&other).await.record.id;
    for _ in 0..3 {
        bench.running_container(&project).await;
    }
    let deleted = bench.control.delete_project(&bench.actor, project.id).await.unwrap();
    assert_eq!(deleted.containers.len(), 3);
    let left: Vec<_> = bench.all().await.into_iter().map(|view| view.record.id).collect();
    assert_eq!(left, [kept]);
    assert_eq!(bench.runtime().list().await.unwrap().len(), 1);
    let error = bench.control.project(&bench.actor, project.id).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(Thing::Project)), "{error}");
}

#[tokio::test]
async fn a_project_whose_containers_do_not_go_stays_and_can_be_deleted_again() {
    let limits = gantry_control::Limits {
        // More than the deletion of an empty one takes on a busy machine.
        project_delete_timeout_ms: 1000,
        ..gantry_control::Limits::default()
    };
    let mut bench = Bench::with_limits(limits).await;
    let project = bench.project().await;
    bench.create(&project, bench.plain()).await;
    let error = bench.control.delete_project(&bench.actor, project.id).await.unwrap_err();
    assert!(matches!(error, Error::ProjectNotEmpty { left: 1 }), "{error}");
    bench.reconcile(crate::bench::quick());
    let mut head = bench.store.head();
    while !bench.all().await.is_empty() {
        tokio::time::timeout(PATIENCE, head.changed()).await.unwrap().unwrap();
    }
    bench.control.delete_project(&bench.actor, project.id).await.unwrap();
}

#[tokio::test]
async fn stats_are_there_while_it_runs() {
    let bench = Bench::running().await;
    let id = bench.running_container(&bench.project().await).await.record.id;
    let stats = bench.control.container_stats(&bench.actor, id).await.unwrap();
    assert_eq!(stats.stats.map(|stats| stats.pids), Some(1));
    bench.operate(id, Operation::Stop).await;
    let stats = bench.control.container_stats(&bench.actor, id).await.unwrap();
    assert_eq!(stats.stats, None);
    let images = bench.control.images(&bench.actor).await.unwrap();
    let names: Vec<_> = images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["debian/12", "debian/13"]);
    let servers = bench.control.servers(&bench.actor).await.unwrap();
    assert_eq!((servers.len(), servers[0].containers), (1, 1));
}

async fn state(bench: &Bench, id: gantry_model::ContainerId) -> Option<State> {
    bench.runtime().observe(id).await.unwrap().map(|observed| observed.state)
}

async fn is_gone(bench: &Bench, id: gantry_model::ContainerId) -> bool {
    matches!(
        bench.control.container(&bench.actor, id).await,
        Err(Error::NotFound(Thing::Container))
    )
}

/// Waits for the end of a container, which may have come before the wait.
async fn gone(bench: &Bench, id: gantry_model::ContainerId) {
    match bench.control.wait_for(&bench.actor, id, Condition::Deleted, PATIENCE).await {
        Ok(waited) => assert!(waited.met, "{:?}", waited.container),
        Err(error) => assert!(matches!(error, Error::NotFound(Thing::Container)), "{error}"),
    }
}
