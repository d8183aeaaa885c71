//! Whether a request may reach a service.
//!
//! Containers are open unless their owner has said who may pass: whoever knows a hostname, which
//! carries two secret ids, may ask. This is the one place between the lookup and the upstream where
//! that is decided, per request and never per connection. The decision itself is the model's
//! ([`gantry_model::access::Policy::decide`]); here is what it needs and what follows:
//! `credentials` holds what a request brings against the groups, `browser` knows whether a page of
//! somebody else may have sent it, `strip` keeps credentials from the container, `preflight` and
//! `sign_in` answer browsers, and `pass` is what a stream keeps, so that a change of the gate can end
//! it.

mod basic;
mod browser;
mod credentials;
mod denied;
#[cfg(test)]
mod fuzz_seeds;
mod jwt;
mod pass;
mod preflight;
pub(crate) mod query;
mod seal;
mod sign_in;
mod strip;
mod throttle;

use std::{
    cell::RefCell,
    fmt,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gantry_model::{
    ContainerId, Target,
    access::{Decision, Demand, GroupSet, Policy, Reason},
};
use gantry_router::Gate;
use http::{HeaderMap, Request, Response, Uri};
use tokio::sync::Semaphore;

pub(crate) use denied::Denied;
pub(crate) use pass::Pass;
pub(crate) use sign_in::POLICY as SIGN_IN_POLICY;
pub(crate) use strip::{reads_param, replace_path};

use crate::{
    answer::Failure, body::EdgeBody, config::Limits, deps::SessionKey, forward::Downstreams, hooks,
    pipeline::Ask,
};
use credentials::{Evidence, Known, Proof, Proven};
use seal::{Seal, Used};
use sign_in::Service;
use throttle::Throttle;

/// What all workers share. None of it is touched by a request that brings no password.
#[derive(Debug)]
pub(crate) struct Shared {
    seal: Seal,
    throttle: Mutex<Throttle>,
    used: Mutex<Used>,
    turns: Arc<Semaphore>,
    /// The key under which checks are remembered.
    secret: [u8; 32],
}

impl Shared {
    pub(crate) fn new(sessions: &SessionKey, limits: &Limits) -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self {
            seal: Seal::new(sessions)?,
            throttle: Mutex::new(Throttle::new(limits.password_failures_max)),
            used: Mutex::default(),
            turns: Arc::new(Semaphore::new(limits.credential_checks_max)),
            secret,
        })
    }

    // A panic cannot leave either in a state that is not whole.
    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one worker has for its checks.
pub(crate) struct Guard {
    shared: Arc<Shared>,
    known: RefCell<Known>,
}

impl Guard {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, known: RefCell::default() }
    }

    fn key(&self, serial: u64, proof: Proof, octets: &[u8]) -> credentials::Key {
        credentials::key(&self.shared.secret, serial, proof, octets)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// What becomes of a request that is not refused.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It goes on to the container; what it streams lives as long as this holds.
    Passed(Rc<Pass>),
    /// The edge has answered it.
    Answered(Box<Response<EdgeBody>>),
}

/// What is asked for, and what decides about it.
struct Case<'c> {
    container: ContainerId,
    gate: &'c Arc<Gate>,
    policy: &'c Policy,
    demand: Demand,
    /// The groups worth checking.
    wants: GroupSet,
    /// The groups that say something about the service.
    speaking: GroupSet,
}

/// As [`check`], for a request about which everything is known already: nothing has to be checked
/// elsewhere, and no page of the edge is asked for. Most requests are of that kind, and need no room
/// for anything that waits.
pub(crate) fn check_now(
    ask: &Ask<'_>,
    gate: &Arc<Gate>,
    container: ContainerId,
    target: &Target<'_>,
    request: Downstreams<'_>,
) -> Option<Result<Admission, Failure>> {
    let demand = ask.worker.deps().kit.demand(target);
    let Some(case) = Case::of(gate, container, demand) else {
        return Some(Ok(pass(ask, gate, demand, Proven::default())));
    };
    if case.is_for_the_edge(request.uri()) {
        return None;
    }
    let proven = if case.wants.is_empty() {
        Proven::default()
    } else {
        credentials::known(ask, &case.evidence(request))?
    };
    Some(case.decide(ask, request, proven))
}

