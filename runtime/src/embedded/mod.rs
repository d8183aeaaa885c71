//! Containers without a daemon: OCI bundles run by `runc`.

pub mod image;
mod recipe;

pub use recipe::{File, Progress, Recipe};
