//! What only the inside can bring about: compaction with limits that a test can reach, damaged
//! records, statements that are refused.

use std::time::Duration;

use gantry_model::{
    ContainerSpec, Id, Phase, Scheme, Wish,
    alias::AliasTarget,
    container::{Color, ContainerName, Environment, ImageName, RamdiskScope},
    project::{ProjectAlias, ProjectSpec},
};

use crate::{
    Alias, AliasRules, Changes, Container, ContainerStatus, EnvironmentSync, EventFilter,
    Idempotency, Project, Revision, Store, User, Version, feed::Retention,
};

const HOUR_MS: i64 = 60 * 60 * 1000;

/// A store that looks every ten changes, with one container in it.
async fn world(dir: &tempfile::TempDir, rows: u64) -> (Store, Container) {
    let retention = Retention { age_ms: HOUR_MS, rows, every: 10, since: 0 };
    let store = Store::open_with(&dir.path().join("gantry.db"), retention).await.unwrap();
    let owner = User {
        id: Id::from_bytes([1; 12]),
        username: "owner".to_owned(),
        password_hash: String::new(),
        is_admin: false,
        session_generation: 0,
        created_at_ms: 0,
        updated_at_ms: 0,
    };
    store.create_user(&owner).await.unwrap();
    let color = Color::from_rgb([0; 3]);
    let project = Project {
        id: Id::from_bytes([2; 12]),
        owner: owner.id,
        spec: ProjectSpec {
            alias: ProjectAlias::parse("alias", "a").unwrap(),
            color,
            max_containers: None,
            realms: Vec::new(),
        },
        version: Version::FIRST,
        created_at_ms: 0,
        updated_at_ms: 0,
    };
    store.create_project(&project).await.unwrap();
    let name = "local".parse().unwrap();
    let server = store.ensure_server(Id::from_bytes([3; 12]), &name, 0).await.unwrap();
    let container = Container {
        id: Id::from_bytes([4; 12]),
        project: project.id,
        owner: owner.id,
        server: server.id,
        spec: ContainerSpec {
            name: ContainerName::parse("name", "one").unwrap(),
            color,
            image: ImageName::parse("image", "debian/13").unwrap(),
            hoody_kit: true,
            dev_kit: false,
            ai: false,
            autostart: false,
            ramdisk: false,
            kvm: false,
            ramdisk_scope: RamdiskScope::Container,
            cache: true,
            environment: Environment::default(),
            ssh_public_key: None,
            ssh_forwarding: true,
            comment: None,
            realms: Vec::new(),
        },
        wish: Wish::Running,
        wish_seq: 1,
        source: None,
        prespawn: false,
        status: ContainerStatus::first(Phase::Creating),
        environment_sync: EnvironmentSync::default(),
        ssh_key_since_ms: None,
        version: Version::FIRST,
        created_at_ms: 0,
        updated_at_ms: 0,
    };
    let container = store.create_container(&container).await.unwrap();
    (store, container)
}

/// Changes the container again and again, the clock going on by `step_ms` each time.
async fn change(store: &Store, mut now: Container, times: i64, step_ms: i64) {
    for number in 1..=times {
        let now_ms = number * step_ms;
        now = store.set_status(now.id, now.version, &now.status, "test", now_ms).await.unwrap();
    }
}

async fn kept(store: &Store) -> u64 {
    let head = store.head().borrow().0;
    let mut oldest = 0;
    while store.changes(Revision(oldest), 1).await.unwrap() == Changes::Compacted {
        oldest += 1;
    }
    head - oldest
}

