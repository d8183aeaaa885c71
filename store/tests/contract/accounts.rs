//! Users, tokens, secrets and servers.

use gantry_store::Error;

use super::fixture::{NOW_MS, World, id, token, user};

pub(crate) async fn a_user_is_found_by_id_and_by_name(world: &World) {
    let store = &world.store;
    let mut other = user("Other");
    other.is_admin = false;
    store.create_user(&other).await.unwrap();
    assert_eq!(store.user(other.id).await.unwrap().as_ref(), Some(&other));
    assert_eq!(store.user_by_name("Other").await.unwrap().as_ref(), Some(&other));
    assert_eq!(store.user_by_name("other").await.unwrap(), None, "names are exact");
    assert_eq!(store.user(id()).await.unwrap(), None);
    assert_eq!(store.count_users().await.unwrap(), 2);
}

pub(crate) async fn a_username_is_taken_once(world: &World) {
    let refused = world.store.create_user(&user("owner")).await.unwrap_err();
    assert!(matches!(refused, Error::UsernameTaken), "{refused:?}");
    let mut same_id = user("another");
    same_id.id = world.owner.id;
    let refused = world.store.create_user(&same_id).await.unwrap_err();
    assert!(matches!(refused, Error::IdTaken), "{refused:?}");
    assert_eq!(world.store.count_users().await.unwrap(), 1);
}

pub(crate) async fn a_password_and_the_session_generation_change(world: &World) {
    let (store, mut owner) = (&world.store, world.owner.clone());
    // One write: nobody ever sees a new password beside sessions of the old one.
    store.update_password(owner.id, "$new", NOW_MS + 1).await.unwrap();
    assert_eq!(store.user(owner.id).await.unwrap().unwrap().session_generation, 2);
    assert_eq!(store.bump_session_generation(owner.id, NOW_MS + 2).await.unwrap(), 3);
    "$new".clone_into(&mut owner.password_hash);
    owner.session_generation = 3;
    owner.updated_at_ms = NOW_MS + 2;
    assert_eq!(store.user(owner.id).await.unwrap(), Some(owner));
    for refused in [
        store.update_password(id(), "$new", NOW_MS).await.unwrap_err(),
        store.bump_session_generation(id(), NOW_MS).await.unwrap_err(),
    ] {
        assert!(matches!(refused, Error::NotFound), "{refused:?}");
    }
}

pub(crate) async fn a_token_is_found_by_its_hash_and_changes(world: &World) {
    let store = &world.store;
    let mut one = token(&world.owner, "one");
    store.create_token(&one).await.unwrap();
    assert_eq!(store.token_by_hash(&one.hash).await.unwrap().as_ref(), Some(&one));
    assert_eq!(store.token_by_hash(&[9; 32]).await.unwrap(), None);

    let mut twin = token(&world.owner, "twin");
    twin.hash = one.hash;
    let refused = store.create_token(&twin).await.unwrap_err();
    assert!(matches!(refused, Error::IdTaken), "{refused:?}");

    let (old_hash, seen) = (one.hash, one.clone());
    "uno".clone_into(&mut one.alias);
    one.hash = [8; 32];
    one.enabled = false;
    one.realms.clear();
    one.expires_at_ms = None;
    one.updated_at_ms += 5;
    store.touch_token(one.id, "192.0.2.200", 7_000).await.unwrap();
    store.update_token(&seen, &one).await.unwrap();
    let late = store.update_token(&seen, &one).await.unwrap_err();
    assert!(matches!(late, Error::Stale), "{late:?}");
    one.last_used_at_ms = Some(7_000);
    one.last_used_ip = Some("192.0.2.200".to_owned());
    assert_eq!(store.token_by_hash(&one.hash).await.unwrap().as_ref(), Some(&one));
    assert_eq!(store.token_by_hash(&old_hash).await.unwrap(), None);
}

pub(crate) async fn a_token_belongs_to_its_owner(world: &World) {
    let store = &world.store;
    let other = user("other");
    store.create_user(&other).await.unwrap();
    let mut later = token(&world.owner, "later");
    later.created_at_ms += 1;
    let one = token(&world.owner, "one");
    let theirs = token(&other, "theirs");
    for token in [&later, &one, &theirs] {
        store.create_token(token).await.unwrap();
    }
    assert_eq!(store.tokens(world.owner.id).await.unwrap(), [one.clone(), later]);
    assert_eq!(store.token(world.owner.id, one.id).await.unwrap(), Some(one));
    assert_eq!(store.token(world.owner.id, theirs.id).await.unwrap(), None);

    let mut stolen = theirs.clone();
    stolen.owner = world.owner.id;
    let nobody = token(&user("nobody"), "none");
    for refused in [
        store.delete_token(world.owner.id, theirs.id, 9_000).await.unwrap_err(),
        store.update_token(&theirs, &stolen).await.unwrap_err(),
        store.create_token(&nobody).await.unwrap_err(),
    ] {
        assert!(matches!(refused, Error::NotFound), "{refused:?}");
    }
    store.delete_token(other.id, theirs.id, 9_000).await.unwrap();
    assert_eq!(store.tokens(other.id).await.unwrap(), []);
}

pub(crate) async fn a_use_of_a_token_is_noted_at_most_once_a_minute(world: &World) {
    let (store, one) = (&world.store, token(&world.owner, "one"));
    store.create_token(&one).await.unwrap();
    for (after_ms, ip, want_ms, why) in [
        (0, "::1", 0, "the first use"),
        (59_999, "::1", 0, "within a minute"),
        (60_000, "::1", 60_000, "a minute later"),
        (60_001, "10.0.0.1", 60_001, "from another address"),
    ] {
        store.touch_token(one.id, ip, NOW_MS + after_ms).await.unwrap();
        let found = store.token(one.owner, one.id).await.unwrap().unwrap();
        assert_eq!(found.last_used_at_ms, Some(NOW_MS + want_ms), "{why}");
        assert_eq!(found.last_used_ip.as_deref(), Some(ip), "{why}");
        assert_eq!(found.updated_at_ms, one.updated_at_ms, "a use is no change");
    }
    store.touch_token(id(), "::1", NOW_MS).await.unwrap();
}

pub(crate) async fn the_first_candidate_becomes_the_secret(world: &World) {
    let store = &world.store;
    assert_eq!(store.get_or_insert_secret("key", &[1, 2]).await.unwrap(), [1, 2]);
    assert_eq!(store.get_or_insert_secret("key", &[3]).await.unwrap(), [1, 2]);
    for (old, now) in [(&[9][..], [1, 2]), (&[1, 2], [4, 5])] {
        store.replace_secret("key", old, &[4, 5]).await.unwrap();
        assert_eq!(store.get_or_insert_secret("key", &[3]).await.unwrap(), now);
    }
    assert_eq!(store.get_or_insert_secret("other", &[]).await.unwrap(), Vec::<u8>::new());
}

pub(crate) async fn a_server_is_made_once(world: &World) {
    let store = &world.store;
    let again = store.ensure_server(id(), &world.server.name, NOW_MS + 9).await.unwrap();
    assert_eq!(again, world.server);
    let edge = store.ensure_server(id(), &"edge-2".parse().unwrap(), NOW_MS).await.unwrap();
    assert_eq!(store.servers().await.unwrap(), [edge, world.server.clone()]);
}
