//! Whatever is valid is read as it was written.

use std::{cell::RefCell, collections::BTreeMap, fmt::Debug, future::Future};

use gantry_model::{
    ContainerSpec, Generation, Phase, RealmId, Wish,
    container::{Color, Comment, ContainerName, Environment, ImageName, RamdiskScope},
    project::{ProjectAlias, ProjectSpec},
};
use gantry_store::{Container, ContainerStatus, Token, Version};
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::fixture::{World, id, key, project, token};

/// Draws values and checks each; the checks are asynchronous, which proptest is not.
async fn check<S, F>(strategy: S, law: impl Fn(S::Value) -> F)
where
    S: Strategy,
    S::Value: Debug,
    F: Future<Output = ()>,
{
    let drawn = RefCell::new(Vec::new());
    let mut runner =
        TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    runner
        .run(&strategy, |value| {
            drawn.borrow_mut().push(value);
            Ok(())
        })
        .unwrap();
    for value in drawn.into_inner() {
        law(value).await;
    }
}

fn realms() -> impl Strategy<Value = Vec<RealmId>> {
    btree_set(any::<[u8; 12]>(), 0..6)
        .prop_map(|realms| realms.into_iter().map(RealmId::from_bytes).collect())
}

fn environment() -> impl Strategy<Value = Environment> {
    btree_map("[A-GI-Za-z_][A-Za-z0-9_]{0,30}", "[^\0]{1,60}", 0..8)
        .prop_map(|vars: BTreeMap<_, _>| Environment::parse("env", vars).unwrap())
}

fn spec() -> impl Strategy<Value = ContainerSpec> {
    let words = (
        "[a-zA-Z0-9_-]{3,100}",
        "[a-z0-9][a-z0-9._-]{0,20}/[a-z0-9][a-z0-9._-]{0,20}",
        option::of(".{0,300}"),
        option::of(any::<[u8; 32]>()),
    );
    (words, any::<[u8; 3]>(), any::<[bool; 9]>(), environment(), realms()).prop_map(
        |((name, image, comment, point), rgb, flags, environment, realms)| ContainerSpec {
            name: ContainerName::parse("name", &name).unwrap(),
            color: Color::from_rgb(rgb),
            image: ImageName::parse("image", &image).unwrap(),
            hoody_kit: flags[0],
            dev_kit: flags[1],
            ai: flags[2],
            autostart: flags[3],
            ramdisk: flags[4],
            cache: flags[5],
            kvm: flags[6],
            ramdisk_scope: if flags[7] { RamdiskScope::Project } else { RamdiskScope::Container },
            environment,
            ssh_public_key: point.map(key),
            ssh_forwarding: flags[8],
            comment: comment.map(|text| Comment::parse("comment", &text).unwrap()),
            realms,
        },
    )
}

fn status() -> impl Strategy<Value = ContainerStatus> {
    (
        prop::sample::select(Phase::ALL.to_vec()),
        option::of(any::<std::net::IpAddr>()),
        0..=i64::MAX as u64,
        option::of(".{0,60}"),
        0..=i64::MAX as u64,
        option::of(any::<i64>()),
        option::of(".{0,40}"),
    )
        .prop_map(|(phase, address, generation, why, done_seq, started_at_ms, boot_id)| {
            ContainerStatus {
                phase,
                address,
                generation: Generation(generation),
                why,
                done_seq,
                started_at_ms,
                boot_id,
                fill: None,
            }
        })
}

pub(crate) async fn any_container_spec_is_read_as_it_was_written(world: &World) {
    let wish = prop::sample::select(Wish::ALL.to_vec());
    let times = any::<(i64, i64)>();
    check((spec(), status(), wish, times), |(spec, status, wish, times)| async move {
        let mut given: Container = world.container("replaced");
        given.spec = spec;
        given.status = status;
        given.wish = wish;
        (given.created_at_ms, given.updated_at_ms) = times;
        let has_key = given.spec.ssh_public_key.is_some();
        given.ssh_key_since_ms = has_key.then_some(given.created_at_ms);
        world.store.create_container(&given).await.unwrap();
        assert_eq!(world.read(given.id).await, given);
        // The second way in: as a change of what is there.
        let plain = super::fixture::spec("plain");
        let now_ms = given.updated_at_ms;
        let changed =
            world.store.update_spec(given.id, given.version, &plain, now_ms).await.unwrap();
        given.version = Version(3);
        given.ssh_key_since_ms = has_key.then_some(now_ms);
        if given.spec.environment != plain.environment {
            given.environment_sync.revision = 2;
        }
        let again =
            world.store.update_spec(given.id, changed.version, &given.spec, now_ms).await.unwrap();
        assert_eq!(again, given);
        assert_eq!(world.read(given.id).await, given);
        world.store.remove_container(given.id, now_ms).await.unwrap();
    })
    .await;
}

pub(crate) async fn any_project_spec_is_read_as_it_was_written(world: &World) {
    let strategy =
        ("[^\\p{C} ][^\\p{C}]{0,60}[^\\p{C} ]", any::<[u8; 3]>(), any::<Option<u32>>(), realms());
    check(strategy, |(alias, rgb, max_containers, realms)| async move {
        let Ok(alias) = ProjectAlias::parse("alias", &alias) else { return };
        let mut given = project(&world.owner, "replaced");
        given.spec = ProjectSpec { alias, color: Color::from_rgb(rgb), max_containers, realms };
        world.store.create_project(&given).await.unwrap();
        assert_eq!(world.store.project(given.id).await.unwrap().as_ref(), Some(&given));
        world.store.delete_project(given.id, 9_000).await.unwrap();
    })
    .await;
}

pub(crate) async fn any_token_is_read_as_it_was_written(world: &World) {
    let texts = (".{0,254}", ".{0,12}", vec(".{0,40}", 0..4), ".{0,200}");
    let strategy =
        (texts, realms(), any::<[bool; 4]>(), any::<Option<i64>>(), option::of(".{0,40}"));
    check(strategy, |(texts, realms, flags, expires_at_ms, last_used_ip)| async move {
        let (alias, prefix, ip_whitelist, permissions) = texts;
        let given = Token {
            id: id(),
            alias,
            prefix,
            ip_whitelist,
            permissions,
            realms,
            allow_no_realm: flags[0],
            event_access: flags[1],
            vault_access: flags[2],
            enabled: flags[3],
            expires_at_ms,
            last_used_at_ms: expires_at_ms,
            last_used_ip,
            ..token(&world.owner, "replaced")
        };
        world.store.create_token(&given).await.unwrap();
        assert_eq!(world.store.token(given.owner, given.id).await.unwrap(), Some(given));
    })
    .await;
}
