//! HTTP/1 towards clients: one connection, one request after the other, all in one task.
//!
//! `line` reads heads, which [`crate::framing`] judges and `head` makes requests of; `body` brings a
//! request's body to whoever answers; `write` makes octets of answers; `exchange` is one request with
//! its answer, and exists only that long; `serve` goes from one to the next and ends the connection.
//!
//! A connection without a request holds no buffers and no future of a request.

mod body;
mod exchange;
mod head;
mod io;
mod line;
mod serve;
mod write;

pub(crate) use body::Receiving;
pub use head::HeadReader;
#[cfg(test)]
pub(crate) use head::build;
pub(crate) use io::{ClientIo, Socket};
pub(crate) use serve::serve;
