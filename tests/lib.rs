//! The harness of the end-to-end tests: the real binary, its own corner of the machine for each
//! test, and foreign clients.
//!
//! Nothing here knows a crate of Gantry. What the tests see is what a user sees: a command, an
//! API, URLs.

#![expect(
    clippy::indexing_slicing,
    reason = "an index into JSON gives null where there is nothing; a test may end with a panic"
)]

#[path = "harness/browser.rs"]
mod browser;
#[path = "harness/curl.rs"]
mod curl;
#[path = "harness/foreign.rs"]
mod foreign;
#[path = "harness/gantry.rs"]
mod gantry;
#[path = "harness/machine.rs"]
mod machine;
#[path = "harness/outside.rs"]
mod outside;
#[path = "harness/repository.rs"]
pub mod repository;
#[path = "harness/ssh.rs"]
mod ssh;
#[path = "harness/subnet.rs"]
mod subnet;
#[path = "harness/wait.rs"]
mod wait;

pub use browser::Browser;
pub use curl::{Answer, Curl};
pub use foreign::Foreign;
pub use gantry::{Container, Gantry, Options, binary, signal, walk, walk_on};
pub use machine::Machine;
pub use outside::Outside;
pub use ssh::{Ssh, SshKey};
pub use subnet::free_subnet;
pub use wait::{wait_for, wait_until};
