//! Tests of ACME and of DNS-01 with foreign servers: Knot DNS, and whatever else speaks to it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what its servers have said"
)]
#![expect(clippy::disallowed_methods, reason = "what a test spawns ends with its runtime")]

mod a2c;
mod accounts;
mod bench;
mod diagnosis;
mod dns;
mod faults;
mod knot;
mod limits;
mod metrics;
mod orders;
#[expect(dead_code, reason = "the end-to-end walk looks at more of it")]
mod pebble;
mod revocation;
mod suggestions;
mod tls;
#[path = "../../../tests/harness/wait.rs"]
#[expect(unreachable_pub, reason = "other test programs share it")]
mod wait;

use wait::{wait_for, wait_until};

/// The present time, in milliseconds.
fn now_ms() -> i64 {
    i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap()
}
