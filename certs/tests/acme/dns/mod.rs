//! DNS-01: who writes the records, where, and when the world sees them.

mod acme_dns;
mod config;
mod hook;
mod propagation;
mod rfc2136;
mod servers;

use std::sync::Arc;

use anyhow::Result;
use gantry_certs::dns::{DnsConfig, DnsProvider, Propagation, PropagationConfig, Txt};
use serde_json::{Value, json};

use crate::knot::{Key, Knot, Place, Zone};

/// A value of the form that validations have.
fn value(letter: char) -> String {
    std::iter::repeat_n(letter, 43).collect()
}

fn txt(name: &str, letter: char) -> Txt {
    Txt { name: name.to_owned(), value: value(letter) }
}

/// As `dig +short` prints values.
fn quoted(letters: &str) -> Vec<String> {
    letters.chars().map(|letter| format!("\"{}\"", value(letter))).collect()
}

/// The domain with its delegations, and the zone that they lead to. `HOST1` is the first server's
/// address, and so on.
const ZONES: [Zone<'static>; 2] = [
    (
        "example.test",
        "@ NS ns1\nns1 A HOST1\n* CNAME edge\nedge A 127.0.0.1\n\
         _acme-challenge.delegated CNAME one.acme.test.\n\
         _acme-challenge.twice CNAME _acme-challenge.delegated\n\
         _acme-challenge.circle CNAME circle\ncircle CNAME _acme-challenge.circle\n\
         _acme-challenge.kept TXT \"somebody else's\"",
    ),
    ("acme.test", "@ NS ns1.example.test."),
];

/// A primary of [`ZONES`] and its key.
struct Lab {
    place: Place,
    key: Key,
    knot: Knot,
}

impl Lab {
    fn new() -> Result<Self> {
        let place = Place::new()?;
        Self::of(place, Key::new("acme-key", "hmac-sha256")?, 1, &ZONES)
    }

    /// A primary on one of the addresses of a place.
    fn of(place: Place, key: Key, host: u8, zones: &[Zone<'_>]) -> Result<Self> {
        Self::restricted(place, key, host, zones, "")
    }

    /// As [`Self::of`], with further lines for the rule that lets the key change something.
    fn restricted(
        place: Place,
        key: Key,
        host: u8,
        zones: &[Zone<'_>],
        rule: &str,
    ) -> Result<Self> {
        let placed = |records: &str| {
            let hosts = [1, 2, 3].into_iter();
            hosts.fold(records.to_owned(), |text, host| {
                text.replace(&format!("HOST{host}"), &place.host(host).to_string())
            })
        };
        let zones: Vec<_> = zones.iter().map(|(zone, text)| (*zone, placed(text))).collect();
        let zones: Vec<_> = zones.iter().map(|(zone, text)| (*zone, &**text)).collect();
        let knot = Knot::restricted(place.at(host), &key, &zones, rule)?;
        Ok(Self { place, key, knot })
    }

    /// The table of the configuration for its server.
    fn rfc2136(&self) -> Value {
        json!({
            "provider": "rfc2136", "servers": [self.knot.address().to_string()],
            "key_name": self.key.name, "key_algorithm": self.key.algorithm,
            "key_secret": self.key.secret, "timeout_s": 4,
        })
    }

    fn propagation(&self, timeout_s: u64) -> Propagation {
        propagation(&[self.knot.address().to_string()], self.place.port, timeout_s)
    }
}

fn propagation(resolvers: &[String], port: u16, timeout_s: u64) -> Propagation {
    let config = json!({ "resolvers": resolvers, "port": port, "timeout_s": timeout_s });
    let config: PropagationConfig = serde_json::from_value(config).unwrap();
    Propagation::new(&config).unwrap()
}

/// The provider of a table.
fn provider(table: &Value, propagation: &Propagation) -> Arc<dyn DnsProvider> {
    let config: DnsConfig = serde_json::from_value(table.clone()).unwrap();
    config.provider(propagation).unwrap()
}

/// A table with one key changed.
fn with(mut table: Value, key: &str, value: impl Into<Value>) -> Value {
    table[key] = value.into();
    table
}
