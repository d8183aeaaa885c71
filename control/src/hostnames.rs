//! Custom hostnames: names of customers that lead where an alias leads.
//!
//! Whoever binds a name must be the one who controls it, and only the domain name system knows that.
//! A CNAME record that leads to the alias names it, and so does a TXT record at `_gantry.<name>`; both
//! prove the binding even against an older one. Where neither can stand or does (the apex of a
//! zone), the name must have addresses of this server and no others; since every alias has those,
//! that proves nothing against another binding.

use gantry_model::{AliasId, ContainerId, Hostname, RouteKey, project::Level};
use gantry_store::{Alias, CustomHostname, HostnameProof};

use crate::{
    actor::Actor,
    controller::Controller,
    error::{During, EdgeError, Error, Result, Thing},
    names::LookUpFailed,
    permissions::Leaf,
};

/// The most CNAME records that lead from one name to the next.
const CHAIN_MAX: usize = 8;
/// The most hostnames that lead to one container.
const PER_CONTAINER_MAX: usize = 100;

/// A custom hostname and the alias that it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostnameView {
    /// The record.
    pub record: CustomHostname,
    /// The hostname of the alias, which a CNAME record must lead to.
    pub alias_host: String,
}

impl Controller {
    /// The hostnames that lead to a container, oldest first.
    pub async fn hostnames(&self, actor: &Actor, id: ContainerId) -> Result<Vec<HostnameView>> {
        actor.require(Leaf::ResourcesProxyAliases)?;
        self.container_for(actor, id, Level::Read).await?;
        let mut views = Vec::new();
        for record in self.store().hostnames(id).await? {
            // One whose alias was removed in this moment went with it.
            if let Some(alias) = self.store().alias(record.alias).await? {
                let alias_host = self.alias_host(&alias).await?;
                views.push(HostnameView { record, alias_host });
            }
        }
        Ok(views)
    }

    /// Binds a hostname to an alias of a container, or checks a binding again. What the domain name
    /// system does not prove is refused; a binding that it no longer proves leads nowhere from then
    /// on.
    pub async fn bind_hostname(
        &self,
        actor: &Actor,
        id: ContainerId,
        hostname: &str,
        alias: AliasId,
    ) -> Result<HostnameView> {
        actor.require(Leaf::ResourcesProxyAliases)?;
        let name = self.custom_name(hostname)?;
        let container = self.live_container(actor, id).await?;
        let alias = self.store().alias(alias).await?;
        let alias = alias
            .filter(|alias| alias.container == container.id)
            .ok_or(Error::NotFound(Thing::Alias))?;
        let bound = self.store().hostnames(id).await?;
        let old = bound.iter().find(|old| old.name == name && old.alias == alias.id);
        if old.is_none() && bound.len() >= PER_CONTAINER_MAX {
            let rule = format!("a container may have at most {PER_CONTAINER_MAX} hostnames");
            return Err(Error::invalid("hostname", rule));
        }
        let alias_host = self.alias_host(&alias).await?;
        let proof = self.prove(&name, &alias_host).await.map_err(EdgeError::Names)?;
        let now_ms = self.now_ms();
        let record = CustomHostname {
            name,
            alias: alias.id,
            container: alias.container,
            proof: proof.unwrap_or(HostnameProof::Addresses),
            is_proven: proof.is_some(),
            checked_at_ms: now_ms,
            created_at_ms: old.map_or(now_ms, |old| old.created_at_ms),
        };
        if proof.is_some() || old.is_some() {
            let written = self.store().bind_hostname(&record, now_ms).await;
            written.map_err(|error| Error::of_write(error, Thing::Alias, During::Create))?;
        }
        if proof.is_none() {
            return Err(EdgeError::HostnameNotProven { hostname: record.name, alias_host }.into());
        }
        Ok(HostnameView { record, alias_host })
    }

    /// Unbinds a hostname that leads to a container.
    pub async fn unbind_hostname(
        &self,
        actor: &Actor,
        id: ContainerId,
        hostname: &str,
    ) -> Result<()> {
        actor.require(Leaf::ResourcesProxyAliases)?;
        self.container_for(actor, id, Level::Edit).await?;
        let name = self.custom_name(hostname)?;
        let done = self.store().unbind_hostname(id, &name, self.now_ms()).await;
        done.map_err(|error| Error::of_write(error, Thing::Hostname, During::Update))
    }

    /// The hostname of an alias.
    pub(crate) async fn alias_host(&self, alias: &Alias) -> Result<String> {
        let server = self.server_name(alias.server).await?;
        let key = RouteKey::Alias { server: server.as_str(), label: &alias.label };
        Ok(key.to_hostname(&self.inner.domain))
    }

    /// The name in its one spelling: lower case, no final dot, outside of the operator's domain.
    fn custom_name(&self, text: &str) -> Result<String> {
        let invalid = |rule: &str| Error::invalid("hostname", rule);
        let host: Hostname<'_> = Hostname::parse(text)
            .map_err(|_not_a_name| invalid("must be a hostname, as www.example.com"))?;
        match RouteKey::parse(&host, &self.inner.domain) {
            Ok(RouteKey::Custom(host)) if host.as_str().contains('.') => {
                Ok(host.as_str().to_owned())
            }
            Ok(RouteKey::Custom(_)) => Err(invalid("must have at least two labels")),
            Ok(_) | Err(_) => Err(invalid("must lie outside of this installation's domain")),
        }
    }

    /// How the domain name system proves that a name is meant for an alias, if it does.
    pub(crate) async fn prove(
        &self,
        name: &str,
        alias_host: &str,
    ) -> Result<Option<HostnameProof>, LookUpFailed> {
        let names = &self.inner.names;
        let mut at = name.to_owned();
        for _ in 0..CHAIN_MAX {
            match names.canonical(&at).await? {
                Some(next) if next == alias_host => return Ok(Some(HostnameProof::Named)),
                Some(next) => at = next,
                None => break,
            }
        }
        let texts = names.texts(&format!("_gantry.{name}")).await?;
        if texts.iter().any(|text| text.trim().eq_ignore_ascii_case(alias_host)) {
            // It says whose the name is; where it leads is the addresses' business.
            return Ok(Some(HostnameProof::Named));
        }
        let own = names.addresses(alias_host).await?;
        let theirs = names.addresses(name).await?;
        let here = at == name && !theirs.is_empty() && theirs.is_subset(&own);
        Ok(here.then_some(HostnameProof::Addresses))
    }
}
