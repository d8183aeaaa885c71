//! The control plane over the real store and the fake runtime.

#[cfg(test)]
mod accounts;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod convergence;
#[cfg(test)]
mod environment;
#[cfg(test)]
mod inside;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod names;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod starting;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod vault;
mod waking;
