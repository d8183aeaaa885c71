//! The real program, driven over a socket pair as the edge drives it.
//!
//! The modules are marked as tests, so that their helpers may unwrap as tests do.

#[cfg(test)]
mod edge;
#[cfg(test)]
mod files;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod terminals;
