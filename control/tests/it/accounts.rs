//! Who may do what: accounts, sessions, tokens, realms, ownership.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gantry_control::{
    Actor, Error, ExpiresAt, Forbidden, Leaf, Limits, LoggedIn, NewProject, NewToken, Operation,
    Page, Patch, Permissions, ProjectChange, ProjectSort, Served, Servers, Session, Subject, Thing,
    TokenChange, Unauthenticated, Via,
};
use gantry_model::RealmId;
use serde_json::json;

use crate::bench::{Bench, START_MS, add_user};

const REALM: &str = "64a2c4e9f3d5e2b6a8c7d8e1";
const OTHER: &str = "65b3d5f0a4e6f3c7b9d8e9f2";

fn realm(text: &str) -> RealmId {
    text.parse().unwrap()
}

fn basic(left: &str, right: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{left}:{right}")))
}

/// An administrator with a password, and its session.
async fn admin(bench: &Bench) -> (String, String) {
    // The bench's own user stands in the way of the bootstrap.
    let root = add_user(&bench.store, 2, "root", true).await;
    bench.control.create_user(&root, "bob", "correct horse").await.unwrap();
    ("bob".to_owned(), "correct horse".to_owned())
}

fn opened(login: LoggedIn) -> Session {
    match login {
        LoggedIn::Session(session) => *session,
        LoggedIn::NeedsCode { .. } => panic!("no code is needed"),
    }
}

#[tokio::test]
async fn the_first_start_makes_one_administrator() {
    let bench = Bench::new().await;
    assert_eq!(bench.control.bootstrap_admin().await.unwrap(), None, "there is a user already");
    let dir = tempfile::TempDir::new().unwrap();
    let store = gantry_store::Store::open(&dir.path().join("gantry.db")).await.unwrap();
    let server = store.ensure_server(bench.server.id, &bench.server.name, START_MS).await.unwrap();
    let control = gantry_control::Controller::new(gantry_control::Deps {
        store,
        servers: Servers::new(vec![Served { server, runtime: bench.runtime() }]),
        domain: "gantry.localhost".parse().unwrap(),
        url_port: 443,
        clock: bench.clock.clone(),
        names: Arc::new(gantry_control::DnsNames::of_host()),
        published: None,
        limits: Limits::default(),
        sealing: gantry_control::SealingKeys::new(&[[3; 32]]).unwrap(),
        signing: gantry_control::Signing::Claims,
    })
    .await
    .unwrap();
    let made = control.bootstrap_admin().await.unwrap().unwrap();
    assert_eq!(control.bootstrap_admin().await.unwrap(), None);
    let session = opened(control.login(&made.username, &made.password, None).await.unwrap());
    assert!(session.account.is_admin);
}

