//! Tokens that are written at the same time.

use futures_util::future::join_all;
use gantry_control::{Error, Leaf, Limits, NewToken, Patch, Permissions, ProfileChange};

use crate::bench::Bench;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_has_no_more_tokens_than_it_may_however_they_are_made() {
    let bench = Bench::with_limits(Limits { tokens_per_user_max: 3, ..Limits::default() }).await;
    let another = || bench.control.create_token(&bench.actor, NewToken::default());
    let made = join_all((0..12).map(|_| another())).await;
    let (done, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), refused.len()), (3, 9));
    for error in refused {
        assert!(matches!(error, Err(Error::TokenLimit { max: 3 })), "{:?}", error.err());
    }
    let tokens = bench.control.tokens(&bench.actor).await.unwrap();
    assert_eq!(tokens.len(), 3);
    bench.control.delete_token(&bench.actor, tokens[0].id).await.unwrap();
    assert!(another().await.is_ok(), "there is room for one again");
}

/// The clock of the bench stands: all of it happens in one millisecond.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writes_to_a_profile_in_one_millisecond_lose_nothing() {
    let bench = Bench::new().await;
    let control = &bench.control;
    let permissions = Some(Permissions::of(&[Leaf::ResourcesPublicProfile]).to_tree());
    for round in 0..20_u8 {
        let new = NewToken { permissions: permissions.clone(), ..NewToken::default() };
        let (token, secret) = control.create_token(&bench.actor, new).await.unwrap();
        assert_eq!(token.created_at_ms, token.updated_at_ms);
        let actor = control.authenticate(Some(&secret), None, None).await.unwrap();
        let write = async |change: ProfileChange| {
            while let Err(error) = control.update_own_profile(&actor, change.clone()).await {
                assert!(matches!(error, Error::Conflict), "{error}");
            }
        };
        let key = hex::encode([round; 32]);
        let (public_key, public_storage) = (Patch::Set(key.clone()), Patch::Set("hello".into()));
        tokio::join!(
            write(ProfileChange { public_key, ..ProfileChange::default() }),
            write(ProfileChange { public_storage, ..ProfileChange::default() }),
        );
        let shown = control.own_token(&actor).await.unwrap();
        let profile =
            (shown.profile.public_key.as_deref(), shown.profile.public_storage.as_deref());
        assert_eq!(profile, (Some(key.as_str()), Some("hello")), "round {round}");
        assert!(shown.updated_at_ms > token.updated_at_ms + 1, "each write has a time of its own");
    }
}
