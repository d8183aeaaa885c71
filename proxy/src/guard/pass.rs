//! What a request that was let in keeps: by which gate, and what it had proved. While it streams, it is
//! judged again whenever its gate has changed.

use std::{cell::RefCell, net::IpAddr, sync::Arc};

use gantry_model::access::{Caller, Decision, Method, Policy, Program};
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