#[tokio::test]
async fn a_session_opens_refreshes_expires_and_ends() {
    let bench = Bench::new().await;
    let (name, password) = admin(&bench).await;
    let control = &bench.control;
    let session = opened(control.login(&name, &password, None).await.unwrap());
    let bearer = |token: &str| format!("Bearer {token}");
    let open = async |token: &str| control.authenticate(Some(token), None, None).await;
    let actor = open(&bearer(&session.access)).await.unwrap();
    assert_eq!(actor.username, "bob");
    assert_eq!(control.me(&actor).await.unwrap(), session.account);

    for (credential, why, want) in [
        (bearer(&session.refresh), "a refresh token opens nothing", Unauthenticated::Invalid),
        (session.access.clone(), "the scheme is missing", Unauthenticated::Invalid),
        (format!("bearer {}", session.access), "case matters", Unauthenticated::Invalid),
        (bearer(&format!("{}x", session.access)), "the signature", Unauthenticated::Invalid),
        (bearer("e30.e30."), "no signature", Unauthenticated::Invalid),
        (bearer("hdy_00"), "no such token", Unauthenticated::Invalid),
        (basic(&name, "wrong horse"), "wrong password", Unauthenticated::Credentials),
        (basic("nobody", &password), "no such user", Unauthenticated::Credentials),
        ("Basic %%%".to_owned(), "not base64", Unauthenticated::Invalid),
        (String::new(), "empty", Unauthenticated::Invalid),
    ] {
        let error = open(&credential).await.unwrap_err();
        assert!(matches!(error, Error::Unauthenticated(found) if found == want), "{why}: {error}");
    }
    let error = control.authenticate(None, None, None).await.unwrap_err();
    assert!(matches!(error, Error::Unauthenticated(Unauthenticated::Missing)));
    let error = control.refresh(&session.access).await.unwrap_err();
    assert!(matches!(error, Error::Unauthenticated(Unauthenticated::Refresh)), "{error}");

    bench.clock.advance(Duration::from_hours(24));
    let error = open(&bearer(&session.access)).await.unwrap_err();
    assert!(matches!(error, Error::Unauthenticated(Unauthenticated::Expired)), "{error}");
    let second = control.refresh(&session.refresh).await.unwrap();
    let actor = open(&bearer(&second.access)).await.unwrap();

    control.logout(&actor).await.unwrap();
    assert!(open(&bearer(&second.access)).await.is_err());
    assert!(control.refresh(&second.refresh).await.is_err());
    bench.clock.advance(Duration::from_hours(7 * 24));
    assert!(control.refresh(&session.refresh).await.is_err());
}

#[tokio::test]
async fn a_password_comes_with_each_request_or_changes() {
    let bench = Bench::new().await;
    let (name, password) = admin(&bench).await;
    let control = &bench.control;
    let actor = control.authenticate(Some(&basic(&name, &password)), None, None).await.unwrap();
    assert_eq!(actor.via, Via::Password);
    let error = control.change_password(&actor, &password, "another one", None).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(Forbidden::SessionOnly)), "{error}");
    let session = opened(control.login(&name, &password, None).await.unwrap());
    let bearer = format!("Bearer {}", session.access);
    let actor = control.authenticate(Some(&bearer), None, None).await.unwrap();
    control.change_password(&actor, &password, "another one", None).await.unwrap();
    assert!(control.authenticate(Some(&bearer), None, None).await.is_err());
    assert!(control.login(&name, &password, None).await.is_err());
    control.login(&name, "another one", None).await.unwrap();
}

#[tokio::test]
async fn too_many_failures_from_one_address_are_refused_for_a_while() {
    let limits = Limits {
        login_failures_per_account_max: 3,
        login_failures_per_address_max: 5,
        password_hashes_max: 2,
        ..Limits::default()
    };
    let bench = Bench::with_limits(limits).await;
    let (name, password) = admin(&bench).await;
    let (here, there) = (Some([192, 0, 2, 1].into()), Some([192, 0, 2, 2].into()));
    for _ in 0..3 {
        let error = bench.control.login(&name, "wrong horse", here).await.unwrap_err();
        assert!(matches!(error, Error::Unauthenticated(Unauthenticated::Credentials)));
    }
    let error = bench.control.login(&name, &password, here).await.unwrap_err();
    let Error::TooManyAttempts { retry_after } = error else { panic!("{error}") };
    assert_eq!(retry_after, Duration::from_mins(30));
    bench.control.login(&name, &password, there).await.unwrap();
    for _ in 0..2 {
        assert!(bench.control.login("nobody", "wrong horse", here).await.is_err());
    }
    let error = bench.control.login("somebody", "wrong horse", here).await.unwrap_err();
    assert!(matches!(error, Error::TooManyAttempts { .. }), "{error}");
    bench.clock.advance(retry_after);
    bench.control.login(&name, &password, here).await.unwrap();
}

