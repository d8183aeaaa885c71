//! Tests of the route table, alone and fed by a real store.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod feed;
mod support;
mod table;
