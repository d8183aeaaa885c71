//! The catalogue of Kit services and what installs and starts them.
//!
//! All of it is data: [`catalogue()`] says for every service of the Kit where it listens and what is
//! known of it, [`recipe()`] says what makes an image whose containers have the services that are
//! provided, and [`start_command`] what starts one of them in a running container. Nothing here does
//! I/O; the runtime builds images, the control plane runs commands.
//!
//! Provided so far: the terminal (`terminado` before persistent `tmux` sessions, `xterm.js` in the
//! page), files (`lighttpd` with `WebDAV` and a page), and a welcome page on [`WELCOME_PORT`], which
//! waits on a socket of systemd and answers before the boot is over. No service runs until it is
//! asked for.
//!
//! Invariant: a port belongs to one service and index, and to none that people commonly use.

mod catalogue;
mod recipe;

pub use catalogue::{
    Entry, IndexMeaning, Kind, PortRule, Scheme, WELCOME_PORT, catalogue, entry, start_command,
};
pub use recipe::{File, Kit, Recipe, recipe, recipes};
