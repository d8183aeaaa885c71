//! What tokens show of themselves.

use gantry_store::{Error, ProfileWrite, TokenProfile};

use super::fixture::{NOW_MS, World, token, user};

fn write(key: Option<&str>, storage: Option<&str>, octets_max: u64) -> ProfileWrite {
    let profile = TokenProfile {
        public_key: key.map(str::to_owned),
        public_storage: storage.map(str::to_owned),
    };
    ProfileWrite { profile, octets_max }
}

pub(crate) async fn a_profile_is_found_by_its_key_and_goes_with_its_token(world: &World) {
    let store = &world.store;
    let other = user("other");
    store.create_user(&other).await.unwrap();
    let (one, theirs) = (token(&world.owner, "one"), token(&other, "theirs"));
    store.create_token_with(&one, Some(write(Some("k1"), Some("hello"), 100)), 9).await.unwrap();
    let want = write(Some("k1"), Some("hello"), 100).profile;
    assert_eq!(store.token_profile(one.id).await.unwrap(), want);
    assert_eq!(store.token_of_public_key("k1").await.unwrap(), Some((one.clone(), want.clone())));
    assert_eq!(store.token_of_public_key("k2").await.unwrap(), None);
    assert_eq!(
        store.token_profiles(world.owner.id).await.unwrap().into_iter().collect::<Vec<_>>(),
        [(one.id, want.clone())]
    );
    assert_eq!(store.token_profiles(other.id).await.unwrap().len(), 0);

    // A key that is taken makes no token, and changes none.
    let refused =
        store.create_token_with(&theirs, Some(write(Some("k1"), None, 100)), 9).await.unwrap_err();
    assert!(matches!(refused, Error::PublicKeyTaken), "{refused:?}");
    assert_eq!(store.token(other.id, theirs.id).await.unwrap(), None);
    store.create_token(&theirs).await.unwrap();
    let mut changed = theirs.clone();
    "changed".clone_into(&mut changed.alias);
    let refused = store
        .update_token_with(&theirs, &changed, Some(write(Some("k1"), None, 100)))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::PublicKeyTaken), "{refused:?}");
    assert_eq!(store.token(other.id, theirs.id).await.unwrap(), Some(theirs.clone()));
    assert_eq!(store.token_profile(theirs.id).await.unwrap(), TokenProfile::default());

    // Its own key is no other's.
    let again = write(Some("k1"), Some("hello again"), 100);
    store.update_token_with(&one, &one, Some(again.clone())).await.unwrap();
    assert_eq!(store.token_profile(one.id).await.unwrap(), again.profile);
    store.delete_token(world.owner.id, one.id, NOW_MS).await.unwrap();
    assert_eq!(store.token_of_public_key("k1").await.unwrap(), None);
    store.update_token_with(&theirs, &theirs, Some(write(Some("k1"), None, 100))).await.unwrap();
}

pub(crate) async fn tokens_of_an_account_show_no_more_than_they_may(world: &World) {
    let store = &world.store;
    let (one, two) = (token(&world.owner, "one"), token(&world.owner, "two"));
    store.create_token_with(&one, Some(write(None, Some("123456"), 10)), 9).await.unwrap();
    let refused =
        store.create_token_with(&two, Some(write(None, Some("12345"), 10)), 9).await.unwrap_err();
    assert!(matches!(refused, Error::PublicStorageLimit { max: 10 }), "{refused:?}");
    store.create_token_with(&two, Some(write(None, Some("1234"), 10)), 9).await.unwrap();
    // Its own octets do not count twice, and what is not there any more does not count.
    store.update_token_with(&one, &one, Some(write(None, Some("654321"), 10))).await.unwrap();
    store.update_token_with(&one, &one, Some(write(None, None, 10))).await.unwrap();
    store.update_token_with(&two, &two, Some(write(None, Some("1234567890"), 10))).await.unwrap();
}

pub(crate) async fn an_account_has_no_more_tokens_than_it_may(world: &World) {
    let store = &world.store;
    let other = user("other");
    store.create_user(&other).await.unwrap();
    let theirs = token(&other, "theirs");
    store.create_token_with(&theirs, None, 1).await.unwrap();
    let (one, two) = (token(&world.owner, "one"), token(&world.owner, "two"));
    store.create_token_with(&one, None, 1).await.unwrap();
    let refused = store.create_token_with(&two, None, 1).await.unwrap_err();
    assert!(matches!(refused, Error::TokenLimit { max: 1 }), "{refused:?}");
    assert_eq!(store.tokens(world.owner.id).await.unwrap(), [one]);
    store.create_token_with(&two, None, 2).await.unwrap();
}
