//! HTTP/2: the `h2` crate reads and writes the frames, what they mean is decided here.
//!
//! `serve` takes the requests of one client's connection and ends it; `exchange` is one request with
//! its answer, in a task of its own; `tunnel` is a stream that has left HTTP. `body` brings what the other
//! side sends on a stream and `pipe` sends a body on one, for clients and for containers
//! ([`crate::multiplex`]) alike.

mod body;
mod exchange;
mod pipe;
mod serve;
mod tunnel;

pub(crate) use body::Receiving;
pub(crate) use pipe::{End, Pipe};
pub(crate) use serve::serve;
