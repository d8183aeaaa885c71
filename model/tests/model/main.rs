//! Tests of the model: tables of rules, and laws over inputs that nobody would think of.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::string_slice,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod access;
mod alias;
mod container;
mod edge;
mod fuzz_seeds;
mod hook;
mod id;
mod name;
mod phase;
mod policy;
mod route;
mod selector;
mod ssh;