#[tokio::test]
async fn a_token_is_good_in_every_form_until_it_is_not() {
    let bench = Bench::new().await;
    let control = &bench.control;
    let new = NewToken {
        alias: Some("ci-bot".into()),
        ip_whitelist: vec!["192.0.2.0/24".into(), "2001:db8::1".into()],
        expires_at: Some(ExpiresAt::Tomorrow),
        ..NewToken::default()
    };
    let (token, secret) = control.create_token(&bench.actor, new).await.unwrap();
    assert!(secret.starts_with("hdy_") && secret.len() == 68, "{}", secret.len());
    assert!(secret.starts_with(&token.prefix) && token.prefix.len() == 12);
    let here = Some([192, 0, 2, 7].into());
    let open = async |credential: &str| control.authenticate(Some(credential), None, here).await;
    let junk = format!("hdy_{}", "0".repeat(64));
    for credential in [
        secret.clone(),
        format!("Bearer {secret}"),
        basic("alice", &secret),
        basic(&secret, "x"),
        basic(&secret, &junk),
        basic(&junk, &secret),
    ] {
        let actor = open(&credential).await.unwrap();
        assert!(matches!(actor.via, Via::Token { id, .. } if id == token.id), "{credential}");
    }
    let seen = control.token(&bench.actor, token.id).await.unwrap();
    assert_eq!(seen.last_used_at_ms, Some(START_MS));
    assert_eq!(seen.last_used_ip.as_deref(), Some("192.0.2.7"));
    for stranger in [None, Some([198, 51, 100, 1].into())] {
        let error = control.authenticate(Some(&secret), None, stranger).await.unwrap_err();
        assert!(matches!(error, Error::Forbidden(Forbidden::Address)), "{error}");
    }

    let enable =
        |is_enabled| TokenChange { is_enabled: Some(is_enabled), ..TokenChange::default() };
    control.update_token(&bench.actor, token.id, enable(false)).await.unwrap();
    assert!(open(&secret).await.is_err());
    control.update_token(&bench.actor, token.id, enable(true)).await.unwrap();
    open(&secret).await.unwrap();
    bench.clock.advance(Duration::from_hours(48));
    let error = open(&secret).await.unwrap_err();
    assert!(matches!(error, Error::Unauthenticated(Unauthenticated::Expired)), "{error}");
    let forever = TokenChange { expires_at: Patch::Clear, ..TokenChange::default() };
    control.update_token(&bench.actor, token.id, forever).await.unwrap();
    open(&secret).await.unwrap();
    control.delete_token(&bench.actor, token.id).await.unwrap();
    assert!(open(&secret).await.is_err());
    let error = control.delete_token(&bench.actor, token.id).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(Thing::Token)), "{error}");
}

#[tokio::test]
async fn every_broken_rule_of_a_token_is_named() {
    let bench = Bench::new().await;
    let new = NewToken {
        alias: Some("no/slash".into()),
        ip_whitelist: vec!["192.0.2.300".into()],
        permissions: Some(json!({"containers": {"fly": true}})),
        realm_ids: vec!["ABC".into()],
        expires_at: Some(ExpiresAt::from_number(1)),
        ..NewToken::default()
    };
    let error = bench.control.create_token(&bench.actor, new).await.unwrap_err();
    let Error::Invalid(errors) = error else { panic!("{error}") };
    let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
    let want =
        ["alias", "ip_whitelist[0]", "realm_ids[0]", "permissions.containers.fly", "expires_at"];
    assert_eq!(fields, want);
    for (text, want) in [
        ("2026-01-01T00:00:00Z", Some(ExpiresAt::AtMs(START_MS))),
        ("2026-01-01T01:00:00.000+01:00", Some(ExpiresAt::AtMs(START_MS))),
        ("1767225600", Some(ExpiresAt::AtMs(START_MS))),
        ("1767225600000", Some(ExpiresAt::AtMs(START_MS))),
        ("today", Some(ExpiresAt::Today)),
        ("next week", None),
    ] {
        assert_eq!(ExpiresAt::parse("expires_at", text).ok(), want, "{text}");
    }
}

