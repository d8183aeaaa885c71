//! The front with OpenSSH's client and a real helper, which runs on this machine instead of in a container.

#[cfg(test)]
mod auth;
#[cfg(test)]
mod bed;
#[cfg(test)]
mod cuts;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod forwards;
#[cfg(test)]
mod hangs;
#[cfg(test)]
mod hardening;
#[cfg(test)]
mod master;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod stalls;
