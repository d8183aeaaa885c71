//! The firewall rules of a container.
//!
//! A write is recorded first and then brought to the runtime, so that what was acknowledged is in
//! force. Where the runtime does not answer, the rules stay recorded, the client is told, and the
//! reconciler goes on; the same write again is no second rule.

use std::{sync::Arc, time::Duration};

use gantry_model::{
    Chain, ContainerId, Phase,
    firewall::{Direction, Rule, Rules},
    project::Level,
};
use gantry_runtime::{Firewall, Runtime};
use gantry_store::RuleChange;
use serde_json::{Map, Value};

use crate::{
    actor::Actor,
    controller::{CAS_ATTEMPTS, Controller},
    error::{During, Error, FirewallError, Result, Thing},
    permissions::Leaf,
};

/// How long a write waits for the runtime.
const APPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// What came of adding a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddedRule {
    /// It is the last of its direction; these are all now.
    New(Rules),
    /// The rule at this place is the same; nothing was added.
    Duplicate(usize),
}

/// Which rules of a direction are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleFilter {
    /// Fields as clients write them; a rule fits that has all of them so.
    pub fields: Map<String, Value>,
    /// Every rule that fits, not the first alone.
    pub all: bool,
}

impl RuleFilter {
    fn fits(&self, direction: Direction, rule: &Rule) -> bool {
        let json = rule.json(direction);
        self.fields.iter().all(|(name, value)| json.get(name) == Some(value))
    }

    /// The places of those that are meant.
    fn places(&self, direction: Direction, rules: &[Rule]) -> Vec<usize> {
        let places = rules.iter().enumerate().filter(|(_, rule)| self.fits(direction, rule));
        places.map(|(at, _)| at).take(if self.all { usize::MAX } else { 1 }).collect()
    }
}

type Changes = Vec<(RuleChange, Direction, usize)>;

impl Controller {
    /// The firewall rules of a container.
    pub async fn firewall(&self, actor: &Actor, id: ContainerId) -> Result<Rules> {
        actor.require(Leaf::ResourcesFirewalls)?;
        actor.require(Leaf::ContainersRead)?;
        self.container_for(actor, id, Level::Read).await?;
        Ok(self.store().firewall(id).await?.1)
    }

    /// Adds a rule after those of its direction, unless there is the same one already.
    pub async fn add_rule(
        &self,
        actor: &Actor,
        id: ContainerId,
        direction: Direction,
        rule: &Rule,
    ) -> Result<AddedRule> {
        self.change_firewall(actor, id, |rules| {
            let list = rules.of_mut(direction);
            if let Some(at) = list.iter().position(|other| other == rule) {
                return Ok((AddedRule::Duplicate(at), Vec::new()));
            }
            list.push(rule.clone());
            if rules.count() > Rules::MAX {
                return Err(FirewallError::TooMany.into());
            }
            if rules.octets() > Rules::OCTETS_MAX {
                return Err(FirewallError::TooLarge.into());
            }
            Ok((AddedRule::New(rules.clone()), vec![(RuleChange::Added, direction, 1)]))
        })
        .await
    }

    /// Switches every rule of a direction that fits on or off; returns how many were switched.
    pub async fn switch_rules(
        &self,
        actor: &Actor,
        id: ContainerId,
        direction: Direction,
        filter: &RuleFilter,
        enabled: bool,
    ) -> Result<usize> {
        let change = if enabled { RuleChange::Enabled } else { RuleChange::Disabled };
        self.change_firewall(actor, id, |rules| {
            let list = rules.of_mut(direction);
            let (mut found, mut switched) = (false, 0);
            for rule in list.iter_mut().filter(|rule| filter.fits(direction, rule)) {
                found = true;
                if rule.enabled != enabled {
                    rule.enabled = enabled;
                    switched += 1;
                }
            }
            if !found {
                return Err(Error::NotFound(Thing::Rule));
            }
            let changes =
                if switched > 0 { vec![(change, direction, switched)] } else { Vec::new() };
            Ok((switched, changes))
        })
        .await
    }

    /// Removes the rules of a direction that are meant, and returns them.
    pub async fn remove_rules(
        &self,
        actor: &Actor,
        id: ContainerId,
        direction: Direction,
        filter: &RuleFilter,
    ) -> Result<Vec<Rule>> {
        self.change_firewall(actor, id, |rules| {
            let list = rules.of_mut(direction);
            let places = filter.places(direction, list);
            if places.is_empty() {
                return Err(Error::NotFound(Thing::Rule));
            }
            // From the back, so that the places in front stay right.
            let mut removed: Vec<Rule> =
                places.into_iter().rev().map(|place| list.remove(place)).collect();
            removed.reverse();
            let changes = vec![(RuleChange::Removed, direction, removed.len())];
            Ok((removed, changes))
        })
        .await
    }

    /// Removes every rule of a container: it is open.
    pub async fn reset_firewall(&self, actor: &Actor, id: ContainerId) -> Result<()> {
        self.change_firewall(actor, id, |rules| {
            let mut changes = Vec::new();
            for direction in Direction::ALL {
                let gone = std::mem::take(rules.of_mut(direction)).len();
                if gone > 0 {
                    changes.push((RuleChange::Removed, direction, gone));
                }
            }
            Ok(((), changes))
        })
        .await
    }

    /// Records what `change` makes of the rules and brings it into force; what is as it was is not recorded again.
    async fn change_firewall<T: Send>(
        &self,
        actor: &Actor,
        id: ContainerId,
        change: impl Fn(&mut Rules) -> Result<(T, Changes)> + Send + Sync,
    ) -> Result<T> {
        actor.require(Leaf::ResourcesFirewalls)?;
        actor.require(Leaf::ContainersUpdate)?;
        for _ in 0..CAS_ATTEMPTS {
            let container = self.container_for(actor, id, Level::Edit).await?;
            if container.status.phase == Phase::Deleting {
                return Err(Error::Deleting);
            }
            let runtime = self.runtime_of(container.server).await?;
            let (version, mut rules) = self.store().firewall(id).await?;
            let (answer, changes) = change(&mut rules)?;
            if changes.is_empty() {
                // An earlier write may have been recorded without coming into force.
                self.enforce(runtime, id, Firewall { version: version.0, rules }).await?;
                return Ok(answer);
            }
            match self.store().set_firewall(id, version, &rules, changes, self.now_ms()).await {
                Ok(()) => {
                    let version = version.0.saturating_add(1);
                    self.enforce(runtime, id, Firewall { version, rules }).await?;
                    return Ok(answer);
                }
                Err(gantry_store::Error::Stale) => {}
                Err(error) => return Err(Error::of_write(error, Thing::Container, During::Update)),
            }
        }
        Err(Error::Conflict)
    }

    /// Brings recorded rules into force. The reconciler does so as well; doing it here lets the client
    /// know.
    async fn enforce(
        &self,
        runtime: &Arc<dyn Runtime>,
        id: ContainerId,
        firewall: Firewall,
    ) -> Result<()> {
        let enforcing = runtime.ensure_firewall(id, &firewall);
        let error = match tokio::time::timeout(APPLY_TIMEOUT, enforcing).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Chain(&error).to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        tracing::warn!(container = %id, error, "firewall rules are not in force yet");
        Err(FirewallError::HostUnavailable.into())
    }
}
