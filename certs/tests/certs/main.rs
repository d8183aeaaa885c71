//! Tests of the development CA, the resolver and renewal, with foreign clients where they exist.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod ca;
mod renewer;
mod resolver;
mod support;
mod tls;
