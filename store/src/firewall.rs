//! The firewall rules of containers.

use gantry_model::{
    ContainerId,
    firewall::{Direction, Rules},
};

use crate::{
    Store, access, columns, containers, document,
    error::{Result, failed},
    record::{Container, Version},
    told,
    writer::Tx,
};

/// What became of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleChange {
    /// It was added.
    Added,
    /// It was removed.
    Removed,
    /// It is looked at again.
    Enabled,
    /// It is not looked at any more.
    Disabled,
}

impl RuleChange {
    /// The kind of the event that tells it.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Added => "firewall.rule.added",
            Self::Removed => "firewall.rule.removed",
            Self::Enabled => "firewall.rule.enabled",
            Self::Disabled => "firewall.rule.disabled",
        }
    }
}

impl Store {
    /// The firewall rules of a container; version 0 and none if it never had any.
    pub async fn firewall(&self, container: ContainerId) -> Result<(Version, Rules)> {
        let row = sqlx::query("SELECT * FROM firewalls WHERE container = $1")
            .bind(container.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        let Some(row) = row else { return Ok((Version::default(), Rules::default())) };
        let rules = columns::get(&row, "doc").and_then(document::read_firewall);
        let rules = rules.map_err(columns::of("the firewall of container", container))?;
        Ok((Version(columns::count(&row, "version")?), rules))
    }

    /// Replaces the rules of a container that are still of this version, and tells what became of
    /// how many rules of a direction. [`crate::Error::NotFound`] if there is no such container.
    pub async fn set_firewall(
        &self,
        container: ContainerId,
        version: Version,
        rules: &Rules,
        changes: Vec<(RuleChange, Direction, usize)>,
        now_ms: i64,
    ) -> Result<()> {
        let doc = document::write_firewall(rules)?;
        self.write(move |tx| {
            Box::pin(async move {
                let record = containers::load(tx, container).await?;
                let place = ("firewalls", "container");
                access::swap(tx, place, container.as_bytes(), version, &doc, now_ms).await?;
                tx.changed(container, now_ms);
                for (change, direction, count) in changes {
                    told::rules_told(tx, &record, change, direction, count, now_ms).await?;
                }
                Ok(())
            })
        })
        .await
    }
}

/// Gives a new container the rules of another one, which must exist.
pub(crate) async fn copy(tx: &mut Tx, source: ContainerId, copy: &Container) -> Result<()> {
    containers::load(tx, source).await?;
    sqlx::query(
        "INSERT INTO firewalls (container, version, updated_at_ms, doc) \
         SELECT $1, 1, $2, doc FROM firewalls WHERE container = $3",
    )
    .bind(copy.id.as_bytes().as_slice())
    .bind(copy.created_at_ms)
    .bind(source.as_bytes().as_slice())
    .execute(&mut tx.connection)
    .await
    .map_err(failed)
    .map(drop)
}
