//! From records to a route table, and its lookups.
//!
//! [`RouteTable`] is what a request reads: lookups take no lock, do no I/O and allocate nothing.
//! [`Feed`] is its only writer: it loads everything at one revision, publishes, and follows the
//! store's change feed from there. [`Routes`] is the handle that readers share. Canonical hostnames
//! are *parsed* (by the model) and then found by container id, so the table grows with containers,
//! not with services and indexes. Aliases and custom hostnames are found by name and lead to a container
//! id; what a request to a container has to pass hangs on that id, too, as its [`Gate`].
//!
//! Nothing here speaks HTTP, dials, or knows what a request may do.

mod edge;
mod feed;
mod keys;
mod routes;
mod servers;
mod table;

pub use edge::{AliasRoute, Gate};
pub use feed::Feed;
pub use keys::KeyRoute;
pub use routes::Routes;
pub use servers::{ServerIndex, Servers};
pub use table::{NoRoute, Route, RouteState, RouteTable};
