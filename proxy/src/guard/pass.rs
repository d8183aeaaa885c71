//! What a request that was let in keeps: by which gate, and what it had proved. While it streams, it is
//! judged again whenever its gate has changed, and when something ends that it had proved, such as a
//! signed token.

use std::{cell::RefCell, net::IpAddr, sync::Arc};

use gantry_model::access::{Caller, Decision, Demand, GroupName, Method, Policy};
use gantry_router::Gate;

use super::credentials::{FOR_EVER, Held, Proof, Proven};

/// Who was let in, and by which gate.
#[derive(Debug)]
pub(crate) struct Pass {
    demand: Demand,
    address: IpAddr,
    grounds: RefCell<Grounds>,
}

#[derive(Debug)]
struct Grounds {
    gate: Arc<Gate>,
    proven: Proven,
}

impl Pass {
    pub(crate) fn new(gate: Arc<Gate>, demand: Demand, address: IpAddr, proven: Proven) -> Self {
        let address = address.to_canonical();
        Self { demand, address, grounds: RefCell::new(Grounds { gate, proven }) }
    }

    /// Whether its holder has proved to belong to a group, by more than an address.
    pub(crate) fn is_known(&self) -> bool {
        self.grounds.borrow().proven.caller() == Caller::Known
    }

    /// Whether who was let in belongs to a group of this name, among those that were checked.
    pub(crate) fn is_member(&self, name: &GroupName) -> bool {
        let grounds = self.grounds.borrow();
        let groups = grounds.gate.policy.as_ref().map(Policy::groups).unwrap_or_default();
        let at = groups.iter().position(|(own, _)| own == name);
        at.is_some_and(|at| grounds.proven.groups.contains(at))
    }

    /// When the first of what it rests on ends, in milliseconds since the epoch; if anything does.
    pub(crate) fn until_ms(&self) -> Option<i64> {
        Some(self.grounds.borrow().proven.until_ms()).filter(|until_ms| *until_ms != FOR_EVER)
    }

    /// Whether it still holds at this moment with the gate that stands there now. Credentials are not
    /// asked for again: a way that was proved counts until it ends, as long as its group has the very
    /// same one, and the address is compared anew.
    pub(crate) fn holds(&self, now: Option<Arc<Gate>>, now_ms: i64) -> bool {
        let Some(gate) = now else { return true };
        let mut grounds = self.grounds.borrow_mut();
        if gate.serial == grounds.gate.serial && now_ms < grounds.proven.until_ms() {
            return true;
        }
        let proven = match &gate.policy {
            None => Proven::default(),
            Some(policy) => {
                let proven = self.carry_over(&grounds, policy, now_ms);
                let (groups, caller) = (proven.groups, proven.caller());
                if self.demand.decide(policy, groups, caller) != Decision::Allow {
                    return false;
                }
                proven
            }
        };
        *grounds = Grounds { gate, proven };
        true
    }

