//! A running Gantry: every part made, connected, watched and ended in order.

mod before;
mod certificates;
mod certs;
mod dev;
mod doctor;
mod earlier;
mod exec;
mod explain;
mod files;
mod glue;
mod host;
mod kit;
mod link;
mod lock;
mod logs;
mod manager;
mod next;
mod ports;
mod retire;
mod run;
mod runtime;
mod serve;
mod signals;
mod ssh;
mod transparent;
mod trust;
mod upgrade;

pub(crate) use self::{
    before::{Before, pass_on},
    certs::certs,
    dev::dev,
    doctor::doctor,
    explain::explain,
    run::serve,
    upgrade::upgrade,
};