/// The actor of a fresh token with this permission tree.
async fn token_actor(bench: &Bench, new: NewToken, realm: Option<RealmId>) -> Actor {
    let (_, secret) = bench.control.create_token(&bench.actor, new).await.unwrap();
    bench.control.authenticate(Some(&secret), realm, None).await.unwrap()
}

#[tokio::test]
async fn a_token_does_only_what_its_leaves_allow() {
    let bench = Bench::running().await;
    let project = bench.project().await;
    let id = bench.running_container(&project).await.record.id;
    let permissions = Some(json!({
        "containers": {"read": true, "create": true, "update": true, "actions": {"start": true}},
    }));
    let actor = token_actor(&bench, NewToken { permissions, ..NewToken::default() }, None).await;
    let control = &bench.control;
    control.container(&actor, id).await.unwrap();
    let lacks = |result: Result<(), Error>, leaf: Leaf| {
        let error = result.unwrap_err();
        assert!(
            matches!(error, Error::Forbidden(Forbidden::Leaf(found)) if found == leaf),
            "{leaf}: {error}"
        );
    };
    for (operation, leaf) in [
        (Operation::Stop, Leaf::ContainersStop),
        (Operation::ForceStop, Leaf::ContainersStop),
        (Operation::Pause, Leaf::ContainersStop),
        (Operation::Restart, Leaf::ContainersRestart),
    ] {
        lacks(control.operate(&actor, id, operation, None).await.map(drop), leaf);
    }
    let there = control.operate(&actor, id, Operation::Start, None).await.unwrap_err();
    assert!(matches!(there, Error::AlreadyThere { .. }), "{there}");
    lacks(control.delete_container(&actor, id).await, Leaf::ContainersDelete);
    lacks(control.project(&actor, project.id).await.map(drop), Leaf::ProjectsRead);
    lacks(control.delete_project(&actor, project.id).await.map(drop), Leaf::ProjectsDelete);
    lacks(
        control.create_project(&actor, NewProject::default()).await.map(drop),
        Leaf::ProjectsCreate,
    );
    lacks(
        control.create_token(&actor, NewToken::default()).await.map(drop),
        Leaf::ResourcesCreateTokens,
    );
    let key = gantry_control::ContainerChange {
        ssh_public_key: Patch::Clear,
        ..gantry_control::ContainerChange::default()
    };
    lacks(control.update_container(&actor, id, key).await.map(drop), Leaf::ResourcesSshKeys);

    let made = control.create_container(&actor, project.id, bench.plain()).await.unwrap();
    assert!(!made.record.spec.hoody_kit && !made.record.spec.ai, "what the token may");
    let with_kit = gantry_control::NewContainer { hoody_kit: Some(true), ..bench.plain() };
    lacks(
        control.create_container(&actor, project.id, with_kit).await.map(drop),
        Leaf::FeatureHoodyKit,
    );
}

#[tokio::test]
async fn a_token_makes_none_that_can_do_more() {
    let bench = Bench::new().await;
    let permissions = Permissions::of(&[
        Leaf::ContainersRead,
        Leaf::ResourcesCreateTokens,
        Leaf::ResourcesReadAccount,
    ]);
    let new = NewToken {
        permissions: Some(permissions.to_tree()),
        realm_ids: vec![REALM.into()],
        expires_at: Some(ExpiresAt::Tomorrow),
        ..NewToken::default()
    };
    let actor = token_actor(&bench, new, Some(realm(REALM))).await;
    let control = &bench.control;
    let (child, _) = control.create_token(&actor, NewToken::default()).await.unwrap();
    assert_eq!(child.realms, [realm(REALM)]);
    assert_eq!(child.expires_at_ms, Some(START_MS + 2 * 86_400_000));
    assert!(permissions.covers(child.permissions));
    for (new, what) in [
        (
            NewToken { permission_template: Some("full_access".into()), ..NewToken::default() },
            Subject::Permissions,
        ),
        (NewToken { realm_ids: vec![OTHER.into()], ..NewToken::default() }, Subject::RealmIds),
        (NewToken { vault_access: Some(true), ..NewToken::default() }, Subject::VaultAccess),
        (
            NewToken {
                expires_at: Some(ExpiresAt::AtMs(START_MS + 3 * 86_400_000)),
                ..NewToken::default()
            },
            Subject::ExpiresAt,
        ),
    ] {
        let error = control.create_token(&actor, new).await.unwrap_err();
        assert!(
            matches!(error, Error::Forbidden(Forbidden::Wider(found)) if found == what),
            "{what:?}: {error}"
        );
    }
    let change = TokenChange { realm_ids: Some(Vec::new()), ..TokenChange::default() };
    let error = control.update_token(&actor, child.id, change).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(Forbidden::RealmsFixed)), "{error}");
}