#[tokio::test]
async fn two_processes_with_one_store_hear_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (first, container) = world(&dir, 1_000_000).await;
    let begin = |store: Store| async move {
        store.idempotency_begin("scope", "key", &[0; 32], 0).await.unwrap()
    };
    assert_eq!(begin(first.clone()).await, Idempotency::Fresh);
    let second = Store::open_beside(&dir.path().join("gantry.db")).await.unwrap();
    // What the first has under way is not taken for the remains of a crash.
    assert_eq!(begin(second.clone()).await, Idempotency::InProgress);
    // Only once it has gone, and only what it has not finished.
    assert_eq!(second.forget_process(second.process()).await.unwrap(), 0);
    first.idempotency_begin("scope", "done", &[0; 32], 0).await.unwrap();
    first.idempotency_finish("scope", "done", 201, b"", 0).await.unwrap();
    assert_eq!(second.forget_process(first.process()).await.unwrap(), 1);
    assert_eq!(begin(second.clone()).await, Idempotency::Fresh);
    let talk = async {
        let mut now = container;
        for (here, there) in [(&first, &second), (&second, &first), (&first, &second)] {
            let mut told = there.head();
            now = here.set_status(now.id, now.version, &now.status, "test", 1).await.unwrap();
            let head = *here.head().borrow();
            told.wait_for(|newest| *newest >= head).await.unwrap();
        }
    };
    let every = Duration::from_millis(10);
    tokio::select! {
        _ended = async { tokio::join!(first.heed_others(every), second.heed_others(every)) } => {
            panic!("nobody has closed the store");
        }
        talked = tokio::time::timeout(Duration::from_secs(30), talk) => talked.unwrap(),
    }
    // The one that is left has it all.
    first.close().await;
    assert_eq!(second.load_routes().await.unwrap().revision, *second.head().borrow());
    second.close().await;
}

#[tokio::test]
async fn changes_of_the_kept_time_stay_and_older_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let (store, container) = world(&dir, 1_000_000).await;
    change(&store, container, 200, HOUR_MS / 30).await;
    // Thirty are within the hour, and up to ten came since the last look.
    let kept = kept(&store).await;
    assert!((30..=41).contains(&kept), "kept {kept}");
    assert_eq!(store.changes(Revision(0), 10).await.unwrap(), Changes::Compacted);
    let head = *store.head().borrow();
    let at_head = store.changes(head, 10).await.unwrap();
    assert_eq!(at_head, Changes::Since { changes: Vec::new(), head });
}

#[tokio::test]
async fn no_more_changes_stay_than_may() {
    let dir = tempfile::tempdir().unwrap();
    let (store, container) = world(&dir, 50).await;
    change(&store, container, 200, 1).await;
    let kept = kept(&store).await;
    assert!((50..=60).contains(&kept), "kept {kept}");
}

#[tokio::test]
async fn a_gap_in_the_feed_is_reported_and_not_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let (store, container) = world(&dir, 1_000).await;
    change(&store, container, 5, 1).await;
    store
        .write(|tx| {
            Box::pin(async move {
                sqlx::query("DELETE FROM changes WHERE rev = 3")
                    .execute(&mut tx.connection)
                    .await
                    .map(drop)
                    .map_err(crate::error::failed)
            })
        })
        .await
        .unwrap();
    let found = store.changes(Revision(0), 10).await.unwrap_err();
    assert!(found.to_string().contains("lacks revision 3"), "{found}");
}

#[tokio::test]
async fn a_damaged_record_costs_its_own_route_only() {
    let dir = tempfile::tempdir().unwrap();
    let (store, one) = world(&dir, 1_000).await;
    let mut two = one.clone();
    two.id = Id::from_bytes([5; 12]);
    two.spec.name = ContainerName::parse("name", "two").unwrap();
    store.create_container(&two).await.unwrap();
    store
        .write(|tx| {
            Box::pin(async move {
                sqlx::query("UPDATE containers SET phase = 'melted' WHERE name = 'one'")
                    .execute(&mut tx.connection)
                    .await
                    .map(drop)
                    .map_err(crate::error::failed)
            })
        })
        .await
        .unwrap();
    let routes = store.load_routes().await.unwrap().containers;
    assert_eq!(routes.iter().map(|it| it.container).collect::<Vec<_>>(), [two.id]);
    let again = store.route_records(&[one.id, two.id]).await.unwrap();
    assert_eq!(again.len(), 1, "nothing is said of the damaged one");
    let refused = store.container(one.id).await.unwrap_err().to_string();
    assert!(refused.contains("phase is no phase") && refused.contains(&one.id.to_string()));
    assert!(store.containers_of_server(one.server).await.is_err());
}

