//! A CA that refuses orders by limits, and failures that are none of its own.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use gantry_certs::dns::{DnsError, DnsProvider, Txt};
use gantry_store::CertificateRecord;
use http::{Request, Response};
use serde_json::Value;

use crate::{
    bench::{DOMAIN, Edge, Edges, Fate, NEW_ORDER, Wire, World},
    now_ms,
};

const HOUR_MS: i64 = 3_600_000;
const DAY_S: &str = "86400";

/// The names that a request orders, if it does.
fn ordered(request: &Request<Bytes>) -> Option<Vec<String>> {
    if !request.uri().path().contains(NEW_ORDER) {
        return None;
    }
    let signed: Value = serde_json::from_slice(request.body()).ok()?;
    let payload = URL_SAFE_NO_PAD.decode(signed["payload"].as_str()?).ok()?;
    let payload: Value = serde_json::from_slice(&payload).ok()?;
    let names = payload["identifiers"].as_array()?.iter();
    Some(names.filter_map(|name| Some(name["value"].as_str()?.to_owned())).collect())
}

/// A refusal by a limit for a day.
fn too_many(what: &str) -> Fate {
    let kind = "urn:ietf:params:acme:error:rateLimited";
    let problem = format!(r#"{{"type":"{kind}","status":429,"detail":"too many {what}"}}"#);
    let answer = Response::builder().status(429).header("retry-after", DAY_S);
    Fate::Answered(answer.body(Bytes::from(problem)).unwrap())
}

/// Has the CA refuse orders for names that end so, as Let's Encrypt does; gives how many it has refused.
fn limit(wire: &Wire, end: &'static str) -> Arc<AtomicUsize> {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    wire.rule(move |request| {
        let names = ordered(request).unwrap_or_default();
        if !names.iter().any(|name| name.ends_with(end)) {
            return Fate::Sent;
        }
        count.fetch_add(1, Ordering::Relaxed);
        too_many("certificates")
    });
    refused
}

/// Has a name ordered as if a client had asked for it; gives the error that the attempt has ended with.
async fn fail(edge: &Edge, name: &str) -> Result<CertificateRecord> {
    edge.store.want_certificate(name, &[name.to_owned()], now_ms()).await?;
    edge.await_record(name, |record| record.error.is_some()).await
}

