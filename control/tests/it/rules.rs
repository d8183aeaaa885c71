//! The rules of the fields of projects and containers.

use std::collections::BTreeMap;

use gantry_control::{
    ContainerChange, During, Error, Forbidden, Idempotency, NewContainer, NewProject, Operation,
    Patch, ProjectChange, Thing,
};
use gantry_model::{ServerId, container::RamdiskScope};
use gantry_runtime::Kvm;
use sha2::{Digest as _, Sha256};

use crate::bench::{Bench, START_MS, ssh_key};

#[tokio::test]
async fn what_is_left_out_has_its_default() {
    let bench = Bench::new().await;
    let project = bench.project().await;
    let spec = bench.create(&project, bench.plain()).await.record.spec;
    assert_eq!(spec.image.as_str(), "debian/13");
    assert!(spec.hoody_kit && spec.dev_kit && spec.ai && spec.autostart);
    assert!(spec.ramdisk && spec.cache);
    assert!(spec.ssh_public_key.is_none() && spec.comment.is_none() && spec.realms.is_empty());
    let new = NewContainer {
        name: Some("rand".into()),
        hoody_kit: Some(false),
        color: Some("#39d".into()),
        ..bench.plain()
    };
    let spec = bench.create(&project, new).await.record.spec;
    assert_ne!(spec.name.as_str(), "rand");
    assert!(!spec.hoody_kit && !spec.dev_kit, "dev_kit follows hoody_kit");
    assert_eq!(spec.color.to_string(), "#3399DD");
    let new = NewContainer { dev_kit: Some(false), ..bench.plain() };
    let spec = bench.create(&project, new).await.record.spec;
    assert!(spec.hoody_kit && !spec.dev_kit);
}

#[tokio::test]
async fn each_broken_rule_of_a_creation_is_named() {
    let bench = Bench::new().await;
    let project = bench.project().await;
    let cases: Vec<(&str, NewContainer)> = vec![
        ("server_id", NewContainer { server_id: None, ..bench.plain() }),
        ("server_id", NewContainer { server_id: Some("LOCAL".into()), ..bench.plain() }),
        ("name", NewContainer { name: Some("ab".into()), ..bench.plain() }),
        ("name", NewContainer { name: Some("a".repeat(101)), ..bench.plain() }),
        ("name", NewContainer { name: Some("a b c".into()), ..bench.plain() }),
        ("color", NewContainer { color: Some("red".into()), ..bench.plain() }),
        (
            "container_image",
            NewContainer { container_image: Some("ubuntu:22.04".into()), ..bench.plain() },
        ),
        ("ssh_public_key", NewContainer { ssh_public_key: Some(String::new()), ..bench.plain() }),
        ("comment", NewContainer { comment: Some("x".repeat(16_001)), ..bench.plain() }),
        ("dev_kit", NewContainer { hoody_kit: Some(false), dev_kit: Some(true), ..bench.plain() }),
        ("realm_ids[0]", NewContainer { realm_ids: vec!["x".into()], ..bench.plain() }),
        (
            "environment_vars.1A",
            NewContainer {
                environment_vars: BTreeMap::from([("1A".into(), "x".into())]),
                ..bench.plain()
            },
        ),
        (
            "environment_vars.HOODY_X",
            NewContainer {
                environment_vars: BTreeMap::from([("HOODY_X".into(), "x".into())]),
                ..bench.plain()
            },
        ),
    ];
    let mut all = NewContainer::default();
    for (field, new) in cases {
        all.name = all.name.or_else(|| new.name.clone());
        all.color = all.color.or_else(|| new.color.clone());
        let made = bench.control.create_container(&bench.actor, project.id, new).await;
        let error = made.unwrap_err();
        let Error::Invalid(errors) = &error else { panic!("{field}: {error}") };
        assert_eq!(errors.len(), 1, "{error}");
        assert_eq!(errors[0].field, field, "{error}");
    }
    let made = bench.control.create_container(&bench.actor, project.id, all).await;
    let error = made.unwrap_err();
    assert!(matches!(&error, Error::Invalid(errors) if errors.len() == 3), "all at once: {error}");
    assert!(bench.all().await.is_empty(), "nothing half-created remains");
}

#[tokio::test]
async fn a_creation_needs_a_server_that_exists_and_abilities_that_are_there() {
    let bench = Bench::new().await;
    let project = bench.project().await;
    let create = |new| bench.control.create_container(&bench.actor, project.id, new);
    let elsewhere = ServerId::from_bytes([1; 12]).to_string();
    let new = NewContainer { server_id: Some(elsewhere), ..NewContainer::default() };
    let error = create(new).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(Thing::Server)), "{error}");
    let error = create(NewContainer { kvm: Some(true), ..bench.plain() }).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(Forbidden::Kvm(Kvm::Off))), "{error}");
    bench.world.set_kvm(Kvm::Missing);
    let error = create(NewContainer { kvm: Some(true), ..bench.plain() }).await.unwrap_err();
    assert!(error.to_string().contains("no /dev/kvm"), "{error}");
    let new = NewContainer { prespawn: Some(false), kvm: Some(false), ..bench.plain() };
    create(new).await.unwrap();
}

