//! Gantry dying while it orders a certificate: kill -9 at each step, before the CA has heard it and after.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use gantry_tests::{Foreign, Gantry, Options, walk_on};
use serde_json::Value;

use crate::{
    certificates::{DOMAIN, configuration, is_of_pebble},
    certs::run,
    knot::{Key, Knot, Place},
    pebble::{Pebble, Setup, free_port},
    wait_for, wait_until,
};

/// Steps that every order has: those that change something at the CA, and others.
const WRITING: [&str; 5] =
    ["sign-me-up", "order-plz", "pending chalZ", "pending chalZ next", "ready finalize-order"];
const READING: [&str; 6] =
    ["dir", "nonce-plz", "pending authZ", "pending my-order", "valid my-order", "valid certZ"];
/// More than an order has steps, twice.
const CUTS_MAX: usize = 60;

#[test]
fn an_order_goes_on_after_kill_9_at_each_of_its_steps() -> Result<()> {
    let place = Place::new()?;
    let key = Key::new("acme-key", "hmac-sha256")?;
    let names = format!("@ NS ns1\nns1 A {}\n", place.host(1));
    let _knot = Knot::primary(place.at(1), &key, &[("test", &names)])?;
    let pebble = Pebble::start(&Setup::new(place.at(1))?)?;
    let listen = free_port()?;
    let authority = format!("directory = \"https://localhost:{listen}/dir\"");
    let file = configuration(&authority, &pebble, place, &key);
    let issued_by = tempfile::NamedTempFile::new()?;
    std::fs::write(issued_by.path(), pebble.issued_by()?)?;
    let options = Options::fake().file(file).domain(DOMAIN, issued_by.path());
    let gantry = Gantry::prepare(options)?;
    let mut relay = relay(&gantry, &pebble, listen)?;
    walk_on(Ok(gantry), |gantry| {
        let mut cuts = BTreeSet::new();
        loop {
            let line = relay.line()?;
            if line == "issued" {
                break;
            }
            let cut = line.strip_prefix("cut ").with_context(|| line.clone())?;
            ensure!(cuts.insert(cut.to_owned()) && cuts.len() < CUTS_MAX, "{cut} again: {cuts:?}");
            gantry.kill()?;
            // The dead process's leases end by themselves after half a minute: that is gone by now.
            change(gantry, &mut relay, "UPDATE leases SET expires_at_ms = 0")?;
            gantry.spawn()?;
        }
        let shown = || is_of_pebble(gantry, &format!("x.local.containers.{DOMAIN}"));
        wait_until("the certificate is shown", Duration::from_secs(30), shown)?;
        let twice =
            WRITING.iter().flat_map(|step| [format!("{step} heard"), format!("{step} unheard")]);
        for cut in twice.chain(READING.map(|step| format!("{step} heard"))) {
            ensure!(cuts.contains(&cut), "{cut} is not among {cuts:?}");
        }
        relay.tell("orders")?;
        let orders: Vec<Value> = serde_json::from_str(&relay.line()?)?;
        // ACME has no list of an account's orders that CAs would keep, so that of an order whose answer was lost
        // nobody can know: that one is placed again, and no other.
        let carried: Vec<_> = orders.iter().map(|order| order["is_carried"] == true).collect();
        ensure!(carried == [false, true] && orders[0]["names"] == orders[1]["names"], "{orders:?}");
        damaged(gantry, &mut relay)
    });
    Ok(())
}

fn relay(gantry: &Gantry, pebble: &Pebble, listen: u16) -> Result<Foreign> {
    let (upstream, certificate, key) = pebble.https();
    let path = |path: &Path| path.display().to_string();
    let more = [
        listen.to_string(),
        upstream.to_string(),
        path(pebble.roots_path()),
        path(&certificate),
        path(&key),
    ];
    let mut relay =
        Foreign::start(gantry, "relay.py", "localhost", &more.each_ref().map(String::as_str))?;
    relay.says("ready")?;
    Ok(relay)
}

fn store(gantry: &Gantry) -> String {
    gantry.state().join("store.db").display().to_string()
}

/// Writes to the store past Gantry.
fn change(gantry: &Gantry, relay: &mut Foreign, statements: &str) -> Result<()> {
    relay.tell(&format!("sql {} {statements}", store(gantry)))?;
    relay.says("changed")
}

/// An order that cannot be read is told, and tried seldom; a renewal by hand orders anew.
fn damaged(gantry: &mut Gantry, relay: &mut Foreign) -> Result<()> {
    gantry.wait_ready()?;
    // What is left of the last one is removed a while after its certificate is shown.
    let count = format!("ask {} SELECT count(*) FROM acme_orders", store(gantry));
    wait_for("the order is over", Duration::from_mins(1), || {
        relay
            .tell(&count)
            .and_then(|()| relay.line())
            .map_or_else(|error| Some(Err(error)), |left| (left == "0").then_some(Ok(())))
    })??;
    let state = gantry.state().display().to_string();
    let listed = || gantry.json(&["certs", "list", DOMAIN, "--state", &state]);
    let entry = |list: &Value| {
        let ordered = |it: &&Value| it["kind"] == "ordered";
        list["certificates"].as_array().and_then(|all| all.iter().find(ordered).cloned())
    };
    let before = entry(&listed()?).context("none is listed")?;
    change(
        gantry,
        relay,
        "INSERT OR REPLACE INTO acme_orders (certificate, directory, hostnames, key_sealed, records, is_over, \
             created_at_ms) SELECT name, directory, hostnames, key_sealed, '[[', FALSE, 0 FROM certificates; \
             UPDATE certificates SET due_at_ms = 0, version = version + 1; \
             UPDATE certificate_changes SET version = version + 1",
    )?;
    let told = "the order in the store cannot be read";
    let mut last = Value::Null;
    wait_until("it is told", Duration::from_secs(30), || {
        last = listed().ok().as_ref().and_then(entry).unwrap_or_default();
        last["last_error"].as_str().is_some_and(|why| why.contains(told))
    })
    .with_context(|| last.to_string())?;
    // Sooner than a minute after the first failure none is tried again.
    ensure!(last["failed_attempts"] == 1 && last["state"] == "valid", "{last}");
    for about in [&[][..], &[DOMAIN]] {
        let (_, said) = run(gantry, &[&["doctor"], about, &["--state", &state]].concat())?;
        ensure!(said.contains(told) && said.contains("`gantry certs renew"), "{said}");
    }
    let renewed = gantry.json(&["certs", "renew", DOMAIN, "--state", &state])?;
    ensure!(renewed["serial"].is_string() && renewed["serial"] != before["serial"], "{renewed}");
    ensure!(renewed["last_error"].is_null(), "{renewed}");
    Ok(())
}
