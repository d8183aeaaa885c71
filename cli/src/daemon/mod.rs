//! A running Gantry: every part made, connected, watched and ended in order.

mod certificates;
mod dev;
mod exec;
mod explain;
mod files;
mod glue;
mod host;
mod kit;
mod lock;
mod logs;
mod ports;
mod runtime;
mod serve;
mod signals;
mod ssh;
mod transparent;

pub(crate) use self::{dev::dev, explain::explain, serve::serve};
