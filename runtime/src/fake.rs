//! A runtime in memory with the behaviour of a real one.
