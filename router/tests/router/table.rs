//! The table as a function of records.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gantry_model::{
    ContainerId, Generation, Phase, ProjectId, Scheme, ServerId,
    access::{Document, Fallback},
    alias::{AliasTarget, Landing},
    edge::{EdgeSettings, WakePolicy},
    ssh::KeyFingerprint,
};
use gantry_router::{
    AliasRoute, Gate, NoRoute, Route, RouteState, RouteTable, ServerIndex, Servers,
};
use gantry_store::{AliasRecord, EdgeRecord, Epoch, Revision, RouteRecord, RouteSnapshot};
use proptest::{prelude::*, sample::select};

use crate::support::{container_id, project_id};

fn record(container: u8) -> RouteRecord {
    RouteRecord {
        container: container_id(container),
        project: project_id(1),
        server: LOCAL,
        hoody_kit: true,
        ssh_key: None,
        ssh_forwarding: true,
        phase: Phase::Running,
        address: Some([10, 88, 0, container].into()),
        generation: Generation(3),
        started_at_ms: Some(1_700_000_000_000),
        why_failed: false,
        edge: None,
    }
}

fn build(containers: Vec<RouteRecord>) -> RouteTable {
    let snapshot = RouteSnapshot { epoch: Epoch([7; 16]), revision: Revision(5), containers };
    RouteTable::build(&snapshot, &servers())
}

const LOCAL: ServerId = ServerId::from_bytes([1; 12]);
const SECOND: ServerId = ServerId::from_bytes([2; 12]);

fn servers() -> Servers {
    Servers::new([(LOCAL, "local".parse().unwrap()), (SECOND, "second".parse().unwrap())])
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
        server: ServerIndex::default(),
        gated: false,
    };
    for (project, container, answer) in [
        (1, 1, Ok(want)),
        (2, 1, Err(NoRoute::Unknown)), // another project's id proves nothing
        (1, 2, Err(NoRoute::Unknown)), // no Kit, no hostname
        (1, 3, Err(NoRoute::Unknown)),
    ] {
        assert_eq!(table.lookup(project_id(project), container_id(container)), answer);
    }
    for (server, container, answer) in [
        ("local", 1, Ok(want)),
        ("second", 1, Err(NoRoute::OtherServer)),
        ("other", 1, Err(NoRoute::OtherServer)),
        ("local", 3, Err(NoRoute::Unknown)),
    ] {
        let found = table.lookup_on(server, project_id(1), container_id(container));
        assert_eq!(found, answer, "{server}");
        assert_eq!(table.is_on(server, container_id(container)), answer.is_ok(), "{server}");
    }
}

#[test]
fn a_container_is_found_under_its_own_servers_name_only() {
    let edge = |label| {
        let aliases = vec![alias(label, &[])];
        Some(Arc::new(EdgeRecord { aliases, ..EdgeRecord::default() }))
    };
    let away = ServerId::from_bytes([9; 12]);
    let table = build(vec![
        RouteRecord { edge: edge("one"), ..record(1) },
        RouteRecord { server: SECOND, edge: edge("two"), ..record(2) },
        RouteRecord { server: away, edge: edge("gone"), ..record(3) },
    ]);
    let on = |server, number| {
        table.lookup_on(server, project_id(1), container_id(number)).map(|route| route.container)
    };
    assert_eq!(on("second", 2), Ok(container_id(2)));
    assert_eq!(on("local", 2), Err(NoRoute::OtherServer));
    let leads = |server, label| table.alias(server, label).map(|alias| alias.container);
    assert_eq!(leads("local", "one"), Some(container_id(1)));
    assert_eq!(leads("second", "two"), Some(container_id(2)));
    assert_eq!((leads("second", "one"), leads("local", "two")), (None, None));
    // Nobody knows whose its address is by now.
    let project = project_id(1);
    assert_eq!(table.lookup(project, container_id(3)), Err(NoRoute::Unknown));
    assert_eq!((leads("local", "gone"), leads("second", "gone")), (None, None));
}

