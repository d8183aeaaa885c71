//! Waiting for something to become true, with a bound.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Looks every few milliseconds until `look` gives something; an error after `bound`.
pub fn wait_for<T>(what: &str, bound: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + bound;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {} s", bound.as_secs_f32());
        }
        nap();
    }
}

/// As [`wait_for`], for a condition.
pub fn wait_until(what: &str, bound: Duration, mut look: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, bound, || look().then_some(()))
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a predicate")]
fn nap() {
    std::thread::sleep(Duration::from_millis(15));
}
