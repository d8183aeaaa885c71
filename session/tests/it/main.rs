//! The real program, driven over a socket pair as the edge drives it.

mod edge;
mod processes;
mod terminals;
