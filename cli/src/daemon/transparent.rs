//! Whether what `scripts/transparent` installs is there: without it containers would answer the
//! addresses of clients, and the answers would leave this machine instead of coming back.

use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// The mark of what comes back; as in `scripts/transparent`.
const MARK: &str = "0x6761";

/// Any address that is not this machine's: one of those for documentation.
const SOMEBODY: &str = "192.0.2.1";

/// Fails if containers on `bridge` cannot be reached from the addresses of clients.
pub(super) fn check(bridge: &str) -> anyhow::Result<()> {
    let install = format!("run scripts/transparent install {bridge}");
    let what = "edge.client_address is \"transparent\", which needs routing that is not installed";
    let route = run("ip", &["-4", "route", "get", SOMEBODY, "mark", MARK])?;
    ensure!(
        route.as_deref().is_some_and(is_delivered),
        "{what}: what has mark {MARK} is not delivered here; {install}"
    );
    let table = format!("gantry_transparent_{bridge}");
    if run("nft", &["list", "table", "inet", &table])?.is_none() {
        bail!("{what}: there is no packet filter table inet {table}; {install}");
    }
    Ok(())
}

/// Whether the kernel takes the address for one of its own.
fn is_delivered(route: &str) -> bool {
    route.starts_with("local ")
}

/// What a program prints; nothing if it fails.
fn run(program: &str, arguments: &[&str]) -> anyhow::Result<Option<String>> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}, which edge.client_address needs"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(output.status.success().then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_the_way_to_install_it() {
        assert!(is_delivered("local 192.0.2.1 dev lo table 26465 src 127.0.0.1 mark 0x6761 uid 0"));
        assert!(!is_delivered("192.0.2.1 via 10.0.0.1 dev eth0 src 10.0.0.2 mark 0x6761 uid 0"));
        // No bridge has this name, so that it cannot have been installed for it.
        let error = check("nowhere0").unwrap_err().to_string();
        assert!(error.contains("scripts/transparent install nowhere0"), "{error}");
    }
}
