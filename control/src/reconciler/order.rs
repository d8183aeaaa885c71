//! What the runtime is told of a container.

use gantry_model::container::RamdiskScope;
use gantry_runtime::{Firewall, Kit, Order, Outbound};
use gantry_store::Container;

use super::{ReconcilerConfig, pass::Pass};
use crate::outbound::wanted;

impl Pass<'_> {
    /// What the runtime is to make of the record.
    pub(super) async fn order(&self, container: &Container) -> Result<Order, gantry_store::Error> {
        let (firewall, outbound) = (self.firewall().await?, self.outbound().await?);
        Ok(order(container, &self.shared.config, firewall, outbound))
    }

    pub(super) async fn firewall(&self) -> Result<Firewall, gantry_store::Error> {
        let (version, rules) = self.shared.store.firewall(self.id).await?;
        Ok(Firewall { version: version.0, rules })
    }

    pub(super) async fn outbound(&self) -> Result<Outbound, gantry_store::Error> {
        let record = self.shared.store.outbound(self.id).await?;
        Ok(wanted(&self.shared.sealing, self.id, &record))
    }
}

/// What the runtime is to make of a record.
fn order(
    container: &Container,
    config: &ReconcilerConfig,
    firewall: Firewall,
    outbound: Outbound,
) -> Order {
    let spec = &container.spec;
    Order {
        id: container.id,
        hostname: hostname(spec.name.as_str()),
        image: spec.image.clone(),
        kit: match (spec.hoody_kit, spec.dev_kit) {
            (false, _) => Kit::None,
            (true, false) => Kit::Base,
            (true, true) => Kit::Dev,
        },
        cache: spec.cache,
        env: spec.environment.vars().clone(),
        ramdisk: spec.ramdisk,
        kvm: spec.kvm,
        project_ramdisk: (spec.ramdisk && spec.ramdisk_scope == RamdiskScope::Project)
            .then_some(container.project),
        limits: config.limits,
        firewall,
        outbound,
    }
}

/// The container's name as a DNS label: lower-case, hyphens inside only, at most 63 octets.
pub(super) fn hostname(name: &str) -> String {
    let label: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(63)
        .collect();
    match label.trim_matches('-') {
        "" => "container".to_owned(),
        label => label.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::hostname;

    #[test]
    fn a_hostname_is_one_label() {
        for (name, label) in
            [("web", "web"), ("My_Box-1", "my-box-1"), ("_-_", "container"), ("-edge-", "edge")]
        {
            assert_eq!(hostname(name), label, "{name}");
        }
        assert_eq!(hostname(&"a".repeat(100)).len(), 63);
    }
}