#[test]
fn a_key_leads_to_its_container_whatever_else_does_not() {
    let key = |octet| Some(KeyFingerprint([octet; 32]));
    let away = ServerId::from_bytes([9; 12]);
    let edge = |wake| {
        let settings = EdgeSettings { wake, ..EdgeSettings::default() };
        Some(Arc::new(EdgeRecord { settings, ..EdgeRecord::default() }))
    };
    let table = build(vec![
        RouteRecord { ssh_key: key(1), hoody_kit: false, ..record(1) },
        RouteRecord { ssh_key: key(2), phase: Phase::Stopped, server: SECOND, ..record(2) },
        RouteRecord { ssh_key: key(3), server: away, ..record(3) },
        RouteRecord { ssh_key: key(4), phase: Phase::Deleting, ..record(4) },
        RouteRecord { ssh_key: key(5), edge: edge(WakePolicy::Authed), ..record(5) },
        RouteRecord {
            ssh_key: key(6),
            ssh_forwarding: false,
            edge: edge(WakePolicy::Navigate),
            ..record(6)
        },
        record(7),
    ]);
    let found = |octet| table.by_key(&KeyFingerprint([octet; 32]));
    let container = |octet| found(octet).map(|route| route.container);
    assert_eq!(container(1), Some(container_id(1)), "without a Kit, too");
    assert_eq!(found(1).unwrap().generation, Generation(3));
    let stopped = found(2).unwrap();
    assert_eq!((stopped.container, stopped.state), (container_id(2), RouteState::Stopped));
    assert_eq!((container(3), container(4), container(9)), (None, None, None));
    let wakes = |octet| found(octet).unwrap().wakes;
    assert_eq!((wakes(1), wakes(5), wakes(6)), (false, true, false));
    let forwards = |octet| found(octet).unwrap().forwards;
    assert_eq!((forwards(5), forwards(6)), (true, false));
}

#[test]
fn a_key_that_moves_leads_to_one_container_at_each_moment() {
    let key = |octet| Some(KeyFingerprint([octet; 32]));
    let with = |container, ssh_key| {
        (container_id(container), Some(RouteRecord { ssh_key, ..record(container) }))
    };
    let moved = [with(1, None), with(2, key(1))];
    for order in [[0, 1], [1, 0]] {
        let table = build(vec![RouteRecord { ssh_key: key(1), ..record(1) }, record(2)]);
        let container =
            |octet| table.by_key(&KeyFingerprint([octet; 32])).map(|route| route.container);
        table.apply(&order.map(|at: usize| moved[at].clone()), Revision(6));
        assert_eq!(container(1), Some(container_id(2)), "{order:?}");
        // Its container takes another one.
        table.apply(&[with(2, key(7))], Revision(7));
        assert_eq!((container(1), container(7)), (None, Some(container_id(2))));
        table.apply(&[(container_id(2), None)], Revision(8));
        assert_eq!(container(7), None);
    }
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
    assert!(size_of::<Route>() <= 72);
}

fn alias(label: &str, hostnames: &[&str]) -> AliasRecord {
    AliasRecord {
        label: label.to_owned(),
        hostnames: hostnames.iter().map(|&name| name.to_owned()).collect(),
        target: AliasTarget::Port { scheme: Scheme::Http, port: 3000 },
        landing: Some(Landing::parse("target_path", "/app", true).unwrap()),
        enabled: true,
        expires_at_ms: Some(2_000),
        clear_site_data: true,
    }
}

fn closed() -> Arc<Document> {
    Arc::new(Document { enable_proxy: Some(false), ..Document::default() })
}

fn with_edge(container: u8, edge: EdgeRecord) -> RouteRecord {
    RouteRecord { edge: Some(Arc::new(edge)), ..record(container) }
}