#[tokio::test]
async fn a_token_for_some_addresses_makes_and_ends_none_for_others() {
    let bench = Bench::new().await;
    let new = NewToken {
        permissions: Some(Permissions::of(&[Leaf::ResourcesCreateTokens]).to_tree()),
        ip_whitelist: vec!["192.0.2.0/24".into()],
        ..NewToken::default()
    };
    let owner = bench.actor.clone();
    let (anywhere, _) = bench.control.create_token(&owner, NewToken::default()).await.unwrap();
    let (own, secret) = bench.control.create_token(&owner, new).await.unwrap();
    let client = Some("192.0.2.7".parse().unwrap());
    let actor = bench.control.authenticate(Some(&secret), None, client).await.unwrap();
    let control = &bench.control;
    let (child, _) = control.create_token(&actor, NewToken::default()).await.unwrap();
    assert_eq!(child.ip_whitelist, ["192.0.2.0/24"]);
    for list in [vec!["*"], vec!["192.0.2.1", "198.51.100.1"], vec!["192.0.0.0/16"]] {
        let list: Vec<String> = list.into_iter().map(Into::into).collect();
        let change = TokenChange { ip_whitelist: Some(list.clone()), ..TokenChange::default() };
        let error = control.update_token(&actor, own.id, change).await.unwrap_err();
        assert!(
            matches!(error, Error::Forbidden(Forbidden::Wider(Subject::IpWhitelist))),
            "{list:?}: {error}"
        );
    }
    let error = control.delete_token(&actor, anywhere.id).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(Forbidden::Wider(_))), "{error}");
    let narrower =
        TokenChange { ip_whitelist: Some(vec!["192.0.2.9".into()]), ..TokenChange::default() };
    control.update_token(&actor, child.id, narrower).await.unwrap();
    control.delete_token(&actor, child.id).await.unwrap();
}

#[tokio::test]
async fn a_token_changes_none_that_can_do_more_not_even_to_less() {
    let bench = Bench::new().await;
    let new = NewToken {
        permissions: Some(Permissions::of(&[Leaf::ResourcesCreateTokens]).to_tree()),
        ..NewToken::default()
    };
    let owner = bench.actor.clone();
    let (full, _) = bench.control.create_token(&owner, NewToken::default()).await.unwrap();
    let actor = token_actor(&bench, new, None).await;
    let off = TokenChange { is_enabled: Some(false), ..TokenChange::default() };
    let error = bench.control.update_token(&actor, full.id, off).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(Forbidden::Wider(_))), "{error}");
    assert!(bench.control.token(&owner, full.id).await.unwrap().enabled);
}

