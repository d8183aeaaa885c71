//! What runs inside a container for its SSH sessions and commands.
//!
//! The program `gantry-session` is one static file that the runtime mounts read-only into every container
//! and starts when the first session comes; nothing is installed in the image. [`protocol`] is what it is
//! driven by, [`wire`] carries that over a socket.

pub mod protocol;
pub mod wire;
