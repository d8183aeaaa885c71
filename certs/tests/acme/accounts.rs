//! A CA that has lost our account.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use http::Response;

use crate::bench::{DOMAIN, Edge, Edges, Fate, NEW_ORDER, World};

/// What pebble calls a new account.
const NEW_ACCOUNT: &str = "sign-me-up";

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_the_ca_has_lost_is_made_anew_but_not_over_and_over() -> Result<()> {
    let mut world = World::new()?;
    let wire = world.wire()?;
    let edges = Edges::new(vec![world.authority(&wire)], Some(world.names.dns()?), &[DOMAIN]);
    let ahead = edges.ahead.clone();
    let edge = Edge::start(&world.names.store(), edges).await?;
    let first = edge.await_shown(DOMAIN, None).await?;
    edge.await_no_order().await?;
    assert_eq!((wire.count(NEW_ACCOUNT), wire.count(NEW_ORDER)), (1, 1));

    // It knows neither account nor orders of before. Two hours later:
    world.pebble.lose_everything()?;
    ahead.set(Duration::from_hours(2));
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    let second = edge.await_shown(DOMAIN, Some(&first)).await?;
    edge.await_no_order().await?;
    assert_eq!((wire.count(NEW_ACCOUNT), wire.count(NEW_ORDER)), (2, 2));

    // One that loses them all the time is not given one after another.
    world.pebble.lose_everything()?;
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    let why = edge.await_failed(DOMAIN).await?;
    assert!(why.contains("made less than an hour ago, so that no other is made yet"), "{why}");
    assert_eq!(edge.shown(DOMAIN).as_deref(), Some(&*second));
    assert_eq!((wire.count(NEW_ACCOUNT), wire.count(NEW_ORDER)), (2, 2));
    ahead.set(Duration::from_hours(4));
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    edge.await_shown(DOMAIN, Some(&second)).await?;
    assert_eq!((wire.count(NEW_ACCOUNT), wire.count(NEW_ORDER)), (3, 3));
    edge.stop().await;
    Ok(())
}

/// Another account may be none that the CA lets in, or that CAA records permit.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_the_ca_knows_after_all_is_kept() -> Result<()> {
    let world = World::new()?;
    let wire = world.wire()?;
    let edges = Edges::new(vec![world.authority(&wire)], Some(world.names.dns()?), &[DOMAIN]);
    let ahead = edges.ahead.clone();
    let edge = Edge::start(&world.names.store(), edges).await?;
    let first = edge.await_shown(DOMAIN, None).await?;
    edge.await_no_order().await?;
    let was_mistaken = AtomicBool::new(false);
    wire.rule(move |request| {
        if !request.uri().path().contains(NEW_ORDER) || was_mistaken.swap(true, Ordering::Relaxed) {
            return Fate::Sent;
        }
        let problem = r#"{"type":"urn:ietf:params:acme:error:accountDoesNotExist"}"#;
        Fate::Answered(Response::builder().status(400).body(Bytes::from(problem)).unwrap())
    });
    ahead.set(Duration::from_hours(2));
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    edge.await_shown(DOMAIN, Some(&first)).await?;
    edge.await_no_order().await?;
    let asked = wire.payloads(NEW_ACCOUNT)?;
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[1]["onlyReturnExisting"], true, "{asked:?}");
    edge.stop().await;
    Ok(())
}
