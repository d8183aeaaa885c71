//! The table as a function of records.

use std::collections::BTreeMap;

use gantry_model::{ContainerId, Generation, Phase, ProjectId};
use gantry_router::{NoRoute, Route, RouteState, RouteTable};
use gantry_store::{Epoch, Revision, RouteRecord, RouteSnapshot};
use proptest::{prelude::*, sample::select};

use crate::support::{container_id, project_id};

fn record(container: u8) -> RouteRecord {
    RouteRecord {
        container: container_id(container),
        project: project_id(1),
        hoody_kit: true,
        phase: Phase::Running,
        address: Some([10, 88, 0, container].into()),
        generation: Generation(3),
        started_at_ms: Some(1_700_000_000_000),
        why_failed: false,
    }
}

fn build(containers: Vec<RouteRecord>) -> RouteTable {
    RouteTable::build(&RouteSnapshot { epoch: Epoch([7; 16]), revision: Revision(5), containers })
}

#[test]
fn every_phase_has_its_answer() {
    let running =
        RouteState::Running { address: [10, 88, 0, 1].into(), since_ms: 1_700_000_000_000 };
    for (phase, want) in [
        (Phase::Creating, Some(RouteState::Starting)),
        (Phase::Copying, Some(RouteState::Starting)),
        (Phase::Claiming, Some(RouteState::Starting)),
        (Phase::Starting, Some(RouteState::Starting)),
        (Phase::Running, Some(running)),
        (Phase::Paused, Some(RouteState::Paused)),
        (Phase::Stopping, Some(RouteState::Stopped)),
        (Phase::Stopped, Some(RouteState::Stopped)),
        (Phase::Failed, Some(RouteState::Failed)),
        (Phase::Deleting, None), // its URLs are dead at once
    ] {
        let table = build(vec![RouteRecord { phase, ..record(1) }]);
        let got = table.lookup(project_id(1), container_id(1));
        assert_eq!(got.ok().map(|route| route.state), want, "{phase}");
    }
}

#[test]
fn a_running_container_without_an_address_is_still_starting() {
    let table = build(vec![RouteRecord { address: None, ..record(1) }]);
    let route = table.lookup(project_id(1), container_id(1)).unwrap();
    assert_eq!(route.state, RouteState::Starting);
}

#[test]
fn a_lookup_needs_the_right_project_and_the_kit() {
    let table = build(vec![record(1), RouteRecord { hoody_kit: false, ..record(2) }]);
    let want = Route {
        project: project_id(1),
        container: container_id(1),
        generation: Generation(3),
        state: RouteState::Running { address: [10, 88, 0, 1].into(), since_ms: 1_700_000_000_000 },
    };
    for (project, container, answer) in [
        (1, 1, Ok(want)),
        (2, 1, Err(NoRoute::Unknown)), // another project's id proves nothing
        (1, 2, Err(NoRoute::Unknown)), // no Kit, no hostname
        (1, 3, Err(NoRoute::Unknown)),
    ] {
        assert_eq!(table.lookup(project_id(project), container_id(container)), answer);
    }
    let own = "local".parse().unwrap();
    let on = |server| table.lookup_on(&own, server, project_id(1), container_id(1));
    assert_eq!(on("local"), Ok(want));
    assert_eq!(on("other"), Err(NoRoute::OtherServer));
}

#[test]
fn a_table_knows_its_revision_and_its_size() {
    let table = build(vec![record(1), record(2)]);
    assert_eq!((table.revision(), table.epoch(), table.len()), (Revision(5), Epoch([7; 16]), 2));
    table.apply(&[(container_id(1), None), (container_id(9), None)], Revision(8));
    assert_eq!((table.revision(), table.len(), table.is_empty()), (Revision(8), 1, false));
}

#[test]
fn a_route_is_small() {
    assert!(size_of::<Route>() <= 64);
}

fn any_record(container: u8) -> impl Strategy<Value = RouteRecord> {
    let address = proptest::option::of(any::<std::net::IpAddr>());
    (1_u8..4, any::<bool>(), select(&Phase::ALL[..]), address, 0_u64..4).prop_map(
        move |(project, hoody_kit, phase, address, generation)| RouteRecord {
            container: container_id(container),
            project: project_id(project),
            hoody_kit,
            phase,
            address,
            generation: Generation(generation),
            started_at_ms: None,
            why_failed: phase == Phase::Failed,
        },
    )
}

/// A container's number and what became of it.
type Change = (u8, Option<RouteRecord>);

fn any_change() -> impl Strategy<Value = Change> {
    (0_u8..24).prop_flat_map(|container| {
        (Just(container), proptest::option::weighted(0.8, any_record(container)))
    })
}

fn sorted(table: &RouteTable) -> BTreeMap<ContainerId, Route> {
    table.routes().into_iter().map(|route| (route.container, route)).collect()
}

proptest! {
    /// Following changes ends where a fresh start would: nobody can tell how old the process is.
    #[test]
    fn incremental_equals_from_scratch(
        start in proptest::collection::vec(any_change(), 0..30),
        changes in proptest::collection::vec(any_change(), 0..120),
        batch in 1_usize..10,
    ) {
        let mut world: BTreeMap<u8, RouteRecord> = BTreeMap::new();
        let change = |world: &mut BTreeMap<u8, RouteRecord>, (id, record): &Change| {
            match record {
                Some(record) => world.insert(*id, *record),
                None => world.remove(id),
            };
        };
        for one in &start {
            change(&mut world, one);
        }
        let table = build(world.values().copied().collect());
        for batch in changes.chunks(batch) {
            for one in batch {
                change(&mut world, one);
            }
            // As the feed does it: the present record of each container that changed.
            let records: Vec<_> =
                batch.iter().map(|(id, _)| (container_id(*id), world.get(id).copied())).collect();
            let revision = Revision(table.revision().0 + records.len() as u64);
            table.apply(&records, revision);
            let fresh = build(world.values().copied().collect());
            prop_assert_eq!(sorted(&table), sorted(&fresh));
        }
        for id in 0..24 {
            for project in 1..4 {
                let found = table.lookup(project_id(project), container_id(id));
                let there = world.get(&id).is_some_and(|record| {
                    record.project == project_id(project)
                        && record.hoody_kit
                        && record.phase != Phase::Deleting
                });
                prop_assert_eq!(found.is_ok(), there);
            }
        }
    }

    /// What is not in the table is never found, whatever the ids.
    #[test]
    fn an_unknown_id_has_no_route(project: [u8; 12], container: [u8; 12]) {
        let table = build((0..50).map(record).collect());
        let (project, container) = (ProjectId::from_bytes(project), ContainerId::from_bytes(container));
        prop_assert_eq!(table.lookup(project, container), Err(NoRoute::Unknown));
        prop_assert_eq!(table.lookup(project, container_id(1)), Err(NoRoute::Unknown));
    }
}
