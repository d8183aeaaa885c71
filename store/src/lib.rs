//! The record store: typed queries, transactions and the change feed, over SQLite.


mod error;
pub mod record;
mod stub;

pub use error::{Cause, Error, OpenError, Outage};
pub use record::*;

/// The result of a store method.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A cheap handle.
#[derive(Clone, Debug)]
pub struct Store;
