//! The outbound network of a container.
//!
//! As with firewall rules, a write is recorded first and then brought to the runtime, so that what was
//! acknowledged is in force. Credentials of a proxy are sealed for their container, and leave this crate
//! for the runtime alone.

use std::{net::IpAddr, sync::Arc, time::Duration};

use gantry_model::{
    Chain, ContainerId, Phase,
    outbound::{Credentials, Endpoint, Labels, Outbound, Scheme, Way},
    project::Level,
};
use gantry_runtime::{Proxy, Runtime};
use gantry_store::{Container, OutboundChange, OutboundRecord};

use crate::{
    Patch,
    actor::Actor,
    controller::{CAS_ATTEMPTS, Controller},
    error::{During, Error, FirewallError, Result, Thing},
    permissions::Leaf,
    seal::SealingKeys,
};

/// How long a write waits for the runtime.
const APPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// A write of an outbound network.
#[derive(Clone, Debug)]
pub struct OutboundWrite {
    /// How what the container begins shall leave.
    pub way: WayWrite,
    /// What is said of the place.
    pub country: Patch<String>,
    /// What is said of the place.
    pub city: Patch<String>,
    /// What is said of the place.
    pub region: Patch<String>,
    /// What is said of it.
    pub comment: Patch<String>,
    /// Who is asked for names.
    pub dns_servers: Patch<Vec<IpAddr>>,
}

/// The way that is asked for.
#[derive(Clone, Debug)]
pub enum WayWrite {
    /// None.
    Block,
    /// Through a proxy that speaks this. Without an endpoint that of before stays; without
    /// credentials those of before stay if the endpoint does.
    Proxy(Scheme, Option<(Endpoint, Option<Credentials>)>),
}

/// How an outbound network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundStatus {
    /// The container does not run; it will be in force when it does.
    Configured,
    /// It is in force.
    Running,
    /// It is switched off: the container goes the host's way.
    Stopped,
    /// It is not in force though it should be, or nothing gets through its proxy.
    Error,
}

/// The outbound network of a container, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundView {
    /// Whose it is.
    pub container: ContainerId,
    /// What is configured.
    pub outbound: Option<Outbound>,
    /// Whether its proxy gets credentials.
    pub has_credentials: bool,
    /// When it was configured, in milliseconds since the epoch.
    pub configured_at_ms: i64,
    /// How it does; none where nothing is configured.
    pub status: Option<OutboundStatus>,
    /// When that was looked at.
    pub checked_at_ms: i64,
}

/// What a write makes of a record; nothing if it stays as it is.
type Changed = Option<(OutboundRecord, OutboundChange)>;

impl Controller {
    /// The outbound network of a container.
    pub async fn outbound(&self, actor: &Actor, id: ContainerId) -> Result<OutboundView> {
        actor.require(Leaf::FeatureNetworking)?;
        actor.require(Leaf::ContainersRead)?;
        let container = self.container_for(actor, id, Level::Read).await?;
        let record = self.store().outbound(id).await?;
        self.outbound_view(&container, record).await
    }

    /// Configures the outbound network of a container, and switches it on.
    pub async fn set_outbound(
        &self,
        actor: &Actor,
        id: ContainerId,
        write: &OutboundWrite,
    ) -> Result<OutboundView> {
        self.change_outbound(actor, id, |record| {
            let (outbound, credentials) = self.written(id, write, record)?;
            let is_same = record.outbound.as_ref() == Some(&outbound);
            if is_same && record.credentials == credentials {
                return Ok(None);
            }
            let record = OutboundRecord {
                version: record.version,
                outbound: Some(outbound),
                credentials,
                configured_at_ms: self.now_ms(),
            };
            Ok(Some((record, OutboundChange::Updated)))
        })
        .await
    }

    /// Takes the outbound network of a container away: it goes the host's way.
    pub async fn clear_outbound(&self, actor: &Actor, id: ContainerId) -> Result<()> {
        self.change_outbound(actor, id, |record| {
            let none = OutboundRecord { version: record.version, ..OutboundRecord::default() };
            Ok(record.outbound.is_some().then_some((none, OutboundChange::Deleted)))
        })
        .await
        .map(drop)
    }

