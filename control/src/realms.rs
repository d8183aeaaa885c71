//! Realms: labels that projects, containers and tokens carry. One exists while something carries it.

use std::collections::BTreeMap;

use gantry_model::RealmId;
use gantry_store::RealmUse;

use crate::{actor::Actor, controller::Controller, error::Result, permissions::Leaf};

/// How much of what the actor sees carries a realm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RealmView {
    /// Projects and containers.
    pub records: RealmUse,
    /// The actor's own tokens.
    pub tokens: u64,
}

impl Controller {
    /// The realms of what the actor sees; on the host of a realm, that one at most.
    pub async fn realms(&self, actor: &Actor) -> Result<BTreeMap<RealmId, RealmView>> {
        actor.require(Leaf::ResourcesRealms)?;
        let mut realms: BTreeMap<RealmId, RealmView> = BTreeMap::new();
        for (realm, records) in self.store().realms(actor.seen_by()).await? {
            realms.entry(realm).or_default().records = records;
        }
        for token in self.store().tokens(actor.user).await? {
            for realm in token.realms {
                realms.entry(realm).or_default().tokens += 1;
            }
        }
        realms.retain(|realm, _| actor.realm.is_none_or(|host| host == *realm));
        Ok(realms)
    }
}