#[tokio::test]
async fn a_token_that_was_switched_off_is_not_switched_on_by_what_it_had_begun() {
    let bench = Bench::new().await;
    let (control, owner) = (&bench.control, bench.actor.clone());
    for round in 0..10 {
        let permissions = Permissions::of(&[Leaf::ResourcesCreateTokens]).to_tree();
        let new = NewToken { permissions: Some(permissions), ..NewToken::default() };
        let (token, secret) = control.create_token(&owner, new).await.unwrap();
        let actor = control.authenticate(Some(&secret), None, None).await.unwrap();
        let rename = |n: usize| {
            let alias = Some(format!("name {n}"));
            control.update_token(&actor, token.id, TokenChange { alias, ..TokenChange::default() })
        };
        let renames = futures_util::future::join_all((0..20).map(rename));
        let off = || TokenChange { is_enabled: Some(false), ..TokenChange::default() };
        // The owner tries again until it is done.
        let switch = async {
            while let Err(error) = control.update_token(&owner, token.id, off()).await {
                assert!(matches!(error, Error::Conflict), "{error}");
            }
        };
        let (done, ()) = tokio::join!(renames, switch);
        assert_eq!(done.len(), 20);
        assert!(!control.token(&owner, token.id).await.unwrap().enabled, "round {round}");
        let again = TokenChange { is_enabled: Some(true), ..TokenChange::default() };
        let error = control.update_token(&actor, token.id, again).await.unwrap_err();
        assert!(matches!(error, Error::Conflict), "{error}");
    }
}

#[tokio::test]
async fn a_realm_bound_token_works_on_its_hosts_only() {
    let bench = Bench::new().await;
    let control = &bench.control;
    let new = NewToken { realm_ids: vec![REALM.into()], ..NewToken::default() };
    let (_, bound) = control.create_token(&bench.actor, new).await.unwrap();
    let new = NewToken { allow_no_realm: Some(false), ..NewToken::default() };
    let (_, scoped) = control.create_token(&bench.actor, new).await.unwrap();
    for (secret, host, want) in [
        (&bound, Some(REALM), Ok(())),
        (&bound, None, Err(Forbidden::RealmRequired)),
        (&bound, Some(OTHER), Err(Forbidden::WrongRealm(realm(OTHER)))),
        (&scoped, Some(OTHER), Ok(())),
        (&scoped, None, Err(Forbidden::RealmRequired)),
    ] {
        let got = control.authenticate(Some(secret), host.map(realm), None).await;
        let got = got.map(drop).map_err(|error| {
            let Error::Forbidden(forbidden) = error else { panic!("{error}") };
            forbidden
        });
        assert_eq!(got, want, "{host:?}");
    }
    let actor = control.authenticate_anywhere(Some(&bound), None, None).await.unwrap();
    assert_eq!(control.own_token(&actor).await.unwrap().realms, [realm(REALM)]);
    // The official client looks for these words.
    assert!(Forbidden::RealmRequired.to_string().contains("requires a realm-scoped URL"));
    assert!(Forbidden::WrongRealm(realm(REALM)).to_string().contains("not valid for realm"));
}

#[tokio::test]
async fn on_a_realm_host_only_the_realm_exists() {
    let bench = Bench::new().await;
    let control = &bench.control;
    let scoped = Actor { realm: Some(realm(REALM)), ..bench.actor.clone() };
    let outside = bench.project().await;
    let inside = control
        .create_project(&scoped, NewProject { alias: Some("in".into()), ..NewProject::default() })
        .await
        .unwrap();
    assert_eq!(inside.spec.realms, [realm(REALM)], "the host's realm is merged");
    let error = control.project(&scoped, outside.id).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(Thing::Project)), "{error}");
    let error = control.create_container(&scoped, outside.id, bench.plain()).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(Thing::Project)), "{error}");
    let new = gantry_control::NewContainer {
        realm_ids: vec![OTHER.into(), OTHER.into()],
        ..bench.plain()
    };
    let made = control.create_container(&scoped, inside.id, new).await.unwrap().record;
    assert_eq!(made.spec.realms, [realm(REALM), realm(OTHER)]);
    let plain = bench.create(&inside, bench.plain()).await.record;
    let error = control.container(&scoped, plain.id).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(Thing::Container)), "{error}");

    let page = Page { page: 1, limit: 50, sort: ProjectSort::Alias, descending: false };
    assert_eq!(control.projects(&scoped, None, page).await.unwrap().total, 1);
    assert_eq!(control.projects(&bench.actor, Some(realm(REALM)), page).await.unwrap().total, 1);
    assert_eq!(control.projects(&bench.actor, None, page).await.unwrap().total, 2);
    let error = control.projects(&scoped, Some(realm(OTHER)), page).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(Forbidden::RealmConflict(_))), "{error}");

    let new = NewToken { realm_ids: vec![REALM.into()], ..NewToken::default() };
    let token = token_actor(&bench, new, Some(realm(REALM))).await;
    let new = gantry_control::NewContainer { realm_ids: vec![OTHER.into()], ..bench.plain() };
    let made = control.create_container(&token, inside.id, new).await.unwrap().record;
    assert_eq!(made.spec.realms, [realm(REALM)], "forced into the active realm only");
    let change = gantry_control::ContainerChange {
        realm_ids: Some(vec![OTHER.into()]),
        ..gantry_control::ContainerChange::default()
    };
    let error = control.update_container(&token, made.id, change).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(Forbidden::RealmsFixed)), "{error}");
    let change = ProjectChange { realm_ids: Some(Vec::new()), ..ProjectChange::default() };
    let error = control.update_project(&token, inside.id, change).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(Forbidden::RealmsFixed)), "{error}");
}