    /// Switches the outbound network of a container on or off.
    pub async fn switch_outbound(
        &self,
        actor: &Actor,
        id: ContainerId,
        is_on: bool,
    ) -> Result<OutboundView> {
        let change = if is_on { OutboundChange::Started } else { OutboundChange::Stopped };
        self.change_outbound(actor, id, |record| {
            let outbound = record.outbound.clone().ok_or(Error::NotFound(Thing::Outbound))?;
            if outbound.is_on == is_on {
                return Ok(None);
            }
            let outbound = Some(Outbound { is_on, ..outbound });
            Ok(Some((OutboundRecord { outbound, ..record.clone() }, change)))
        })
        .await
    }

    /// What a write makes of a record: the network, and the sealed credentials.
    fn written(
        &self,
        id: ContainerId,
        write: &OutboundWrite,
        record: &OutboundRecord,
    ) -> Result<(Outbound, Option<Vec<u8>>)> {
        let before = record.outbound.as_ref();
        let known = before.and_then(Outbound::endpoint);
        let (way, credentials) = match &write.way {
            WayWrite::Block => (Way::Block, None),
            WayWrite::Proxy(_, Some((endpoint, Some(credentials)))) => {
                let sealed = seal(&self.inner.sealing, id, credentials)?;
                (Way::Proxy(endpoint.clone()), Some(sealed))
            }
            WayWrite::Proxy(_, Some((endpoint, None))) => {
                let kept = record.credentials.clone().filter(|_| known == Some(endpoint));
                (Way::Proxy(endpoint.clone()), kept)
            }
            WayWrite::Proxy(scheme, None) => {
                let known = known.filter(|known| known.scheme == *scheme).ok_or_else(|| {
                    let rule = format!("is required for type {}", scheme.as_str());
                    Error::invalid("proxy", rule)
                })?;
                (Way::Proxy(known.clone()), record.credentials.clone())
            }
        };
        let labels = before.map(|before| before.labels.clone()).unwrap_or_default();
        let servers = match &write.dns_servers {
            Patch::Keep => before.map(|before| before.dns_servers.clone()),
            Patch::Clear => None,
            Patch::Set(servers) => Some(servers.clone()),
        };
        let outbound = Outbound {
            way,
            labels: Labels {
                country: patched(&write.country, labels.country),
                city: patched(&write.city, labels.city),
                region: patched(&write.region, labels.region),
                comment: patched(&write.comment, labels.comment),
            },
            dns_servers: servers.unwrap_or_else(|| Outbound::DNS_SERVERS.to_vec()),
            is_on: true,
        };
        Ok((outbound, credentials))
    }

    /// Records what `change` makes of the network and brings it into force; what is as it was is not
    /// recorded again.
    async fn change_outbound(
        &self,
        actor: &Actor,
        id: ContainerId,
        change: impl Fn(&OutboundRecord) -> Result<Changed> + Send + Sync,
    ) -> Result<OutboundView> {
        actor.require(Leaf::FeatureNetworking)?;
        actor.require(Leaf::ContainersUpdate)?;
        for _ in 0..CAS_ATTEMPTS {
            let container = self.container_for(actor, id, Level::Edit).await?;
            if container.status.phase == Phase::Deleting {
                return Err(Error::Deleting);
            }
            let runtime = self.runtime_of(container.server).await?;
            let mut record = self.store().outbound(id).await?;
            if let Some((changed, what)) = change(&record)? {
                match self.store().set_outbound(id, &changed, what, self.now_ms()).await {
                    Ok(()) => {}
                    Err(gantry_store::Error::Stale) => continue,
                    Err(error) => {
                        return Err(Error::of_write(error, Thing::Container, During::Update));
                    }
                }
                record = changed;
                record.version.0 = record.version.0.saturating_add(1);
            }
            // Also when it was recorded before: it may not have come into force.
            self.bring_outbound(runtime, id, &record).await?;
            return self.outbound_view(&container, record).await;
        }
        Err(Error::Conflict)
    }

    /// Brings a recorded network into force. The reconciler does so as well; doing it here lets the
    /// client know.
    async fn bring_outbound(
        &self,
        runtime: &Arc<dyn Runtime>,
        id: ContainerId,
        record: &OutboundRecord,
    ) -> Result<()> {
        let wanted = wanted(&self.inner.sealing, id, record);
        let enforcing = runtime.ensure_outbound(id, &wanted);
        let error = match tokio::time::timeout(APPLY_TIMEOUT, enforcing).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Chain(&error).to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        tracing::warn!(container = %id, error, "the outbound network is not in force yet");
        Err(FirewallError::HostUnavailable.into())
    }