/// Decides about a request for `target` of the container behind `gate`, and takes out of it what the
/// container may not see.
pub(crate) async fn check(
    ask: &Ask<'_>,
    gate: &Arc<Gate>,
    container: ContainerId,
    target: &Target<'_>,
    request: Downstreams<'_>,
) -> Result<Admission, Failure> {
    let demand = ask.worker.deps().kit.demand(target);
    let Some(case) = Case::of(gate, container, demand) else {
        return Ok(pass(ask, gate, demand, Proven::default()));
    };
    if case.is_for_the_edge(request.uri())
        && let Some(answer) = sign_in::serve(ask, &case.sign_in(), request).await
    {
        return answer.map(|answer| Admission::Answered(Box::new(answer)));
    }
    let proven = if case.wants.is_empty() {
        Proven::default()
    } else {
        credentials::prove(ask, &case.evidence(request)).await?
    };
    case.decide(ask, request, proven)
}

impl<'c> Case<'c> {
    /// Nothing if there is no policy.
    fn of(gate: &'c Arc<Gate>, container: ContainerId, demand: Demand) -> Option<Self> {
        let policy = gate.policy.as_ref()?;
        let hooked = hooks::groups(gate, policy, &demand);
        let wants = demand.wants(policy).union(hooked);
        let speaking = demand.speaking(policy).union(hooked);
        Some(Self { container, gate, policy, demand, wants, speaking })
    }

    fn sign_in(&self) -> Service<'c> {
        let Self { container, gate, policy, demand, wants: _, speaking } = *self;
        Service { container, gate, policy, demand, speaking }
    }

    /// Whether a path may be one of those that the edge answers itself.
    fn is_for_the_edge(&self, uri: &Uri) -> bool {
        uri.path().starts_with("/.gantry/") && self.sign_in().has_passwords()
    }

    fn evidence<'e, B>(&'e self, request: &'e Request<B>) -> Evidence<'e> {
        let Self { container, gate, policy, demand: _, wants, speaking } = *self;
        let (headers, uri) = (request.headers(), request.uri());
        let method = Some(request.method());
        Evidence { container, gate, policy, wants, speaking, headers, uri, method }
    }

    fn decide(
        &self,
        ask: &Ask<'_>,
        request: Downstreams<'_>,
        proven: Proven,
    ) -> Result<Admission, Failure> {
        let Self { container, policy, demand, speaking, .. } = *self;
        let (method, headers) = (request.method(), request.headers());
        let decision = demand.decide(policy, proven.groups, proven.caller());
        if decision != Decision::Allow && preflight::is_preflight(method, headers) {
            return answer_preflight(ask, &self.sign_in(), headers, decision);
        }
        match decision {
            Decision::Allow => {}
            Decision::Forbidden(reason) => return Err(refusal(reason)),
            Decision::Challenge if browser::is_navigation(ask) => {
                strip::strip(request, policy, speaking, proven.bare);
                let path = request.uri().path_and_query();
                return Err(sign_in::page(ask, &self.sign_in(), request.method(), path));
            }
            Decision::Challenge => {
                let script = browser::is_script(headers);
                return Err(Denied::Anonymous { script }.into());
            }
        }
        if browser::is_forged(ask, container, method, headers) {
            // What a browser adds by itself does not count.
            let (groups, caller) = (proven.deliberate, proven.deliberate_caller());
            if demand.decide(policy, groups, caller) != Decision::Allow {
                return Err(Denied::Origin.into());
            }
        }
        strip::strip(request, policy, speaking, proven.bare);
        Ok(pass(ask, self.gate, demand, proven))
    }
}

fn pass(ask: &Ask<'_>, gate: &Arc<Gate>, demand: Demand, proven: Proven) -> Admission {
    let address = ask.downstream.peer.ip();
    Admission::Passed(Rc::new(Pass::new(Arc::clone(gate), demand, address, proven)))
}

fn answer_preflight(
    ask: &Ask<'_>,
    service: &Service<'_>,
    headers: &HeaderMap,
    decision: Decision,
) -> Result<Admission, Failure> {
    if decision == Decision::Forbidden(Reason::Closed) {
        return Err(Denied::Closed.into());
    }
    let origin = headers.get(http::header::ORIGIN);
    let own = origin.is_some_and(|origin| browser::is_own(ask, service.container, origin));
    let answer = preflight::answer(headers, service.policy, service.speaking, own);
    answer.map(|answer| Admission::Answered(Box::new(answer))).ok_or_else(|| Denied::Access.into())
}

const fn refusal(reason: Reason) -> Failure {
    Failure::Denied(match reason {
        Reason::Closed => Denied::Closed,
        Reason::Group | Reason::Default => Denied::Access,
    })
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}
