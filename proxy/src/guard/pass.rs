//! What a request that was let in keeps: by which gate, and what it had proved. While it streams, it is
//! judged again whenever its gate has changed.

use std::{cell::RefCell, net::IpAddr, sync::Arc};

use gantry_model::access::{Caller, Decision, GroupName, Method, Policy, Program};
use gantry_router::Gate;

use super::credentials::{Proof, Proven};

/// Who was let in, and by which gate.
#[derive(Debug)]
pub(crate) struct Pass {
    program: Program,
    number: Option<u16>,
    address: IpAddr,
    grounds: RefCell<Grounds>,
}

#[derive(Debug)]
struct Grounds {
    gate: Arc<Gate>,
    proven: Proven,
}

impl Pass {
    pub(crate) fn new(
        gate: Arc<Gate>,
        (program, number): (Program, Option<u16>),
        address: IpAddr,
        proven: Proven,
    ) -> Self {
        let address = address.to_canonical();
        Self { program, number, address, grounds: RefCell::new(Grounds { gate, proven }) }
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

    /// Whether it still holds with the gate that stands there now. Credentials are not asked for
    /// again: a way that was proved counts as long as its group has the very same one, and the
    /// address is compared anew.
    pub(crate) fn holds(&self, now: Option<Arc<Gate>>) -> bool {
        let Some(gate) = now else { return true };
        let mut grounds = self.grounds.borrow_mut();
        if gate.serial == grounds.gate.serial {
            return true;
        }
        let proven = match &gate.policy {
            None => Proven::default(),
            Some(policy) => {
                let proven = self.carry_over(&grounds, policy);
                let (groups, caller) = (proven.groups, proven.caller());
                if policy.decide(self.program, self.number, groups, caller) != Decision::Allow {
                    return false;
                }
                proven
            }
        };
        *grounds = Grounds { gate, proven };
        true
    }

    /// What was proved, as far as it counts under `policy`.
    fn carry_over(&self, grounds: &Grounds, policy: &Policy) -> Proven {
        let before = |proof: &Proof| {
            let (name, methods) = grounds.gate.policy.as_ref()?.groups().get(proof.group)?;
            Some((name, methods.get(proof.method)?))
        };
        let mut proven = Proven::default();
        for (group, (name, methods)) in policy.groups().iter().enumerate() {
            for (method, way) in methods.iter().enumerate() {
                let proof = Proof { group, method };
                match way {
                    Method::Ip(range) if range.contains(&self.address) => {
                        proven.carry(proof, Caller::Unknown);
                    }
                    Method::Ip(_) => {}
                    Method::Jwt { .. } | Method::Password { .. } | Method::Token { .. } => {
                        let had = grounds.proven.proofs.iter().filter_map(before);
                        if had.into_iter().any(|had| had == (name, way)) {
                            proven.carry(proof, Caller::Known);
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
    use gantry_model::{access::Document, edge::EdgeSettings};
    use serde_json::{Value, json};

    use super::*;

    fn gate(serial: u64, document: Option<&Value>) -> Arc<Gate> {
        let document = document.map(|it| Document::parse(it, None, &mut String::new).unwrap());
        let policy = Policy::merge(None, document.as_ref());
        Arc::new(Gate { policy, hooks: Vec::new(), settings: EdgeSettings::default(), serial })
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
            proven.carry(Proof { group: 0, method: 1 }, Caller::Known);
            let address = "::ffff:192.0.2.7".parse().unwrap();
            let service = (Program::HTTP, Some(3000));
            let pass = Pass::new(gate(1, Some(&before)), service, address, proven);
            assert!(pass.is_known() && pass.holds(Some(gate(1, None))), "the same serial");
            assert_eq!(pass.holds(Some(gate(2, Some(&now)))), want, "{what}");
            if want {
                assert!(pass.holds(Some(gate(3, Some(&now)))), "{what}, and again");
            }
            assert!(pass.holds(None), "no gate at all");
        }
    }
}
