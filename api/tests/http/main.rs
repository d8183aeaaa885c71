//! The router from outside: requests in, answers out.

#[cfg(test)]
mod accounts;
#[cfg(test)]
mod aliases;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod behaviour;
#[cfg(test)]
mod document;
#[cfg(test)]
mod environment;
#[cfg(test)]
mod events;
#[cfg(test)]
mod exec;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod firewall;
#[cfg(test)]
mod held_back;
#[cfg(test)]
mod images;
#[cfg(test)]
mod inside;
#[cfg(test)]
mod kvm;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod live;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod members;
#[cfg(test)]
mod meta;
#[cfg(test)]
mod names;
#[cfg(test)]
mod network;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod quotas;
#[cfg(test)]
mod ramdisk;
#[cfg(test)]
mod realm_walk;
#[cfg(test)]
mod realms;
#[cfg(test)]
mod recheck;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod schemathesis;
#[cfg(test)]
mod server_runtime;
#[cfg(test)]
mod shares;
#[cfg(test)]
mod signed;
#[cfg(test)]
#[path = "../../../store/tests/sqlite/small_disk.rs"]
mod small_disk;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod token_profiles;
#[cfg(test)]
mod two_factor;
#[cfg(test)]
mod vault;
