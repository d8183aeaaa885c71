//! The control plane over the real store and the fake runtime.

mod accounts;
mod bench;
mod convergence;
mod lifecycle;
mod recovery;
mod rules;
mod starting;
