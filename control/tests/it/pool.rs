//! The warm pool: what waits, who gets it, and what becomes of it.

use std::collections::BTreeMap;

use gantry_control::{
    Condition, ContainerChange, ContainerQuery, ContainerView, Error, Limits, NewContainer,
    NewCopy, NewSnapshot, Operation, Project, SnapshotError,
};
use gantry_model::Phase;
use gantry_runtime::fake::Call;

use crate::bench::{Bench, PATIENCE, first_page, quick, ssh_key, until};

impl Bench {
    /// Everything that the actor's lists show when they are asked for the pool, too.
    async fn pool(&self) -> Vec<ContainerView> {
        let query = ContainerQuery {
            project: None,
            realm: None,
            include_deleting: false,
            include_prespawn: true,
            page: first_page(),
        };
        let listed = self.control.containers(&self.actor, query).await.unwrap();
        listed.items.into_iter().filter(|view| view.record.prespawn).collect()
    }

    fn warm(&self) -> NewContainer {
        NewContainer { prespawn: Some(true), ..self.plain() }
    }

    /// A container that waits and runs.
    async fn waiting(&self, project: &Project) -> ContainerView {
        let id = self.create(project, self.warm()).await.record.id;
        self.reach(id, Condition::Running).await
    }
}

#[tokio::test]
async fn a_creation_claims_what_waits_without_a_restart_and_the_pool_fills_up() {
    let bench = Bench::running().await;
    let (project, other) = (bench.project().await, bench.project_named("other").await);
    let waits = bench.waiting(&project).await.record;
    assert!(waits.prespawn && bench.all().await.is_empty(), "it is hidden");

    let wanted = NewContainer {
        name: Some("Web_1".to_owned()),
        ssh_public_key: Some(ssh_key(1)),
        environment_vars: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
        ..bench.plain()
    };
    let claimed = bench.create(&other, wanted).await.record;
    assert_eq!((claimed.id, claimed.project), (waits.id, other.id));
    assert_eq!(claimed.status.phase, Phase::Running, "it runs at once");
    assert_eq!(claimed.status.generation, waits.status.generation);
    assert!(!claimed.prespawn && claimed.spec.ssh_public_key.is_some());
    let order = bench.world.order(claimed.id).unwrap();
    assert_eq!((order.hostname.as_str(), order.env["A"].as_str()), ("web-1", "1"));
    assert_eq!(bench.world.starts(claimed.id), 1, "it was not started again");

    let next = bench.pool().await.remove(0).record;
    assert_eq!((next.project, next.spec.name.as_str().len()), (project.id, 33));
    bench.reach(next.id, Condition::Running).await;
    let different = NewContainer { ramdisk: Some(false), ..bench.plain() };
    let bypass = NewContainer { bypass_prespawn: Some(true), ..bench.plain() };
    let rebuilt = NewContainer { cache: Some(false), ..bench.plain() };
    for new in [different, bypass, rebuilt] {
        assert_eq!(bench.create(&project, new).await.record.status.phase, Phase::Creating);
    }
    assert_eq!(bench.create(&project, bench.plain()).await.record.id, next.id);
}

#[tokio::test]
async fn of_two_creations_at_once_each_has_a_container_of_its_own() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let waits = bench.waiting(&project).await.record.id;
    let creations = (0..16).map(|_| bench.create(&project, bench.plain()));
    let made = futures_util::future::join_all(creations).await;
    let claimed = made.iter().filter(|view| view.record.id == waits).count();
    assert_eq!(claimed, 1);
    assert_eq!(bench.all().await.len(), 16);
}

#[tokio::test]
async fn what_waits_can_be_looked_at_and_deleted_and_nothing_else() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let id = bench.waiting(&project).await.record.id;
    let (control, actor) = (&bench.control, &bench.actor);
    control.container(actor, id).await.unwrap();
    control.container_stats(actor, id).await.unwrap();
    let snapshot = control.create_snapshot(actor, id, NewSnapshot::default()).await.unwrap_err();
    assert!(matches!(snapshot, Error::Snapshot(SnapshotError::Prespawned)), "{snapshot}");
    let target = Some(project.id.to_string());
    let copy = NewCopy { target_project_id: target, ..NewCopy::default() };
    for refused in [
        control.operate(actor, id, Operation::Stop, None).await.err(),
        control.update_container(actor, id, ContainerChange::default()).await.err(),
        control.set_variables(actor, id, BTreeMap::new()).await.err(),
        control.copy_container(actor, id, copy).await.err(),
        control.logged_project(actor, id).await.err(),
    ] {
        assert!(matches!(refused, Some(Error::Prespawned)), "{refused:?}");
    }
    control.delete_container(actor, id).await.unwrap();
    until("it is gone", || bench.world.order(id).is_none()).await;
    assert!(bench.pool().await.is_empty(), "a deleted one is not replaced");
}

