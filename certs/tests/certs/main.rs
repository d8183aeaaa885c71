//! Tests of the development CA, the resolver and renewal, with foreign clients where they exist.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

#[path = "../../../tests/harness/browser.rs"]
#[expect(unreachable_pub, dead_code, reason = "other test programs share it")]
mod browser;
mod ca;
#[path = "../../../tests/harness/outside.rs"]
#[expect(unreachable_pub, reason = "other test programs share it")]
mod outside;
mod renewer;
mod resolver;
mod support;
mod tls;
#[path = "../../../tests/harness/wait.rs"]
#[expect(unreachable_pub, reason = "other test programs share it")]
mod wait;

use wait::{wait_for, wait_until};