/// What an update of a container must lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Done,
    MustStop(&'static str),
    Immutable(&'static str),
    Invalid(&'static str),
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table")]
async fn an_update_changes_what_may_change_when_it_may() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let new = NewContainer { name: Some("first".into()), ..bench.plain() };
    let id = bench.create(&project, new).await.record.id;
    bench.reach(id, gantry_control::Condition::Running).await;
    let server = bench.server.id.to_string();
    let none = ContainerChange::default;
    let env = |value: &str| Some(BTreeMap::from([("A".to_owned(), value.to_owned())]));
    let rows: Vec<(ContainerChange, Want, Want)> = vec![
        // change, while running, while stopped
        (none(), Want::Done, Want::Done),
        (ContainerChange { name: Some("first".into()), ..none() }, Want::Done, Want::Done),
        (
            ContainerChange { name: Some("second".into()), ..none() },
            Want::MustStop("name"),
            Want::Done,
        ),
        (
            ContainerChange { environment_vars: env("1"), ..none() },
            Want::MustStop("environment_vars"),
            Want::Done,
        ),
        (
            ContainerChange { ramdisk_scope: Some(RamdiskScope::Project), ..none() },
            Want::MustStop("ramdisk_scope"),
            Want::Done,
        ),
        (
            ContainerChange { ramdisk: Some(false), ..none() },
            Want::MustStop("ramdisk"),
            Want::Invalid("ramdisk_scope"),
        ),
        (
            ContainerChange { ramdisk_scope: Some(RamdiskScope::Container), ..none() },
            Want::Done,
            Want::Done,
        ),
        (ContainerChange { ramdisk: Some(false), ..none() }, Want::MustStop("ramdisk"), Want::Done),
        (ContainerChange { color: Some("#fff".into()), ..none() }, Want::Done, Want::Done),
        (ContainerChange { comment: Patch::Set("x".into()), ..none() }, Want::Done, Want::Done),
        (ContainerChange { comment: Patch::Clear, ..none() }, Want::Done, Want::Done),
        (ContainerChange { autostart: Some(false), ..none() }, Want::Done, Want::Done),
        (ContainerChange { ai: Some(false), ..none() }, Want::Done, Want::Done),
        (
            ContainerChange { ssh_public_key: Patch::Set(ssh_key(1)), ..none() },
            Want::Done,
            Want::Done,
        ),
        (ContainerChange { ssh_public_key: Patch::Clear, ..none() }, Want::Done, Want::Done),
        (ContainerChange { ssh_forwarding: Some(false), ..none() }, Want::Done, Want::Done),
        (
            ContainerChange { realm_ids: Some(vec!["64a2c4e9f3d5e2b6a8c7d8e1".into()]), ..none() },
            Want::Done,
            Want::Done,
        ),
        (
            ContainerChange { container_image: Some("debian/13".into()), ..none() },
            Want::Done,
            Want::Done,
        ),
        (
            ContainerChange { container_image: Some("debian/12".into()), ..none() },
            Want::Immutable("container_image"),
            Want::Immutable("container_image"),
        ),
        (
            ContainerChange { hoody_kit: Some(false), ..none() },
            Want::Immutable("hoody_kit"),
            Want::Immutable("hoody_kit"),
        ),
        (
            ContainerChange { dev_kit: Some(false), ..none() },
            Want::Immutable("dev_kit"),
            Want::Immutable("dev_kit"),
        ),
        (ContainerChange { kvm: Some(false), ..none() }, Want::Done, Want::Done),
        (ContainerChange { kvm: Some(true), ..none() }, Want::Invalid("kvm"), Want::Invalid("kvm")),
        (ContainerChange { server_id: Some(server), ..none() }, Want::Done, Want::Done),
        (
            ContainerChange { server_id: Some("f".repeat(24)), ..none() },
            Want::Immutable("server_id"),
            Want::Immutable("server_id"),
        ),
        (
            ContainerChange { color: Some("red".into()), ..none() },
            Want::Invalid("color"),
            Want::Invalid("color"),
        ),
        (
            ContainerChange { ssh_public_key: Patch::Set(String::new()), ..none() },
            Want::Invalid("ssh_public_key"),
            Want::Invalid("ssh_public_key"),
        ),
    ];
    for stopped in [false, true] {
        if stopped {
            bench.operate(id, Operation::Stop).await;
        }
        for (change, running_want, stopped_want) in &rows {
            let want = if stopped { stopped_want } else { running_want };
            let done = bench.control.update_container(&bench.actor, id, change.clone()).await;
            let got = match done {
                Ok(_) => Want::Done,
                Err(Error::MustStop { field }) => Want::MustStop(field.as_str()),
                Err(Error::Immutable { field }) => Want::Immutable(field.as_str()),
                Err(Error::Invalid(errors)) if errors.len() == 1 => {
                    let known = ["color", "ssh_public_key", "kvm", "ramdisk_scope"];
                    let found = known.into_iter().find(|field| *field == errors[0].field);
                    Want::Invalid(found.unwrap_or("another"))
                }
                Err(error) => panic!("{change:?}: {error}"),
            };
            assert_eq!(got, *want, "stopped: {stopped}, {change:?}");
        }
    }
    bench.operate(id, Operation::Start).await;
    let order = bench.world.order(id).unwrap();
    assert_eq!(order.hostname, "second");
    assert_eq!(order.env, BTreeMap::from([("A".to_owned(), "1".to_owned())]));
    assert!(!order.ramdisk);
}

#[tokio::test]
async fn names_and_keys_that_are_taken_are_told_apart_by_the_write() {
    let bench = Bench::new().await;
    let project = bench.project().await;
    let other = bench.project_named("other").await;
    let new = |name: &str, key| NewContainer {
        name: Some(name.into()),
        ssh_public_key: Some(ssh_key(key)),
        ..bench.plain()
    };
    bench.create(&project, new("one", 1)).await;
    let two = bench.create(&project, new("two", 2)).await.record.id;
    // Names are unique in a project, keys everywhere.
    bench.create(&other, new("one", 3)).await;
    let error =
        bench.control.create_container(&bench.actor, other.id, new("four", 1)).await.unwrap_err();
    assert!(matches!(error, Error::KeyTaken(During::Create)), "{error}");
    bench.control.delete_container(&bench.actor, two).await.unwrap();
    let error = bench
        .control
        .update_container(
            &bench.actor,
            two,
            ContainerChange { color: Some("#000".into()), ..ContainerChange::default() },
        )
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Deleting), "{error}");

    let three = bench.create(&project, new("three", 4)).await.record.id;
    let key =
        ContainerChange { ssh_public_key: Patch::Set(ssh_key(1)), ..ContainerChange::default() };
    let error = bench.control.update_container(&bench.actor, three, key).await.unwrap_err();
    assert!(matches!(error, Error::KeyTaken(During::Update)), "{error}");
}

