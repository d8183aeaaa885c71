//! The front with OpenSSH's client and a real helper, which runs on this machine instead of in a container.

#![cfg_attr(
    test,
    expect(clippy::disallowed_methods, reason = "what a test spawns ends with its runtime")
)]

#[cfg(test)]
mod auth;
#[cfg(test)]
mod bed;
#[cfg(test)]
mod beside_sshd;
#[cfg(test)]
mod carried;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod cuts;
#[cfg(test)]
mod files;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod forwards;
#[cfg(test)]
mod handshakes;
#[cfg(test)]
mod hangs;
#[cfg(test)]
mod hardening;
#[cfg(test)]
mod lies;
#[cfg(test)]
mod master;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod sshd;
#[cfg(test)]
mod stalls;
#[cfg(test)]
mod switch;
#[cfg(test)]
mod terminals;