#[tokio::test]
async fn a_project_takes_with_it_what_waits_in_it() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let waits = bench.waiting(&project).await.record.id;
    let deleted = bench.control.delete_project(&bench.actor, project.id).await.unwrap();
    assert!(deleted.containers.is_empty(), "nobody knew of it");
    assert!(bench.world.order(waits).is_none());
}

/// The deletion has read the record before the claim, and finds it changed.
#[tokio::test]
async fn a_claimed_container_outlives_the_project_that_it_waited_in() {
    let bench = Bench::running().await;
    let mut survivors = 0;
    for turn in 0..8 {
        let from = bench.project_named(&format!("from-{turn}")).await;
        let to = bench.project_named(&format!("to-{turn}")).await;
        bench.waiting(&from).await;
        let delete = bench.control.delete_project(&bench.actor, from.id);
        let create = bench.create(&to, bench.plain());
        let (deleted, made) = if turn % 2 == 0 {
            tokio::join!(delete, create)
        } else {
            let (made, deleted) = tokio::join!(create, delete);
            (deleted, made)
        };
        assert!(deleted.unwrap().containers.is_empty());
        let id = made.record.id;
        survivors += usize::from(bench.reach(id, Condition::Running).await.record.project == to.id);
        bench.control.delete_container(&bench.actor, id).await.unwrap();
    }
    assert_eq!(survivors, 8);
}

#[tokio::test]
async fn one_that_cannot_be_made_is_given_up_after_some_tries_and_not_replaced() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    for _ in 0..quick().attempts_max {
        let error = gantry_runtime::Error::failed("starting the container", "no such luck");
        bench.world.fail_next(Call::Run, error);
    }
    let id = bench.create(&project, bench.warm()).await.record.id;
    bench.phase(id, Phase::Failed).await;
    assert_eq!(bench.pool().await.len(), 1);
    assert_ne!(bench.create(&project, bench.plain()).await.record.id, id, "nobody gets it");
    bench.control.delete_container(&bench.actor, id).await.unwrap();
    until("it is gone", || bench.world.order(id).is_none()).await;
}

#[tokio::test]
async fn a_pool_has_bounds_and_what_waits_has_nothing_of_its_own() {
    let limits = Limits { prespawned_per_user_max: 1, password_hashes_max: 2, ..Limits::default() };
    let bench = Bench::with_limits(limits).await;
    let project = bench.project().await;
    let create = |new| bench.control.create_container(&bench.actor, project.id, new);
    for (new, field) in [
        (NewContainer { name: Some("web".to_owned()), ..bench.warm() }, "name"),
        (NewContainer { ssh_public_key: Some(ssh_key(1)), ..bench.warm() }, "ssh_public_key"),
        (NewContainer { ssh_forwarding: Some(false), ..bench.warm() }, "ssh_forwarding"),
    ] {
        let refused = create(new).await.unwrap_err();
        assert!(
            matches!(&refused, Error::Invalid(errors) if errors[0].field == field),
            "{refused}"
        );
    }
    create(bench.warm()).await.unwrap();
    let refused = create(bench.warm()).await.unwrap_err();
    assert!(matches!(refused, Error::PoolFull { max: 1 }), "{refused}");
}

#[tokio::test]
async fn a_claim_that_was_cut_off_is_finished_by_the_next_process() {
    let mut bench = Bench::running().await;
    let project = bench.project().await;
    let waits = bench.waiting(&project).await.record.id;
    bench.world.delay(Call::Hostname, PATIENCE * 10);
    let named = NewContainer { name: Some("late".to_owned()), ..bench.plain() };
    {
        let create = bench.control.create_container(&bench.actor, project.id, named);
        let mut create = std::pin::pin!(create);
        let cut_off = async {
            let mut head = bench.store.head();
            while bench.store.container(waits).await.unwrap().unwrap().prespawn {
                head.changed().await.unwrap();
            }
        };
        tokio::select! {
            made = &mut create => panic!("done: {made:?}"),
            () = cut_off => {}
        }
    }
    bench.crash().await;
    bench.world.delay(Call::Hostname, std::time::Duration::ZERO);
    bench.reconcile(quick());
    let claimed = bench.reach(waits, Condition::Running).await.record;
    assert_eq!(claimed.spec.name.as_str(), "late");
    assert_eq!(bench.world.order(waits).unwrap().hostname, "late");
    assert_eq!(bench.world.starts(waits), 1);
}