fn error(record: &CertificateRecord) -> &str {
    record.error.as_ref().map_or("", |(text, _)| text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_one_domain_at_the_ca_stops_no_other() -> Result<()> {
    let world = World::new()?;
    let wire = world.wire()?;
    let refused = limit(&wire, ".customer.test");
    let names = ["shop.customer.test", "blog.customer.test", "x.example.test"];
    let edges = |own: &[&str]| -> Result<Edges> {
        let authorities = vec![world.authority(&wire)];
        let mut edges = Edges::new(authorities, Some(world.names.dns()?), own);
        edges.permitted = names.map(str::to_owned).into();
        Ok(edges)
    };
    let edge = Edge::start(&world.names.store(), edges(&[])?).await?;
    let first = fail(&edge, "shop.customer.test").await?;
    assert!(error(&first).contains("too many certificates"), "{}", error(&first));
    assert!(first.due_at_ms > now_ms() + 23 * HOUR_MS, "{first:?}");
    // Whoever else is of that domain is not ordered for; everybody else is.
    let second = fail(&edge, "blog.customer.test").await?;
    assert!(error(&second).contains("names of customer.test"), "{}", error(&second));
    assert!(second.due_at_ms > now_ms() + 23 * HOUR_MS, "{second:?}");
    edge.store.want_certificate(names[2], &[names[2].to_owned()], now_ms()).await?;
    edge.await_shown(names[2], None).await?;
    edge.stop().await;

    // That is so after a restart, too, and whoever insists.
    let edge = Edge::start(&world.names.store(), edges(&[DOMAIN])?).await?;
    edge.store.hasten_certificate("shop.customer.test", now_ms()).await?;
    edge.await_record("shop.customer.test", |record| record.attempts >= 2).await?;
    edge.await_shown(DOMAIN, None).await?;
    assert_eq!(refused.load(Ordering::Relaxed), 1);
    edge.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_the_account_holds_orders_of_customers_for_an_hour() -> Result<()> {
    let world = World::new()?;
    let wire = world.wire()?;
    let refused = limit(&wire, "");
    let names = ["a.one.test", "a.two.test", "a.three.test", "a.four.test", "x.example.test"];
    let mut edges = Edges::new(vec![world.authority(&wire)], Some(world.names.dns()?), &[]);
    edges.permitted = names.map(str::to_owned).into();
    let edge = Edge::start(&world.names.store(), edges).await?;
    for name in ["a.one.test", "a.two.test", "a.three.test"] {
        let record = fail(&edge, name).await?;
        assert!(error(&record).contains("too many certificates"), "{}", error(&record));
    }
    let held = fail(&edge, "a.four.test").await?;
    assert!(error(&held).contains("hostnames of customers"), "{}", error(&held));
    let wait = held.due_at_ms - now_ms();
    assert!((HOUR_MS - 60_000..=HOUR_MS).contains(&wait), "{wait}");
    assert_eq!(refused.load(Ordering::Relaxed), 3);
    // The installation's own names go on.
    wire.no_rule();
    edge.store.want_certificate(names[4], &[names[4].to_owned()], now_ms()).await?;
    edge.await_shown(names[4], None).await?;
    edge.stop().await;
    Ok(())
}

/// Has the CA refuse the first request of each of these kinds by a limit.
fn limit_steps(wire: &Wire, kinds: [&'static str; 2]) {
    let left = Mutex::new(kinds.to_vec());
    wire.rule(move |request| {
        let mut left = left.lock().unwrap();
        let Some(at) = left.iter().position(|kind| request.uri().path().contains(kind)) else {
            return Fate::Sent;
        };
        left.remove(at);
        too_many("proofs")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_a_step_of_an_order_holds_that_and_its_domain() -> Result<()> {
    let world = World::new()?;
    let wire = world.wire()?;
    limit_steps(&wire, ["chalZ", "finalize-order"]);
    let names = ["shop.customer.test", "blog.customer.test", "x.example.test"];
    let mut edges = Edges::new(vec![world.authority(&wire)], Some(world.names.dns()?), &[]);
    edges.permitted = names.map(str::to_owned).into();
    let ahead = edges.ahead.clone();
    let mut edge = Edge::start(&world.names.store(), edges).await?;
    edge.open_doors(&world.setup).await?;
    let [shop, blog, own] = names;
    let first = fail(&edge, shop).await?;
    assert!(error(&first).contains("too many proofs"), "{}", error(&first));
    assert!(first.due_at_ms > now_ms() + 23 * HOUR_MS, "{first:?}");
    let other = fail(&edge, blog).await?;
    assert!(error(&other).contains("names of customer.test"), "{}", error(&other));
    edge.store.want_certificate(own, &[own.to_owned()], now_ms()).await?;
    // Everybody else has the CA asked, which refuses another step there.
    let refused = edge.await_record(own, |record| record.error.is_some()).await?;
    assert!(error(&refused).contains("too many proofs"), "{}", error(&refused));
    // Whoever insists does not get it asked.
    let total = wire.total();
    for name in [shop, own] {
        edge.store.hasten_certificate(name, 0).await?;
        edge.await_record(name, |record| record.attempts >= 2).await?;
    }
    assert_eq!(wire.total(), total);
    ahead.set(Duration::from_hours(25));
    for name in [shop, own] {
        edge.store.hasten_certificate(name, 0).await?;
        edge.await_shown(name, None).await?;
    }
    let orders = wire.payloads(NEW_ORDER)?;
    for name in [shop, own] {
        let of_name = orders.iter().filter(|order| order["identifiers"][0]["value"] == name);
        assert_eq!(of_name.count(), 1, "{name}: {orders:?}");
    }
    edge.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_the_account_on_steps_of_orders_holds_customers_too() -> Result<()> {
    let world = World::new()?;
    let wire = world.wire()?;
    wire.rule(|request| {
        let is_proof = request.uri().path().contains("chalZ");
        if is_proof { too_many("proofs") } else { Fate::Sent }
    });
    let names = ["a.one.test", "a.two.test", "a.three.test", "a.four.test"];
    let mut edges = Edges::new(vec![world.authority(&wire)], Some(world.names.dns()?), &[]);
    edges.permitted = names.map(str::to_owned).into();
    let mut edge = Edge::start(&world.names.store(), edges).await?;
    edge.open_doors(&world.setup).await?;
    for name in ["a.one.test", "a.two.test", "a.three.test"] {
        let record = fail(&edge, name).await?;
        assert!(error(&record).contains("too many proofs"), "{}", error(&record));
    }
    let held = fail(&edge, "a.four.test").await?;
    assert!(error(&held).contains("hostnames of customers"), "{}", error(&held));
    assert_eq!(wire.count(NEW_ORDER), 3);
    edge.stop().await;
    Ok(())
}

/// CAs that were tried already are none that an order could be left for.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_kept_where_no_other_ca_is_left() -> Result<()> {
    let world = World::new()?;
    let (first, second) = (world.wire()?, world.wire()?);
    first.rule(|_| Fate::Lost);
    think_for_a_day(&second);
    let mut other = world.authority(&second);
    other.directory = other.directory.replace("localhost", "127.0.0.1");
    let authorities = vec![world.authority(&first), other];
    let edges = Edges::new(authorities, Some(world.names.dns()?), &[DOMAIN]);
    let ahead = edges.ahead.clone();
    let edge = Edge::start(&world.names.store(), edges).await?;
    let record = edge.await_record(DOMAIN, |record| record.error.is_some()).await?;
    assert!(error(&record).contains("comes to no decision"), "{}", error(&record));
    assert!(record.due_at_ms > now_ms() + 23 * HOUR_MS, "{record:?}");
    let order = edge.store.acme_order(DOMAIN).await?.context("no order")?;
    assert!(order.url.is_some() && !order.is_over, "it is kept to");
    second.no_rule();
    ahead.set(Duration::from_hours(25));
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    edge.await_shown(DOMAIN, None).await?;
    assert_eq!(second.count(NEW_ORDER), 1);
    edge.stop().await;
    Ok(())
}

/// Has the CA say of an order, once it has heard the proofs, that it is to be asked again a day later.
fn think_for_a_day(wire: &Wire) {
    wire.rule(|request| {
        if !request.uri().path().contains("my-order") {
            return Fate::Sent;
        }
        let order = r#"{"status":"processing","identifiers":[],"authorizations":[],"finalize":"https://localhost/"}"#;
        let answer = Response::builder().status(200).header("retry-after", DAY_S);
        Fate::Answered(answer.body(Bytes::from(order)).unwrap())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_wants_a_day_is_given_it_or_left_for_another_one() -> Result<()> {
    let world = World::new()?;
    let (first, second) = (world.wire()?, world.wire()?);
    think_for_a_day(&first);
    let alone = vec![world.authority(&first)];
    let edges = Edges::new(alone.clone(), Some(world.names.dns()?), &[DOMAIN]);
    let ahead = edges.ahead.clone();
    let edge = Edge::start(&world.names.store(), edges).await?;
    let record = edge.await_record(DOMAIN, |record| record.error.is_some()).await?;
    assert!(error(&record).contains("comes to no decision"), "{}", error(&record));
    assert!(record.due_at_ms > now_ms() + 23 * HOUR_MS, "{record:?}");
    let order = edge.store.acme_order(DOMAIN).await?.context("no order")?;
    assert!(order.url.is_some() && !order.is_over, "it is kept to");
    ahead.set(Duration::from_hours(25));
    first.no_rule();
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    edge.await_shown(DOMAIN, None).await?;
    assert_eq!(first.count(NEW_ORDER), 1);
    edge.stop().await;

    think_for_a_day(&first);
    // The same CA by another address is another one to us.
    let mut other = world.authority(&second);
    other.directory = other.directory.replace("localhost", "127.0.0.1");
    let authorities = [alone, vec![other]].concat();
    let edges = Edges::new(authorities, Some(world.names.dns()?), &[DOMAIN]);
    second.rule(|_| Fate::Lost);
    let edge = Edge::start(&world.names.dir.path().join("other.db"), edges).await?;
    let record = edge.await_record(DOMAIN, |record| record.error.is_some()).await?;
    for want in ["is given up for another CA", "the line is cut"] {
        assert!(error(&record).contains(want), "{}", error(&record));
    }
    second.no_rule();
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    edge.await_shown(DOMAIN, None).await?;
    let record = edge.store.certificate(DOMAIN).await?.context("no record")?;
    let issued = record.issued.context("nothing was issued")?;
    assert!(issued.directory.contains("127.0.0.1"), "{}", issued.directory);
    // The first one was left alone meanwhile.
    assert_eq!((first.count(NEW_ORDER), second.count(NEW_ORDER)), (2, 1));
    edge.stop().await;
    Ok(())
}

/// A name server that takes no records for a while.
#[derive(Debug)]
struct Away {
    inner: Arc<dyn DnsProvider>,
    is_away: AtomicBool,
}

#[async_trait::async_trait]
impl DnsProvider for Away {
    async fn append(&self, record: &Txt) -> Result<(), DnsError> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(DnsError::new("our name server is away"));
        }
        self.inner.append(record).await
    }

    async fn remove(&self, record: &Txt) -> Result<(), DnsError> {
        self.inner.remove(record).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_not_left_for_another_ca_because_of_our_own_name_server() -> Result<()> {
    let world = World::new()?;
    let (first, second) = (world.wire()?, world.wire()?);
    let mut other = world.authority(&second);
    // The same CA by another address is another one to us.
    other.directory = other.directory.replace("localhost", "127.0.0.1");
    let mut dns = world.names.dns()?;
    let away = Arc::new(Away { inner: dns.provider, is_away: AtomicBool::new(true) });
    dns.provider = Arc::clone(&away) as _;
    let authorities = vec![world.authority(&first), other];
    let edge =
        Edge::start(&world.names.store(), Edges::new(authorities, Some(dns), &[DOMAIN])).await?;
    for attempts in 1..=4 {
        let failed = |record: &CertificateRecord| record.attempts >= attempts;
        let record = edge.await_record(DOMAIN, failed).await?;
        assert!(error(&record).contains("our name server is away"), "{}", error(&record));
        if attempts < 4 {
            edge.store.hasten_certificate(DOMAIN, 0).await?;
        }
    }
    assert_eq!((first.count(NEW_ORDER), second.count(NEW_ORDER)), (1, 0));
    // A CA that is away is left for the next one, later.
    away.is_away.store(false, Ordering::Relaxed);
    first.rule(|_| Fate::Lost);
    for attempts in 5..=6 {
        edge.store.hasten_certificate(DOMAIN, 0).await?;
        let record = edge.await_record(DOMAIN, |record| record.attempts >= attempts).await?;
        assert!(error(&record).contains("the line is cut"), "{}", error(&record));
        assert_eq!(second.count(NEW_ORDER), 0);
    }
    edge.store.hasten_certificate(DOMAIN, 0).await?;
    edge.await_shown(DOMAIN, None).await?;
    let record = edge.store.certificate(DOMAIN).await?.context("no record")?;
    let issued = record.issued.context("nothing was issued")?;
    assert!(issued.directory.contains("127.0.0.1"), "{}", issued.directory);
    edge.stop().await;
    Ok(())
}
