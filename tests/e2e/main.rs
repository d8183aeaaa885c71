//! End-to-end walks: the real binary, foreign clients, real containers where they matter.
#![expect(
    clippy::indexing_slicing,
    reason = "an index into JSON gives null where there is nothing; a test may end with a panic"
)]

mod certificates;
mod certs;
mod client;
mod crash;
mod creation;
mod dns;
mod edge;
mod exec;
mod factors;
mod files;
mod firewall;
mod hooks;
mod images;
mod incus;
mod lifecycle;
mod live;
mod network;
mod orders;
mod progress;
mod revocation;
mod sealed;
mod servers;
mod services;
mod shares;
mod snapshots;
mod ssh;
mod startup;
mod streams;
mod systemd;
mod tap;
mod terminal;
mod transparent;
mod upgrade;
mod visits;
mod waking;

#[path = "../../certs/tests/acme/knot.rs"]
#[expect(dead_code, clippy::print_stderr, reason = "the tests of certificates look at more of it")]
mod knot;
#[path = "../../certs/tests/acme/pebble.rs"]
#[expect(dead_code, clippy::print_stderr, reason = "the tests of certificates look at more of it")]
mod pebble;

use gantry_tests::{wait_for, wait_until};
