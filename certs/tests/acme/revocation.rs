//! Certificates that are revoked, and what comes after them.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use gantry_certs::acme::{Reason, await_revoked, revoke};
use gantry_store::Issued;

use crate::{
    bench::{BOUND, DOMAIN, Edge, Edges, Fate, NEW_ORDER, World},
    now_ms, wait_until,
};

async fn issued(edge: &Edge) -> Result<Issued> {
    let record = edge.store.certificate(DOMAIN).await?.context("no record")?;
    record.issued.context("nothing was issued")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_is_shown_no_more_and_another_one_with_another_key_is() -> Result<()> {
    let world = World::new()?;
    let wire = world.wire()?;
    let mut running = Vec::new();
    for _ in 0..2 {
        let edges = Edges::new(vec![world.authority(&wire)], Some(world.names.dns()?), &[DOMAIN]);
        running.push(Edge::start(&world.names.store(), edges).await?);
    }
    let edge = running.first().context("no edge")?;
    for name in ["nobody.test", "*.example.test"] {
        let error = revoke(&edge.store, name, None, Reason::default(), now_ms()).await.unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let mut first = String::new();
    for edge in &running {
        first = edge.await_shown(DOMAIN, None).await?;
    }
    let old = issued(edge).await?;
    assert_eq!(world.pebble.status(&old.serial)?["Status"], "Valid");

    // The CA is away at first: from the wish on nobody shows it, whatever the CA says.
    wire.rule(|_| Fate::Lost);
    let wish = revoke(&edge.store, DOMAIN, None, Reason::KeyCompromise, now_ms()).await?;
    for edge in &running {
        wait_until("nothing is shown", BOUND, || edge.shown(DOMAIN).is_none())?;
    }
    let record = edge.store.certificate(DOMAIN).await?.context("no record")?;
    assert!(edge.shelf.is_revoked(&record));
    let failed = await_revoked(&edge.store, &wish, BOUND).await?;
    assert_eq!(failed.done_at_ms, None);
    let why = failed.error.context("no error")?;
    assert!(why.contains("the line is cut"), "{why}");
    assert_eq!(world.pebble.status(&old.serial)?["Status"], "Valid");
    for edge in running {
        edge.stop().await;
    }

    // Nor after a restart. Who asks again has it tried again.
    let edges = Edges::new(vec![world.authority(&wire)], Some(world.names.dns()?), &[DOMAIN]);
    let edge = Edge::start(&world.names.store(), edges).await?;
    assert_eq!(edge.shown(DOMAIN), None);
    wire.no_rule();
    let wish = revoke(&edge.store, DOMAIN, None, Reason::KeyCompromise, now_ms()).await?;
    let done = await_revoked(&edge.store, &wish, BOUND).await?;
    assert!(done.done_at_ms.is_some(), "{:?}", done.error);
    edge.await_shown(DOMAIN, Some(&first)).await?;
    let status = world.pebble.status(&old.serial)?;
    assert_eq!((&status["Status"], &status["Reason"]), (&"Revoked".into(), &1.into()));
    let new = issued(&edge).await?;
    assert_eq!(world.pebble.status(&new.serial)?["Status"], "Valid");
    assert_ne!(new.key_sealed, old.key_sealed);
    assert_eq!(wire.count(NEW_ORDER), 2);
    // The old one is meant, and not what is shown now.
    let serial = Some(&*old.serial);
    let error = revoke(&edge.store, DOMAIN, serial, Reason::default(), now_ms()).await.unwrap_err();
    assert!(error.to_string().contains("has come in the place"), "{error}");
    assert!(edge.shown(DOMAIN).is_some());
    edge.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_account_has_ordered_is_revoked_by_its_own_key() -> Result<()> {
    let world = World::new()?;
    let wire = world.wire()?;
    let edges = |name| {
        anyhow::Ok(Edges::new(vec![world.authority(&wire)], Some(world.names.dns()?), &[name]))
    };
    // An account that this CA has nothing ordered by for these names.
    let other =
        Edge::start(&world.names.dir.path().join("other.db"), edges("b.example.test")?).await?;
    other.await_shown("b.example.test", None).await?;
    let directory = world.pebble.directory();
    let (account, _) = other.store.acme_account(&directory).await?.context("no account")?;
    other.stop().await;
    let ours = edges(DOMAIN)?;
    let ahead = ours.ahead.clone();
    let edge = Edge::start(&world.names.store(), ours).await?;
    let first = edge.await_shown(DOMAIN, None).await?;
    let old = issued(&edge).await?;
    let lease = format!("acme account {directory}");
    let lease = edge.store.take_lease(&lease, [7; 16], BOUND).await?.context("no lease")?;
    edge.store.put_acme_account(&directory, &account, &lease, now_ms()).await?;
    edge.store.return_lease(&lease).await?;
    // Another one has come in its place before the CA can be told.
    wire.rule(|request| {
        let is_revocation = request.uri().path().contains("revoke-cert");
        if is_revocation { Fate::Lost } else { Fate::Sent }
    });
    let wish = revoke(&edge.store, DOMAIN, None, Reason::KeyCompromise, now_ms()).await?;
    edge.await_shown(DOMAIN, Some(&first)).await?;
    wire.no_rule();
    let failed = await_revoked(&edge.store, &wish, BOUND).await?;
    assert!(failed.done_at_ms.is_none() && failed.key_sealed.is_some(), "{failed:?}");
    ahead.set(Duration::from_hours(1));
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    let done = await_revoked(&edge.store, &failed, BOUND).await?;
    assert!(done.done_at_ms.is_some(), "{:?}", done.error);
    assert!(done.key_sealed.is_none());
    let status = world.pebble.status(&old.serial)?;
    assert_eq!((&status["Status"], &status["Reason"]), (&"Revoked".into(), &1.into()));
    edge.await_shown(DOMAIN, Some(&first)).await?;
    edge.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_ended_is_shown_no_more() -> Result<()> {
    let world = World::with(|setup| setup.life = Duration::from_hours(1))?;
    let wire = world.wire()?;
    let edges = Edges::new(vec![world.authority(&wire)], Some(world.names.dns()?), &[DOMAIN]);
    let ahead = edges.ahead.clone();
    let edge = Edge::start(&world.names.store(), edges).await?;
    edge.await_shown(DOMAIN, None).await?;
    wire.rule(|_| Fate::Lost);
    ahead.set(Duration::from_mins(50));
    edge.shelf.refresh().await;
    assert!(edge.shown(DOMAIN).is_some());
    ahead.set(Duration::from_mins(61));
    let resolver = Arc::clone(&edge.resolver);
    wait_until("nothing is shown", BOUND, || resolver.certificate(DOMAIN).is_none())?;
    // The clock was wrong.
    ahead.set(Duration::from_mins(50));
    wait_until("it is shown again", BOUND, || resolver.certificate(DOMAIN).is_some())?;
    edge.stop().await;
    Ok(())
}