#[test]
fn an_alias_and_its_hostnames_lead_to_its_container() {
    let edge =
        EdgeRecord { aliases: vec![alias("shop", &["shop.example"])], ..EdgeRecord::default() };
    let table = build(vec![with_edge(1, edge), record(2)]);
    let want = AliasRoute {
        container: container_id(1),
        project: project_id(1),
        target: AliasTarget::Port { scheme: Scheme::Http, port: 3000 },
        landing: Some(Landing::parse("target_path", "/app", true).unwrap()),
        enabled: true,
        expires_at_ms: Some(2_000),
        clear_site_data: true,
    };
    assert_eq!(table.alias("local", "shop").as_deref(), Some(&want));
    assert_eq!(table.custom("shop.example").as_deref(), Some(&want));
    assert_eq!(table.alias("local", "shop.example"), None, "a hostname is no label");
    assert_eq!(table.custom("shop"), None, "a label is no hostname");
    assert_eq!((want.is_live(1_999), want.is_live(2_000)), (true, false));
    assert!(!AliasRoute { enabled: false, ..want }.is_live(0));
    // An alias alone is nothing that a request has to pass.
    assert!(!table.lookup(project_id(1), container_id(1)).unwrap().gated);
    assert_eq!(table.gate(container_id(1)), None);
}

#[test]
fn a_name_is_gone_when_its_container_has_it_no_longer() {
    let both = vec![alias("shop", &["shop.example"]), alias("blog", &[])];
    let edge = |aliases: &[AliasRecord]| {
        Some(Arc::new(EdgeRecord { aliases: aliases.to_vec(), ..EdgeRecord::default() }))
    };
    for (why, then) in [
        ("removed", Some(RouteRecord { edge: edge(&both[1..]), ..record(1) })),
        ("renamed", Some(RouteRecord { edge: edge(&[alias("new", &[])]), ..record(1) })),
        ("all removed", Some(record(1))),
        ("container removed", None),
        ("container being deleted", {
            Some(RouteRecord { phase: Phase::Deleting, edge: edge(&both), ..record(1) })
        }),
    ] {
        let table = build(vec![RouteRecord { edge: edge(&both), ..record(1) }]);
        assert!(
            table.alias("local", "shop").is_some() && table.custom("shop.example").is_some(),
            "{why}"
        );
        table.apply(&[(container_id(1), then)], Revision(6));
        assert_eq!(
            (table.alias("local", "shop"), table.custom("shop.example")),
            (None, None),
            "{why}"
        );
    }
}

#[test]
fn a_name_that_moved_stays_with_its_new_container() {
    let edge = EdgeRecord { aliases: vec![alias("shop", &["a.example"])], ..EdgeRecord::default() };
    for order in [[1, 2], [2, 1]] {
        let table = build(vec![with_edge(1, edge.clone()), record(2)]);
        let now = |container| match container {
            1 => (container_id(1), Some(record(1))),
            _ => (container_id(2), Some(with_edge(2, edge.clone()))),
        };
        table.apply(&order.map(now), Revision(6));
        for found in [table.alias("local", "shop"), table.custom("a.example")] {
            assert_eq!(found.map(|to| to.container), Some(container_id(2)), "{order:?}");
        }
    }
}

#[test]
fn a_gate_has_another_serial_when_and_only_when_it_says_something_else() {
    let table = build(vec![record(1)]);
    let gate = |edge: &EdgeRecord| {
        table.apply(&[(container_id(1), Some(with_edge(1, edge.clone())))], Revision(6));
        let route = table.lookup(project_id(1), container_id(1)).unwrap();
        let gate = table.gate(container_id(1));
        assert_eq!(route.gated, gate.is_some());
        gate.map(|gate| gate.serial)
    };
    let mut edge = EdgeRecord::default();
    assert_eq!(gate(&edge), None, "nothing is set");
    edge.container = Some(Arc::new(Document { default: Fallback::Allow, ..Document::default() }));
    let first = gate(&edge).unwrap();
    assert_eq!(gate(&edge), Some(first));
    edge.aliases = vec![alias("shop", &[])];
    assert_eq!(gate(&edge), Some(first), "an alias is no part of it");

    let mut seen = BTreeSet::from([first]);
    edge.project = Some(closed());
    edge.container = None;
    assert!(seen.insert(gate(&edge).unwrap()));
    edge.settings.wake = WakePolicy::Any;
    assert!(seen.insert(gate(&edge).unwrap()));
    assert_eq!(gate(&EdgeRecord::default()), None);
    assert!(seen.insert(gate(&edge).unwrap()), "a gate that went and came is a new one");
}

const LABELS: [&str; 4] = ["one", "two", "three", "four"];
const HOSTNAMES: [&str; 3] = ["a.example", "b.example", "c.example"];