#[tokio::test]
async fn a_project_follows_its_rules() {
    let bench = Bench::new().await;
    let control = &bench.control;
    let named = |alias: &str| NewProject { alias: Some(alias.into()), ..NewProject::default() };
    for (new, field) in [
        (NewProject::default(), "alias"),
        (named(""), "alias"),
        (named(&"x".repeat(101)), "alias"),
        (NewProject { color: Some("blue".into()), ..named("a") }, "color"),
        (NewProject { max_containers: Some(-1), ..named("a") }, "max_containers"),
        (NewProject { realm_ids: vec![String::new()], ..named("a") }, "realm_ids[0]"),
    ] {
        let error = control.create_project(&bench.actor, new).await.unwrap_err();
        assert!(
            matches!(&error, Error::Invalid(errors) if errors[0].field == field),
            "{field}: {error}"
        );
    }
    let project = bench.project_named("one").await;
    bench.project_named("two").await;
    let error = control.create_project(&bench.actor, named("one")).await.unwrap_err();
    assert!(matches!(error, Error::AliasTaken(During::Create)), "{error}");
    let change = ProjectChange { alias: Some("two".into()), ..ProjectChange::default() };
    let error = control.update_project(&bench.actor, project.id, change).await.unwrap_err();
    assert!(matches!(error, Error::AliasTaken(During::Update)), "{error}");
    let change = ProjectChange {
        alias: Some("uno".into()),
        color: Some("abc".into()),
        max_containers: Patch::Set(0),
        ..ProjectChange::default()
    };
    let changed = control.update_project(&bench.actor, project.id, change).await.unwrap();
    assert_eq!(changed.spec.alias.as_str(), "uno");
    assert_eq!(changed.spec.color.to_string(), "#AABBCC");
    let error =
        control.create_container(&bench.actor, project.id, bench.plain()).await.unwrap_err();
    assert!(matches!(error, Error::Quota { max: 0 }), "{error}");
    let error = control.project(&bench.actor, gantry_model::ProjectId::from_bytes([3; 12])).await;
    assert!(matches!(error, Err(Error::NotFound(Thing::Project))));
}

/// A body may hold a password, which a plain digest would give to whoever reads the disk and guesses.
#[tokio::test]
async fn what_is_kept_of_a_repeatable_request_cannot_be_guessed_from_the_disk() {
    let bench = Bench::new().await;
    let body = br#"{"username":"carol","password":"Passw0rd"}"#;
    let begin = |body: &'static [u8]| {
        bench.control.idempotency_begin(&bench.actor, "POST /api/v1/users", "key", body)
    };
    assert_eq!(begin(body).await.unwrap().1, Idempotency::Fresh);
    assert_eq!(begin(body).await.unwrap().1, Idempotency::InProgress, "the same again");
    assert_eq!(begin(b"{}").await.unwrap().1, Idempotency::Mismatch, "another body");
    let scope = format!("{}@ POST /api/v1/users", bench.actor.user);
    let digest: [u8; 32] = Sha256::digest(body).into();
    let found = bench.store.idempotency_begin(&scope, "key", &digest, START_MS).await.unwrap();
    assert_eq!(found, Idempotency::Mismatch, "no plain digest of the body is kept");
}
