//! Gantry dying while it orders a certificate: kill -9 at each step, before the CA has heard it and after.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use gantry_tests::{Foreign, Gantry, Options, walk_on};
use serde_json::Value;

use crate::{
    certificates::{DOMAIN, is_of_pebble},
    knot::{Key, Knot, Place},
    pebble::{Pebble, Setup, free_port},
    wait_until,
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
    let file = format!(
        "[control]\nresolver = \"{dns}\"\n[certificates]\nissuer = \"acme\"\n\
         [[certificates.authorities]]\ndirectory = \"https://localhost:{listen}/dir\"\nroots = \"{roots}\"\n\
         [certificates.dns]\nprovider = \"rfc2136\"\nservers = [\"{dns}\"]\n\
         key_name = \"{key}\"\nkey_secret = \"{secret}\"\n\
         [certificates.propagation]\nresolvers = [\"{dns}\"]\nport = {port}\n",
        dns = place.at(1),
        roots = pebble.roots_path().display(),
        key = key.name,
        secret = key.secret,
        port = place.port,
    );
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
            relay.tell(&format!("dead {}", gantry.state().join("store.db").display()))?;
            relay.says("over")?;
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
        Ok(())
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
