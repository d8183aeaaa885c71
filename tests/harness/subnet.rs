//! Networks for containers.

use std::process::Command;

use anyhow::{Context, Result};

/// A network 10.`second`.x.0/24 that this machine does not know yet. Who looks at the same time begins
/// elsewhere.
pub fn free_subnet(second: u8) -> Result<String> {
    let own = std::process::id();
    let output = Command::new("ip").args(["-4", "-o", "addr"]).output().context("ip")?;
    let known = String::from_utf8_lossy(&output.stdout);
    let third = (own..own + 250).map(|number| number % 250 + 1);
    let mut networks = third.map(|third| format!("10.{second}.{third}."));
    let free = networks.find(|network| !known.contains(&format!(" {network}")));
    Ok(format!("{}0/24", free.with_context(|| format!("10.{second}.0.0/16 is full"))?))
}