/// What may hang on a container; names are added by [`World::change`], which hands each out once.
fn any_edge() -> impl Strategy<Value = Option<EdgeRecord>> {
    let document = || proptest::option::of(select(vec![Arc::default(), closed()]));
    let wake = select(vec![WakePolicy::Never, WakePolicy::Any]);
    let names = (
        proptest::sample::subsequence(&LABELS[..], 0..3),
        proptest::sample::subsequence(&HOSTNAMES[..], 0..3),
    );
    let edge = (document(), document(), wake, names).prop_map(
        |(project, container, wake, (labels, hostnames))| EdgeRecord {
            project,
            container,
            settings: EdgeSettings { wake, ..EdgeSettings::default() },
            aliases: labels
                .iter()
                .enumerate()
                .map(|(at, label)| alias(label, if at == 0 { &hostnames } else { &[] }))
                .collect(),
            ..EdgeRecord::default()
        },
    );
    proptest::option::of(edge)
}

fn any_record(container: u8) -> impl Strategy<Value = RouteRecord> {
    let address = proptest::option::of(any::<std::net::IpAddr>());
    (1_u8..4, any::<bool>(), select(&Phase::ALL[..]), address, 0_u64..4, any_edge()).prop_map(
        move |(project, hoody_kit, phase, address, generation, edge)| RouteRecord {
            container: container_id(container),
            project: project_id(project),
            server: LOCAL,
            hoody_kit,
            ssh_key: None,
            ssh_forwarding: true,
            phase,
            address,
            generation: Generation(generation),
            started_at_ms: None,
            why_failed: phase == Phase::Failed,
            edge: edge.map(Arc::new),
        },
    )
}

/// The records of all containers, as a store would hold them: each name belongs to one.
#[derive(Default)]
struct World(BTreeMap<u8, RouteRecord>);

impl World {
    fn change(&mut self, (id, record): &Change) {
        self.0.remove(id);
        let Some(mut record) = record.clone() else { return };
        if let Some(edge) = record.edge.as_mut().map(Arc::make_mut) {
            let others = || self.0.values().filter_map(|other| other.edge.as_ref());
            let aliases = || others().flat_map(|edge| &edge.aliases);
            edge.aliases.retain(|new| aliases().all(|old| old.label != new.label));
            for new in &mut edge.aliases {
                new.hostnames.retain(|name| aliases().all(|old| !old.hostnames.contains(name)));
            }
        }
        self.0.insert(*id, record);
    }

    fn build(&self) -> RouteTable {
        build(self.0.values().cloned().collect())
    }
}

/// Everything that a table answers, but for the serials of its gates.
#[derive(Debug, PartialEq)]
struct Answers {
    routes: BTreeMap<ContainerId, Route>,
    gates: Vec<Option<Gate>>,
    names: Vec<Option<AliasRoute>>,
}

impl Answers {
    fn of(table: &RouteTable) -> Self {
        let gate =
            |id| table.gate(container_id(id)).map(|gate| Gate { serial: 0, ..(*gate).clone() });
        let aliases = LABELS.iter().map(|label| table.alias("local", label));
        let hostnames = HOSTNAMES.iter().map(|name| table.custom(name));
        Self {
            routes: sorted(table),
            gates: (0..24).map(gate).collect(),
            names: aliases.chain(hostnames).map(|to| to.map(Arc::unwrap_or_clone)).collect(),
        }
    }
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
        changes in proptest::collection::vec(any_change(), 0..40),
        batch in 1_usize..10,
    ) {
        let mut world = World::default();
        for one in &start {
            world.change(one);
        }
        let table = world.build();
        for batch in changes.chunks(batch) {
            for one in batch {
                world.change(one);
            }
            // As the feed does it: the present record of each container that changed.
            let records: Vec<_> =
                batch.iter().map(|(id, _)| (container_id(*id), world.0.get(id).cloned())).collect();
            let revision = Revision(table.revision().0 + records.len() as u64);
            table.apply(&records, revision);
            prop_assert_eq!(Answers::of(&table), Answers::of(&world.build()));
        }
        for id in 0..24 {
            for project in 1..4 {
                let found = table.lookup(project_id(project), container_id(id));
                let there = world.0.get(&id).is_some_and(|record| {
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
