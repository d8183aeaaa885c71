//! Certificates from a CA, from the first order to renewal, and what happens when the world does not help.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use gantry_certs::{
    acme::ExternalAccount,
    dns::{DnsError, DnsProvider, Txt},
};
use gantry_store::CertificateRecord;
use http::Response;
use rustls::server::ProducesTickets as _;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    bench::{BOUND, DOMAIN, Edge, Edges, Fate, NEW_ORDER, Wire, World},
    wait_until,
};

const NAMES: [&str; 3] = ["example.test", "api.example.test", "*.local.containers.example.test"];

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_and_its_apex_are_proved_by_records_and_renewed_with_a_new_key() -> Result<()> {
    let world = World::new()?;
    let wire = world.wire()?;
    let edges = Edges::new(vec![world.authority(&wire)], Some(world.names.dns()?), &NAMES);
    let edge = Edge::start(&world.names.store(), edges).await?;
    let first = edge.await_shown("x.local.containers.example.test", None).await?;
    for name in ["example.test", "api.example.test"] {
        assert_eq!(edge.shown(name), Some(first.clone()), "{name}");
    }
    assert_eq!(edge.shown("other.example.test"), None);
    assert_eq!(wire.count(NEW_ORDER), 1);
    edge.await_no_order().await?;
    for name in ["example.test", "local.containers.example.test"] {
        assert!(world.names.proofs(name)?.is_empty(), "{name}");
    }

    edge.stop().await;

    // After a restart it is shown at once, and nobody orders another.
    let edges = Edges::new(vec![world.authority(&wire)], Some(world.names.dns()?), &NAMES);
    let ahead = edges.ahead.clone();
    let edge = Edge::start(&world.names.store(), edges).await?;
    assert_eq!(edge.shown("example.test"), Some(first.clone()));
    let record = edge.store.certificate(DOMAIN).await?.unwrap();
    let old_key = record.issued.unwrap().key_sealed;
    ahead.set(Duration::from_hours(59 * 24));
    // The CA is asked about the renewal once a day: so the issuer has looked, and found nothing due.
    let day_59 = record.created_at_ms + 59 * 86_400_000;
    edge.await_record(DOMAIN, |record| record.asked_at_ms > Some(day_59)).await?;
    assert_eq!(wire.count(NEW_ORDER), 1, "too early");
    ahead.set(Duration::from_hours(66 * 24));
    edge.await_shown("example.test", Some(&first)).await?;
    let issued = edge.store.certificate(DOMAIN).await?.unwrap().issued.unwrap();
    assert_ne!(issued.key_sealed, old_key);
    edge.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostname_of_a_customer_is_fetched_when_it_is_asked_for_and_permitted() -> Result<()> {
    let world = World::new()?;
    let wire = world.wire()?;
    let mut edges = Edges::new(vec![world.authority(&wire)], None, &[]);
    edges.permitted = HashSet::from(["shop.customer.test".to_owned()]);
    let mut edge = Edge::start(&world.names.store(), edges).await?;
    edge.open_doors(&world.setup).await?;
    for _ in 0..50 {
        assert!(edge.resolver.lacks("shop.customer.test"));
        assert!(edge.resolver.lacks("blog.customer.test"));
    }
    edge.await_shown("shop.customer.test", None).await?;
    assert_eq!(wire.count(NEW_ORDER), 1, "one flight for all who ask");
    assert!(!edge.resolver.lacks("shop.customer.test"));
    assert_eq!(edge.shown("blog.customer.test"), None);
    assert!(edge.store.certificate("blog.customer.test").await?.is_none());
    edge.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_tls_is_closed_to_the_ca_the_proof_goes_over_http() -> Result<()> {
    let world = World::with(|_| ())?;
    let wire = world.wire()?;
    let mut edges = Edges::new(vec![world.authority(&wire)], None, &[]);
    edges.permitted = HashSet::from(["shop.customer.test".to_owned()]);
    let mut edge = Edge::start(&world.names.store(), edges).await?;
    let mut setup = world.setup.clone();
    setup.tls = crate::pebble::free_port()?;
    edge.open_doors(&setup).await?;
    assert!(edge.resolver.lacks("shop.customer.test"));
    let why = edge.await_failed("shop.customer.test").await?;
    assert!(why.contains("shop.customer.test"), "{why}");
    edge.store.hasten_certificate("shop.customer.test", 0).await?;
    edge.await_shown("shop.customer.test", None).await?;
    edge.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_asks_for_an_account_elsewhere_gets_it() -> Result<()> {
    let key = URL_SAFE_NO_PAD.encode([7; 32]);
    let world = World::with(|setup| setup.external = Some(("kid-1".to_owned(), key)))?;
    let wire = world.wire()?;
    let without = world.authority(&wire);
    let mut with = without.clone();
    with.external_account = Some(ExternalAccount { key_id: "kid-1".to_owned(), key: vec![7; 32] });
    let edges = Edges::new(vec![without], Some(world.names.dns()?), &NAMES);
    let edge = Edge::start(&world.names.store(), edges).await?;
    let why = edge.await_failed(DOMAIN).await?;
    assert!(why.contains("externalAccountRequired"), "{why}");
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    edge.stop().await;
    let edges = Edges::new(vec![with], Some(world.names.dns()?), &NAMES);
    let edge = Edge::start(&world.names.store(), edges).await?;
    edge.await_shown(DOMAIN, None).await?;
    edge.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_with_one_store_place_one_order_and_both_show_it() -> Result<()> {
    let world = World::new()?;
    let (one, other) = (world.wire()?, world.wire()?);
    let mut running = Vec::new();
    for wire in [&one, &other] {
        let edges = Edges::new(vec![world.authority(wire)], Some(world.names.dns()?), &NAMES);
        running.push(Edge::start(&world.names.store(), edges).await?);
    }
    let mut shown = Vec::new();
    for edge in &running {
        shown.push(edge.await_shown(DOMAIN, None).await?);
    }
    assert_eq!(shown[0], shown[1]);
    assert_eq!(one.count(NEW_ORDER) + other.count(NEW_ORDER), 1);
    // A session of one is resumed by the other.
    let ticket = running[0].shelf.tickets().encrypt(b"a session").unwrap();
    let opens = || running[1].shelf.tickets().decrypt(&ticket) == Some(b"a session".to_vec());
    wait_until("the other has the key", BOUND, opens)?;
    for edge in running {
        edge.stop().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_wants_to_be_left_alone_is_and_one_that_is_away_is_tried_again() -> Result<()> {
    let world = World::new()?;
    let wire = world.wire()?;
    let asked = Arc::new(AtomicUsize::new(0));
    let busy = Arc::clone(&asked);
    wire.rule(move |request| {
        if !request.uri().path().contains(NEW_ORDER) {
            return Fate::Sent;
        }
        busy.fetch_add(1, Ordering::Relaxed);
        let problem = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"slow down"}"#;
        let answer = Response::builder().status(429).header("retry-after", "3600");
        Fate::Answered(answer.body(Bytes::from(problem)).unwrap())
    });
    let edges = |wire: &Arc<Wire>| -> Result<Edges> {
        let authorities = vec![world.authority(wire)];
        Ok(Edges::new(authorities, Some(world.names.dns()?), &NAMES))
    };
    let edge = Edge::start(&world.names.store(), edges(&wire)?).await?;
    let why = edge.await_failed(DOMAIN).await?;
    assert!(why.contains("slow down"), "{why}");
    let record = edge.store.certificate(DOMAIN).await?.unwrap();
    let now = i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000)?;
    assert!(record.due_at_ms > now + 3_500_000, "{} {now}", record.due_at_ms);
    // Even who insists does not get it asked.
    let total = wire.total();
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    edge.await_record(DOMAIN, |record| record.attempts >= 2).await?;
    assert_eq!((wire.total(), asked.load(Ordering::Relaxed)), (total, 1));
    edge.stop().await;

    // Another process knows of that. When it is over, the CA is busy altogether, and then away.
    let later = edges(&wire)?;
    let ahead = later.ahead.clone();
    let edge = Edge::start(&world.names.store(), later).await?;
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    edge.await_record(DOMAIN, |record| record.attempts >= 3).await?;
    assert_eq!(wire.total(), total);
    wire.rule(|_| {
        let answer = Response::builder().status(503).header("retry-after", "3600");
        Fate::Answered(answer.body(Bytes::new()).unwrap())
    });
    ahead.set(Duration::from_hours(2));
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    edge.await_record(DOMAIN, |record| record.attempts >= 4).await?;
    edge.stop().await;
    let later = edges(&wire)?;
    let ahead = later.ahead.clone();
    ahead.set(Duration::from_hours(2));
    wire.rule(|_| Fate::Lost);
    let edge = Edge::start(&world.names.store(), later).await?;
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    let is_left = |record: &CertificateRecord| {
        record.error.as_ref().is_some_and(|(error, _)| error.contains("wants to be left alone"))
    };
    edge.await_record(DOMAIN, is_left).await?;
    ahead.set(Duration::from_hours(4));
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    let is_away = |record: &CertificateRecord| {
        record.error.as_ref().is_some_and(|(error, _)| error.contains("the line is cut"))
    };
    edge.await_record(DOMAIN, is_away).await?;
    wire.no_rule();
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    edge.await_shown(DOMAIN, None).await?;
    edge.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_first_ca_fails_the_second_is_asked() -> Result<()> {
    let (first, second) = (World::new()?, World::new()?);
    let (away, there) = (first.wire()?, second.wire()?);
    away.rule(|_| Fate::Lost);
    let authorities = vec![first.authority(&away), second.authority(&there)];
    let edges = Edges::new(authorities, Some(second.names.dns()?), &NAMES);
    let edge = Edge::start(&second.names.store(), edges).await?;
    edge.await_shown(DOMAIN, None).await?;
    let record = edge.store.certificate(DOMAIN).await?.unwrap();
    assert_eq!(record.issued.unwrap().directory, second.pebble.directory());
    assert_eq!(record.error, None);
    edge.stop().await;
    Ok(())
}

/// A name server that takes records, but lets none go for a while.
#[derive(Debug)]
struct Sticky {
    inner: Arc<dyn DnsProvider>,
    is_stuck: AtomicBool,
}

#[async_trait::async_trait]
impl DnsProvider for Sticky {
    async fn append(&self, record: &Txt) -> Result<(), DnsError> {
        self.inner.append(record).await
    }

    async fn remove(&self, record: &Txt) -> Result<(), DnsError> {
        if self.is_stuck.load(Ordering::Relaxed) {
            return Err(DnsError::new("records stick"));
        }
        self.inner.remove(record).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_removed_hold_nothing_up_and_go_later() -> Result<()> {
    let world = World::new()?;
    let wire = world.wire()?;
    let mut dns = world.names.dns()?;
    let sticky = Arc::new(Sticky { inner: dns.provider, is_stuck: AtomicBool::new(true) });
    dns.provider = Arc::clone(&sticky) as _;
    let edges = Edges::new(vec![world.authority(&wire)], Some(dns.clone()), &NAMES);
    let ahead = edges.ahead.clone();
    let edge = Edge::start(&world.names.store(), edges).await?;
    let first = edge.await_shown(DOMAIN, None).await?;
    ahead.set(Duration::from_hours(66 * 24));
    edge.await_shown(DOMAIN, Some(&first)).await?;
    assert!(world.names.proofs(DOMAIN)?.len() >= 2, "each order has left its own");
    edge.stop().await;

    sticky.is_stuck.store(false, Ordering::Relaxed);
    let edges = Edges::new(vec![world.authority(&wire)], Some(dns), &NAMES);
    let edge = Edge::start(&world.names.store(), edges).await?;
    // What was renewed by a clock that was ahead is renewed once more.
    let soon = crate::now_ms() + 60_000;
    edge.await_record(DOMAIN, |record| record.updated_at_ms < soon).await?;
    edge.await_no_order().await?;
    for name in ["example.test", "api.example.test", "local.containers.example.test"] {
        assert!(world.names.proofs(name)?.is_empty(), "{name}");
    }
    edge.stop().await;
    Ok(())
}

/// Kills the process at each request to the CA in turn, before the CA hears it or before the process hears the
/// answer, and starts another. The certificate comes, and no second order is placed for it; but for the one moment
/// that nothing helps against, when the CA has taken the order and the process has not heard where it is.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_an_order_goes_on() -> Result<()> {
    let world = Arc::new(World::new()?);
    let mut steps = JoinSet::new();
    // So many at a time as find time within what each of them may take.
    let places = Arc::new(Semaphore::new(8));
    for (step, heard) in (1..=24).flat_map(|step| [(step, false), (step, true)]) {
        let (world, places) = (Arc::clone(&world), Arc::clone(&places));
        steps.spawn(async move {
            let _place = places.acquire().await?;
            killed_at(&world, step, heard).await
        });
    }
    let mut killed = 0;
    while let Some(step) = steps.join_next().await {
        killed += usize::from(step??);
    }
    // Fewer would mean that steps were left out, all that the end was not reached.
    assert!((20..48).contains(&killed), "{killed} of 48");
    Ok(())
}

/// Whether a process got as far as its request of this number, and was killed there.
async fn killed_at(world: &Arc<World>, step: usize, heard: bool) -> Result<bool> {
    let name = format!("n{step}-{heard}.example.test");
    let store = world.names.dir.path().join(format!("{name}.db"));
    let wire = world.wire()?;
    let (asked, at_new_order) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let at = Arc::clone(&at_new_order);
    wire.rule(move |request| {
        if asked.fetch_add(1, Ordering::Relaxed) + 1 != step {
            return Fate::Sent;
        }
        at.store(usize::from(heard && request.uri().path().contains(NEW_ORDER)), Ordering::Relaxed);
        Fate::Silence { heard }
    });
    let edges = |wire: &Arc<Wire>| -> Result<Edges> {
        let mut edges =
            Edges::new(vec![world.authority(wire)], Some(world.names.dns()?), &[name.as_str()]);
        edges.lease = Duration::from_millis(500);
        anyhow::Ok(edges)
    };
    // A runtime of its own is a process: with its end everything stops where it is.
    let (first, path, cut, shown) = (edges(&wire)?, store.clone(), Arc::clone(&wire), name.clone());
    let was_killed = tokio::task::spawn_blocking(move || {
        let process =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let was_killed = process.block_on(async {
            let edge = Edge::start(&path, first).await?;
            let was_killed = tokio::select! {
                () = cut.cut.notified() => true,
                shown = edge.await_shown(&shown, None) => shown.map(|_serial| false)?,
            };
            std::mem::forget(edge);
            anyhow::Ok(was_killed)
        });
        process.shutdown_timeout(Duration::from_millis(100));
        was_killed
    })
    .await??;
    wire.no_rule();
    let edge = Edge::start(&store, edges(&wire)?).await?;
    edge.await_shown(&name, None).await?;
    let orders = wire.count(NEW_ORDER);
    let allowed = 1 + at_new_order.load(Ordering::Relaxed);
    assert!(orders <= allowed, "step {step} {heard}: {orders} orders");
    edge.stop().await;
    Ok(was_killed)
}
