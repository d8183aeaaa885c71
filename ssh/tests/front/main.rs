//! The front with OpenSSH's client and a real helper, which runs on this machine instead of in a container.

#[cfg(test)]
mod bed;
#[cfg(test)]
mod beside_sshd;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod files;
#[cfg(test)]
mod hangs;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod sshd;
#[cfg(test)]
mod terminals;