    async fn outbound_view(
        &self,
        container: &Container,
        record: OutboundRecord,
    ) -> Result<OutboundView> {
        let runs = matches!(container.status.phase, Phase::Running | Phase::Paused);
        let status = match &record.outbound {
            None => None,
            Some(outbound) if !outbound.is_on => Some(OutboundStatus::Stopped),
            Some(_) if !runs => Some(OutboundStatus::Configured),
            Some(_) => Some(self.outbound_status(container, &record).await),
        };
        Ok(OutboundView {
            container: container.id,
            has_credentials: record.credentials.is_some(),
            configured_at_ms: record.configured_at_ms,
            outbound: record.outbound,
            status,
            checked_at_ms: self.now_ms(),
        })
    }

    /// How the network of a container that runs does.
    async fn outbound_status(
        &self,
        container: &Container,
        record: &OutboundRecord,
    ) -> OutboundStatus {
        let id = container.id;
        let Some(runtime) = self.inner.servers.runtime(container.server) else {
            return OutboundStatus::Error;
        };
        let sealed = record.credentials.as_ref();
        let is_read = sealed.is_none_or(|sealed| open(&self.inner.sealing, id, sealed).is_ok());
        match runtime.outbound(id).await {
            Ok(Some(enforced))
                if enforced.version == record.version.0 && enforced.fault.is_none() && is_read =>
            {
                OutboundStatus::Running
            }
            Ok(_) => OutboundStatus::Error,
            Err(error) => {
                let error = Chain(&error).to_string();
                tracing::warn!(container = %id, error, "the outbound network is not known");
                OutboundStatus::Error
            }
        }
    }

    /// The outbound network of a container for a copy of it, with credentials that are sealed anew.
    pub(crate) async fn outbound_for_copy(
        &self,
        source: ContainerId,
        copy: ContainerId,
    ) -> Result<OutboundRecord> {
        let mut record = self.store().outbound(source).await?;
        if let Some(sealed) = &record.credentials {
            let credentials = open(&self.inner.sealing, source, sealed)?;
            record.credentials = Some(seal(&self.inner.sealing, copy, &credentials)?);
        }
        Ok(record)
    }
}

/// What the runtime is to make of a record.
pub(crate) fn wanted(
    sealing: &SealingKeys,
    id: ContainerId,
    record: &OutboundRecord,
) -> gantry_runtime::Outbound {
    let way = match &record.outbound {
        Some(outbound) if outbound.is_on => match &outbound.way {
            Way::Block => gantry_runtime::Way::Blocked,
            Way::Proxy(endpoint) => through(sealing, id, record, outbound, endpoint),
        },
        Some(_) | None => gantry_runtime::Way::Direct,
    };
    gantry_runtime::Outbound { version: record.version.0, way }
}

/// Through a proxy; where its credentials cannot be read, nothing leaves.
fn through(
    sealing: &SealingKeys,
    id: ContainerId,
    record: &OutboundRecord,
    outbound: &Outbound,
    endpoint: &Endpoint,
) -> gantry_runtime::Way {
    let sealed = record.credentials.as_ref();
    match sealed.map(|sealed| open(sealing, id, sealed)).transpose() {
        Ok(credentials) => gantry_runtime::Way::Through(Proxy {
            endpoint: endpoint.clone(),
            credentials,
            dns_servers: outbound.dns_servers.clone(),
        }),
        Err(error) => {
            let error = Chain(&error).to_string();
            tracing::error!(container = %id, error, "nothing leaves: its credentials cannot be read");
            gantry_runtime::Way::Blocked
        }
    }
}

fn patched(patch: &Patch<String>, before: Option<String>) -> Option<String> {
    match patch {
        Patch::Keep => before,
        Patch::Clear => None,
        Patch::Set(text) => Some(text.clone()),
    }
}

fn context(id: ContainerId) -> Vec<u8> {
    [b"gantry outbound credentials 1 ".as_slice(), id.as_bytes()].concat()
}

fn seal(sealing: &SealingKeys, id: ContainerId, credentials: &Credentials) -> Result<Vec<u8>> {
    sealing.seal(&context(id), credentials.to_text().as_bytes())
}

fn open(sealing: &SealingKeys, id: ContainerId, sealed: &[u8]) -> Result<Credentials> {
    let text = sealing.open(&context(id), sealed)?;
    let credentials = String::from_utf8(text).ok().as_deref().and_then(Credentials::from_text);
    credentials.ok_or_else(|| Error::internal("sealed credentials are not as they were written"))
}
