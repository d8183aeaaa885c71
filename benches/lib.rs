//! Benchmarks: fixtures they share.
