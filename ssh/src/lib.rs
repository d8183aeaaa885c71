//! Public-key login to a container.
//!
//! [`Front`] speaks SSH with clients: an *offered* key grants nothing, a *verified* one fixes the connection
//! to the one container that it opens ([`Doors`]). What the client then asks for is done by the helper inside
//! that container ([`Ways`], crate `gantry-session`); this crate carries octets between the two, one pipe or
//! socket for each stream, so that no channel waits for another one. Others than clients of SSH have their
//! processes by the same links ([`Front::start`]).

mod audit;
mod channel;
mod command;
mod conn;
mod doors;
mod flow;
mod forwards;
mod front;
mod gate;
mod inlet;
mod link;
mod links;
mod listeners;
mod measures;
mod pulse;
mod session;
mod sessions;
mod stream;

pub use command::{Held, NotStarted, Running};
pub use doors::{Balancers, Door, DoorState, Doors, NoWay, Refusal, Visit, Visitor, Ways, Witness};
pub use front::{Bounds, Front, Limits, Metrics};
pub use pulse::Pulse;
