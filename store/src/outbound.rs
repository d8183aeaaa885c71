//! The outbound networks of containers.

use std::fmt;

use gantry_model::{ContainerId, outbound::Outbound};

use crate::{
    Store,
    columns::{self, integer},
    containers, document,
    error::{Error, Result, failed},
    record::{Container, Version},
    told,
    writer::Tx,
};

/// The outbound network of a container, or that it has none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OutboundRecord {
    /// Rises with each change; 0 for a container that never had one.
    pub version: Version,
    /// What is configured.
    pub outbound: Option<Outbound>,
    /// What its proxy wants to hear, sealed.
    pub credentials: Option<Vec<u8>>,
    /// When it was configured, in milliseconds since the epoch.
    pub configured_at_ms: i64,
}

/// Which rules of its source a copy gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopiedRules {
    /// Whether those of the firewall.
    pub firewall: bool,
    /// The outbound network, with credentials sealed for the copy.
    pub outbound: Option<OutboundRecord>,
}

/// What became of an outbound network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundChange {
    /// It was configured, anew or otherwise.
    Updated,
    /// It was taken away.
    Deleted,
    /// It was switched on.
    Started,
    /// It was switched off.
    Stopped,
}

impl OutboundChange {
    /// The kind of the event that tells it.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Updated => "container.network.updated",
            Self::Deleted => "container.network.deleted",
            Self::Started => "container.network.started",
            Self::Stopped => "container.network.stopped",
        }
    }
}

impl fmt::Debug for OutboundRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundRecord")
            .field("version", &self.version)
            .field("outbound", &self.outbound)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// The outbound network of a container.
    pub async fn outbound(&self, container: ContainerId) -> Result<OutboundRecord> {
        let row = sqlx::query("SELECT * FROM outbound_networks WHERE container = $1")
            .bind(container.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        let Some(row) = row else { return Ok(OutboundRecord::default()) };
        let of = columns::of("the outbound network of container", container);
        let doc: Option<&str> = columns::get(&row, "doc")?;
        Ok(OutboundRecord {
            version: Version(columns::count(&row, "version")?),
            outbound: doc.map(document::read_outbound).transpose().map_err(of)?,
            credentials: columns::get(&row, "credentials")?,
            configured_at_ms: columns::get(&row, "configured_at_ms")?,
        })
    }

    /// Replaces the outbound network of a container that still has the version of `record`, which is
    /// one lower than that of the new one, and tells what became of it. [`Error::NotFound`] if there
    /// is no such container.
    pub async fn set_outbound(
        &self,
        container: ContainerId,
        record: &OutboundRecord,
        change: OutboundChange,
        now_ms: i64,
    ) -> Result<()> {
        let record = record.clone();
        let doc = record.outbound.as_ref().map(document::write_outbound).transpose()?;
        self.write(move |tx| {
            Box::pin(async move {
                let owned = containers::load(tx, container).await?;
                let done = sqlx::query(
                    "INSERT INTO outbound_networks (container, version, configured_at_ms, doc, credentials) \
                     SELECT $1, 1, $3, $4, $5 WHERE $2 = 0 \
                     ON CONFLICT (container) DO NOTHING",
                );
                let update = sqlx::query(
                    "UPDATE outbound_networks SET version = version + 1, configured_at_ms = $3, \
                     doc = $4, credentials = $5 WHERE container = $1 AND version = $2",
                );
                let statement = if record.version.0 == 0 { done } else { update };
                let done = statement
                    .bind(container.as_bytes().as_slice())
                    .bind(integer(record.version.0))
                    .bind(record.configured_at_ms)
                    .bind(&doc)
                    .bind(&record.credentials)
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(Error::Stale);
                }
                tx.changed(container, now_ms);
                told::network_told(tx, &owned, change, record.outbound.as_ref(), now_ms).await
            })
        })
        .await
    }
}

/// Gives a new container the outbound network in `record`, if that is still its source's.
/// [`Error::Stale`] if not. Credentials are sealed for the new one already.
pub(crate) async fn copy(
    tx: &mut Tx,
    source: ContainerId,
    record: &OutboundRecord,
    copy: &Container,
) -> Result<()> {
    containers::load(tx, source).await?;
    let row = sqlx::query("SELECT version FROM outbound_networks WHERE container = $1")
        .bind(source.as_bytes().as_slice())
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?;
    let version = row.map(|row| columns::count(&row, "version")).transpose()?.unwrap_or_default();
    if version != record.version.0 {
        return Err(Error::Stale);
    }
    let Some(outbound) = &record.outbound else { return Ok(()) };
    sqlx::query(
        "INSERT INTO outbound_networks (container, version, configured_at_ms, doc, credentials) \
         VALUES ($1, 1, $2, $3, $4)",
    )
    .bind(copy.id.as_bytes().as_slice())
    .bind(copy.created_at_ms)
    .bind(document::write_outbound(outbound)?)
    .bind(&record.credentials)
    .execute(&mut tx.connection)
    .await
    .map_err(failed)
    .map(drop)
}