    /// What was proved, as far as it counts under `policy`.
    fn carry_over(&self, grounds: &Grounds, policy: &Policy, now_ms: i64) -> Proven {
        let before = |held: &Held| {
            let proof = held.proof;
            let (name, methods) = grounds.gate.policy.as_ref()?.groups().get(proof.group)?;
            Some((name, methods.get(proof.method)?))
        };
        let mut proven = Proven::default();
        for (group, (name, methods)) in policy.groups().iter().enumerate() {
            for (method, way) in methods.iter().enumerate() {
                let proof = Proof { group, method };
                match way {
                    Method::Ip(range) if range.contains(&self.address) => {
                        proven.carry(proof, Caller::Unknown, FOR_EVER);
                    }
                    Method::Ip(_) => {}
                    Method::Jwt { .. } | Method::Password { .. } | Method::Token { .. } => {
                        let held = grounds.proven.held.iter();
                        let same = held.filter(|held| before(held) == Some((name, way)));
                        let until_ms = same.map(|held| held.until_ms).max();
                        if let Some(until_ms) = until_ms.filter(|until_ms| now_ms < *until_ms) {
                            proven.carry(proof, Caller::Known, until_ms);
                        }
                    }
                }
            }
        }
        proven
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::{Scheme, Target, access::Document, edge::EdgeSettings};
    use serde_json::{Value, json};

    use super::*;

    fn gate(serial: u64, document: Option<&Value>) -> Arc<Gate> {
        let document = document.map(|it| Document::parse(it, None, &mut String::new).unwrap());
        let policy = Policy::merge(None, document.as_ref());
        Arc::new(Gate { policy, hooks: Vec::new(), settings: EdgeSettings::default(), serial })
    }

    fn demand() -> Demand {
        Demand::of(&Target::Port { scheme: Scheme::Http, port: 3000 }, |_| None)
    }

    /// Groups with their ways; all open port 3000.
    fn document(groups: &Value, default: &str) -> Value {
        let names = groups.as_object().unwrap().keys();
        let cells = names.map(|name| (name.clone(), json!({"http": 3000})));
        let cells: serde_json::Map<String, Value> = cells.collect();
        json!({"groups": groups, "permissions": cells, "default": default})
    }

    #[test]
    fn a_pass_holds_as_long_as_what_it_rests_on() {
        let key = |value: &str| json!({"type": "token", "header": "X-Key", "value": value});
        let net = |range: &str| json!({"type": "ip", "range": range});
        let before = document(&json!({"a": [key("x"), key("one")], "b": key("two")}), "deny");
        let mut closed = before.clone();
        closed["enable_proxy"] = false.into();
        for (what, now, want) in [
            (
                "the same",
                document(&json!({"a": [key("x"), key("one")], "b": key("two")}), "deny"),
                true,
            ),
            (
                "at another place",
                document(&json!({"0": key("y"), "a": [key("one")]}), "deny"),
                true,
            ),
            ("changed", document(&json!({"a": key("three")}), "deny"), false),
            ("in another group", document(&json!({"c": key("one")}), "deny"), false),
            ("gone, but open to all", document(&json!({"a": key("three")}), "allow"), true),
            (
                "gone, but let in by address",
                document(&json!({"n": net("192.0.2.0/24")}), "deny"),
                true,
            ),
            ("another address", document(&json!({"n": net("198.51.100.0/24")}), "deny"), false),
            ("closed", closed, false),
        ] {
            let mut proven = Proven::default();
            proven.carry(Proof { group: 0, method: 1 }, Caller::Known, FOR_EVER);
            let address = "::ffff:192.0.2.7".parse().unwrap();
            let service = demand();
            let pass = Pass::new(gate(1, Some(&before)), service, address, proven);
            assert!(pass.is_known() && pass.holds(Some(gate(1, None)), 0), "the same serial");
            assert_eq!(pass.holds(Some(gate(2, Some(&now))), 0), want, "{what}");
            if want {
                assert!(pass.holds(Some(gate(3, Some(&now))), 0), "{what}, and again");
            }
            assert!(pass.holds(None, 0), "no gate at all");
        }
    }

    #[test]
    fn a_pass_ends_with_the_last_of_what_it_rests_on() {
        let key = |value: &str| json!({"type": "token", "header": "X-Key", "value": value});
        let groups = json!({"a": key("one"), "b": key("two")});
        for (default, lasts) in [("deny", false), ("allow", true)] {
            let gate = gate(1, Some(&document(&groups, default)));
            let mut proven = Proven::default();
            proven.carry(Proof { group: 0, method: 0 }, Caller::Known, 1000);
            proven.carry(Proof { group: 1, method: 0 }, Caller::Known, 2000);
            let service = demand();
            let address = "192.0.2.7".parse().unwrap();
            let pass = Pass::new(Arc::clone(&gate), service, address, proven);
            let holds = |now_ms| (pass.holds(Some(Arc::clone(&gate)), now_ms), pass.until_ms());
            assert_eq!(holds(999), (true, Some(1000)));
            assert_eq!(holds(1000), (true, Some(2000)));
            assert_eq!(holds(1999), (true, Some(2000)));
            let until_ms = (!lasts).then_some(2000);
            assert_eq!(holds(2000), (lasts, until_ms), "{default}");
        }
    }
}