/// As after an update from a version that told nobody.
#[tokio::test]
async fn ends_of_aliases_from_before_they_were_told_stay_untold() {
    let dir = tempfile::tempdir().unwrap();
    let (store, one) = world(&dir, 1_000).await;
    let rules = AliasRules { per_owner_max: 10, quarantine_ms: 0, by_owner: true };
    for (number, label, expires_at_ms) in
        [(1, "ended", Some(100)), (2, "to-end", Some(2_000)), (3, "endless", None)]
    {
        let alias = Alias {
            id: Id::from_bytes([number; 12]),
            owner: one.owner,
            project: one.project,
            container: one.id,
            server: one.server,
            label: label.to_owned(),
            target: AliasTarget::Port { scheme: Scheme::Http, port: 3000 },
            target_path: None,
            allow_path_override: false,
            enabled: true,
            expires_at_ms,
            clear_site_data: false,
            version: Version::FIRST,
            created_at_ms: 0,
            updated_at_ms: 0,
        };
        store.create_alias(&alias, rules).await.unwrap();
    }
    let migration = include_str!("../migrations/0019_alias_ends_since.sql");
    let mark = migration.split(';').find(|part| part.contains("UPDATE")).unwrap();
    let mark = mark.split_once("UPDATE").unwrap().1;
    store
        .write(move |tx| {
            Box::pin(async move {
                sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE{mark}")))
                    .execute(&mut tx.connection)
                    .await
                    .map(drop)
                    .map_err(crate::error::failed)
            })
        })
        .await
        .unwrap();
    let told = async || -> Vec<(String, String)> {
        let events = store.events_after(EventFilter::default(), 0, 100).await.unwrap();
        let told = events.into_iter().map(|event| (event.resource_id, event.kind));
        told.filter(|(_, kind)| kind.ends_with("expired") || kind.ends_with("soon")).collect()
    };
    store.tell_alias_ends(1_000, 1_500).await.unwrap();
    assert_eq!(told().await, [], "it ended long ago");
    store.tell_alias_ends(1_000, 2_000).await.unwrap();
    store.tell_alias_ends(2_000, 2_500).await.unwrap();
    store.tell_alias_ends(3_000, 3_500).await.unwrap();
    let kinds = ["proxy.alias.expiring_soon", "proxy.alias.expired"];
    let to_end = Id::<()>::from_bytes([2; 12]).to_string();
    assert_eq!(told().await, kinds.map(|kind| (to_end.clone(), kind.to_owned())));
}

#[tokio::test]
async fn a_statement_that_is_refused_stops_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (store, one) = world(&dir, 1_000).await;
    let broken = store.write(|tx| {
        Box::pin(async move {
            sqlx::query("NO SUCH STATEMENT")
                .execute(&mut tx.connection)
                .await
                .map(drop)
                .map_err(crate::error::failed)
        })
    });
    let good = store.set_status(one.id, one.version, &one.status, "test", 1);
    let (broken, good) = tokio::join!(broken, good);
    assert!(!broken.unwrap_err().is_retryable());
    good.unwrap();
}

#[test]
fn only_one_module_speaks_sqlite() {
    let mut places = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(path) = places.pop() {
        if path.is_dir() {
            places.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        if path.ends_with("sqlite.rs") || path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["PRAGMA", "IMMEDIATE", "AUTOINCREMENT", "rowid", "INSERT OR", "sqlite_", "?1"]
        {
            assert!(!text.contains(word), "{word} stands in {}", path.display());
        }
    }
    let schema = include_str!("../migrations/0001_first.sql");
    for word in ["BLOB", "INTEGER", "STRICT", "AUTOINCREMENT", "WITHOUT ROWID"] {
        assert!(!schema.contains(word), "{word} stands in a migration");
    }
}
