//! A CA that suggests when to renew, and one that has profiles: acme2certifier.

use std::time::Duration;

use anyhow::{Context as _, Result};
use gantry_store::{CertificateRecord, Issued};

use crate::{
    a2c::{A2c, RETRY_AFTER_S},
    bench::{DOMAIN, Edge, Edges, Fate, Names, Wire, authority},
    now_ms,
};

/// What it calls a new order, and the question when to renew.
const NEW_ORDER: &str = "neworders";
const RENEWAL_INFO: &str = "renewal-info";
const HOUR_MS: i64 = 3_600_000;

fn issued(record: &CertificateRecord) -> Result<&Issued> {
    record.issued.as_ref().context("nothing was issued")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_the_ca_suggests_is_kept_to_and_one_that_has_passed_means_now() -> Result<()>
{
    let names = Names::new()?;
    let Some(ca) = A2c::start(&names)? else { return Ok(()) };
    ca.mind().suggest(50, 3600)?;
    let wire = Wire::new(&ca.roots()?)?;
    let authorities = vec![authority(ca.directory(), &wire)];
    let edges = Edges::new(authorities, Some(names.dns()?), &[DOMAIN]);
    let ahead = edges.ahead.clone();
    let edge = Edge::start(&names.store(), edges).await?;
    let first = edge.await_shown(DOMAIN, None).await?;

    // In an hour in the middle of its life, which two thirds are not.
    let record = edge.await_record(DOMAIN, |record| record.asked_at_ms.is_some()).await?;
    let Issued { not_before_ms, not_after_ms, .. } = *issued(&record)?;
    let middle = not_before_ms + (not_after_ms - not_before_ms) / 2;
    let planned = record.due_at_ms;
    assert!((middle..=middle + HOUR_MS).contains(&planned), "{middle} {planned}");
    // It says when it wants to be asked again.
    let asked = record.asked_at_ms.context("no time")? - now_ms();
    let wish = RETRY_AFTER_S * 1000;
    assert!((wish - 60_000..=wish).contains(&asked), "{asked}");
    assert_eq!(wire.count(RENEWAL_INFO), 1);

    // It changes its mind: the certificate is to be replaced at once, as before a revocation. The next one is
    // to live longer.
    ca.mind().suggest(0, 1)?;
    let mind = ca.mind();
    wire.rule(move |request| {
        if request.uri().path().contains(NEW_ORDER) {
            mind.suggest(50, 3600).unwrap();
        }
        Fate::Sent
    });
    ahead.set(Duration::from_hours(7));
    edge.await_shown(DOMAIN, Some(&first)).await?;
    let shown = edge.store.certificate(DOMAIN).await?.context("no record")?;
    assert_ne!(issued(&shown)?.serial, issued(&record)?.serial);

    // The order says what it replaces, as the question has named it. This CA does not repeat that in its answer,
    // which the library takes for an error: the order is gone on with all the same, and no other is placed.
    let asked_about = wire.paths(RENEWAL_INFO);
    let old = asked_about.first().and_then(|path| path.rsplit('/').next());
    let orders = wire.payloads(NEW_ORDER)?;
    let replaces: Vec<_> = orders.iter().map(|order| order["replaces"].as_str()).collect();
    assert_eq!(replaces, [None, old]);
    edge.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_of_short_lives_is_ordered_and_renewed_in_time() -> Result<()> {
    let names = Names::new()?;
    let Some(ca) = A2c::start(&names)? else { return Ok(()) };
    let wire = Wire::new(&ca.roots()?)?;
    let mut short = authority(ca.directory(), &wire);
    short.profile = Some("shortlived".to_owned());
    let mut unknown = short.clone();
    unknown.profile = Some("longlived".to_owned());

    let path = names.dir.path().join("unknown.db");
    let edge = Edge::start(&path, Edges::new(vec![unknown], Some(names.dns()?), &[DOMAIN])).await?;
    let why = edge.await_failed(DOMAIN).await?;
    assert!(why.contains("has no profile \"longlived\"; it has classic, shortlived"), "{why}");
    edge.stop().await;
    assert_eq!(wire.count(NEW_ORDER), 0);

    let edges = Edges::new(vec![short], Some(names.dns()?), &[DOMAIN]);
    let ahead = edges.ahead.clone();
    let edge = Edge::start(&names.store(), edges).await?;
    let first = edge.await_shown(DOMAIN, None).await?;
    assert_eq!(wire.payloads(NEW_ORDER)?[0]["profile"], "shortlived");
    let record = edge.store.certificate(DOMAIN).await?.context("no record")?;
    let Issued { not_before_ms, not_after_ms, .. } = *issued(&record)?;
    assert_eq!(not_after_ms - not_before_ms, 6 * 24 * HOUR_MS);
    // At two thirds of that, and a little later.
    let due = record.due_at_ms - not_before_ms;
    assert!((96 * HOUR_MS..=104 * HOUR_MS).contains(&due), "{due}");
    assert_eq!(wire.count(RENEWAL_INFO), 0, "it does not offer to be asked");
    ahead.set(Duration::from_hours(105));
    edge.await_shown(DOMAIN, Some(&first)).await?;
    edge.stop().await;
    Ok(())
}
