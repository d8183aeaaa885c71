//! Tests of the model: tables of rules, and laws over inputs that nobody would think of.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::string_slice,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod container;
mod fuzz_seeds;
mod id;
mod name;
mod phase;
mod route;
mod ssh;