#[tokio::test]
async fn what_belongs_to_others_does_not_exist() {
    let bench = Bench::running().await;
    let control = &bench.control;
    let project = bench.project().await;
    let id = bench.running_container(&project).await.record.id;
    let mallory = add_user(&bench.store, 3, "mallory", false).await;
    let root = add_user(&bench.store, 2, "root", true).await;
    let hidden = |error: Error| assert!(matches!(error, Error::NotFound(_)), "{error}");
    hidden(control.project(&mallory, project.id).await.unwrap_err());
    hidden(control.container(&mallory, id).await.unwrap_err());
    hidden(control.delete_container(&mallory, id).await.unwrap_err());
    hidden(control.delete_project(&mallory, project.id).await.unwrap_err());
    hidden(control.create_container(&mallory, project.id, bench.plain()).await.unwrap_err());
    hidden(control.operate(&mallory, id, Operation::Stop, None).await.unwrap_err());
    hidden(control.container_stats(&mallory, id).await.unwrap_err());
    let error = control.create_user(&mallory, "eve", "long enough").await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(Forbidden::AdminOnly)), "{error}");

    control.container(&root, id).await.unwrap();
    let made = control.create_container(&root, project.id, bench.plain()).await.unwrap();
    assert_eq!(made.record.owner, bench.actor.user, "a project's containers are its owner's");
    let (_, secret) = control.create_token(&root, NewToken::default()).await.unwrap();
    let token = control.authenticate(Some(&secret), None, None).await.unwrap();
    hidden(control.container(&token, id).await.unwrap_err());
}

#[tokio::test]
async fn an_idempotency_key_is_answered_once() {
    use gantry_control::Idempotency;
    let bench = Bench::new().await;
    let control = &bench.control;
    let begin = async |actor: &Actor, route, body: &[u8]| {
        control.idempotency_begin(actor, route, "key", body).await.unwrap()
    };
    let (claim, found) = begin(&bench.actor, "POST /a", b"1").await;
    assert_eq!(found, Idempotency::Fresh);
    assert_eq!(begin(&bench.actor, "POST /a", b"1").await.1, Idempotency::InProgress);
    assert_eq!(begin(&bench.actor, "POST /b", b"1").await.1, Idempotency::Fresh);
    let scoped = Actor { realm: Some(realm(REALM)), ..bench.actor.clone() };
    assert_eq!(begin(&scoped, "POST /a", b"1").await.1, Idempotency::Fresh);
    control.idempotency_finish(&claim, 201, b"made").await.unwrap();
    let done = Idempotency::Done { status: 201, body: b"made".to_vec() };
    assert_eq!(begin(&bench.actor, "POST /a", b"1").await.1, done);
    assert_eq!(begin(&bench.actor, "POST /a", b"2").await.1, Idempotency::Mismatch);
}
