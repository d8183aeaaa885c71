//! What a request proves: each credential that it brings, held against the ways of the groups that
//! are worth checking.
//!
//! Fixed tokens, addresses, sessions and HMACs are checked where the request is. Passwords and
//! signatures of public keys are checked on the control runtime, a bounded number at a time, and
//! what came out is remembered for a moment.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{Context, SHA256},
};
use bytes::Bytes;
use gantry_model::{
    ContainerId,
    access::{Caller, GroupSet, JwtAlgorithm, Method, Place, Policy, Source},
};
use gantry_router::Gate;
use http::{HeaderMap, HeaderValue, Uri, header};
use tokio::time::timeout;

use super::{
    Denied,
    basic::Credentials,
    browser, jwt, query,
    seal::{Bound, Use},
    throttle,
};
use crate::{
    answer::Failure,
    cookies::{self, Found},
    limits::Refused,
    pipeline::Ask,
};

/// The session that a sign-in gives a browser.
pub(crate) const SESSION: &str = "__Host-gantry-session";

/// How long a check that held is remembered.
const HELD_MS: i64 = 60_000;
/// How long one that did not.
const FAILED_MS: i64 = 10_000;
/// A request waits so long for its turn to be checked.
const TURN_MAX: Duration = Duration::from_secs(2);

/// One way to one group, by their places in the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(crate) group: usize,
    pub(crate) method: usize,
}

/// A moment after everything.
pub(crate) const FOR_EVER: i64 = i64::MAX;

/// A way by which a request belongs to a group, and until when (milliseconds since the epoch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) proof: Proof,
    pub(crate) until_ms: i64,
}

/// What a request has proved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proven {
    /// The groups that its sender belongs to.
    pub(crate) groups: GroupSet,
    /// Those of them that do not rest on what a browser sends by itself, whoever made it ask.
    pub(crate) deliberate: GroupSet,
    /// Groups that were checked and found to read nothing that the request holds.
    pub(crate) bare: GroupSet,
    /// How.
    pub(crate) held: Vec<Held>,
    known: bool,
    known_deliberately: bool,
}

/// What a proof rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The client's address.
    Address,
    /// Something that only the sender can have put there.
    Deed,
    /// Something that a browser adds by itself: a cookie, a password that it keeps.
    Habit,
}

impl Proven {
    fn add(&mut self, proof: Proof, by: By, until_ms: i64) {
        self.groups.insert(proof.group);
        self.held.push(Held { proof, until_ms });
        self.known |= by != By::Address;
        if by != By::Habit {
            self.deliberate.insert(proof.group);
            self.known_deliberately |= by == By::Deed;
        }
    }

    /// Adds what was proved before and still counts.
    pub(crate) fn carry(&mut self, proof: Proof, caller: Caller, until_ms: i64) {
        self.add(proof, if caller == Caller::Known { By::Deed } else { By::Address }, until_ms);
    }

    /// When the first of what was proved ends.
    pub(crate) fn until_ms(&self) -> i64 {
        self.held.iter().map(|held| held.until_ms).min().unwrap_or(FOR_EVER)
    }

    /// Who asks.
    pub(crate) const fn caller(&self) -> Caller {
        if self.known { Caller::Known } else { Caller::Unknown }
    }

    /// Who asks, by the deliberate proofs alone.
    pub(crate) const fn deliberate_caller(&self) -> Caller {
        if self.known_deliberately { Caller::Known } else { Caller::Unknown }
    }
}

/// What is to be checked, and where its credentials are.
pub(crate) struct Evidence<'e> {
    pub(crate) container: ContainerId,
    pub(crate) gate: &'e Arc<Gate>,
    pub(crate) policy: &'e Policy,
    /// The groups worth checking.
    pub(crate) wants: GroupSet,
    /// Those that say something about the service. `Authorization` is read for these alone:
    /// applications have their own use for it.
    pub(crate) speaking: GroupSet,
    pub(crate) headers: &'e HeaderMap,
    pub(crate) uri: &'e Uri,
    /// How it is asked; nothing where a session is no credential.
    pub(crate) method: Option<&'e http::Method>,
}

/// A check that takes long enough to be made elsewhere.
struct Job {
    proof: Proof,
    by: By,
    what: What,
    key: Key,
}

enum What {
    Password(Credentials),
    Token(Bytes),
}

/// What a look at a request has shown.
struct Look {
    proven: Proven,
    /// What is to be checked elsewhere.
    jobs: Vec<Job>,
    /// Whether no password that was given is known to be right.
    wrong: bool,
}

/// Which of the wanted groups the sender belongs to, if that takes no waiting.
pub(crate) fn known(ask: &Ask<'_>, of: &Evidence<'_>) -> Option<Proven> {
    let Look { proven, jobs, wrong: _ } = look(ask, of);
    jobs.is_empty().then_some(proven)
}

fn look(ask: &Ask<'_>, of: &Evidence<'_>) -> Look {
    let mut proven = Proven::default();
    let mut jobs = Vec::new();
    let mut basic = None;
    let mut wrong = true;
    let mut touched = GroupSet::EMPTY;
    for (proof, method) in methods(of.policy, of.wants) {
        let speaks = of.speaking.contains(proof.group);
        match method {
            Method::Ip(range) => {
                if range.contains(&ask.downstream.peer.ip().to_canonical()) {
                    proven.add(proof, By::Address, FOR_EVER);
                }
            }
            Method::Token { place, value } => {
                let tried = try_token(of, place, value, speaks);
                if let Tried::Held(by) = tried {
                    proven.add(proof, by, FOR_EVER);
                }
                if tried != Tried::Absent {
                    touched.insert(proof.group);
                }
            }
            Method::Jwt { algorithm, sources, key, claims } => {
                touched.insert(proof.group);
                for source in sources {
                    let Some((token, by)) = token_at(of.headers, source, speaks) else { continue };
                    if *algorithm != JwtAlgorithm::Hs256 {
                        let token = What::Token(Bytes::copy_from_slice(token));
                        Job::new(ask, of, proof, by, token).recall(ask, &mut proven, &mut jobs);
                    } else if let Some(valid) =
                        jwt::verify(token, *algorithm, key, claims, ask.worker.now_ms())
                    {
                        // An HMAC costs no more than to look for what is remembered.
                        proven.add(proof, by, valid.until_ms.unwrap_or(FOR_EVER));
                    }
                }
            }
            Method::Password { username, salt, hash } if speaks => {
                touched.insert(proof.group);
                let password = (&**username, &**salt, hash);
                if let Some(until_ms) = session_until(ask, of, proof.group, password) {
                    proven.add(proof, By::Habit, until_ms);
                }
                if let Some(given) = basic.get_or_insert_with(|| Credentials::of(of.headers)) {
                    let job = Job::new(ask, of, proof, By::Habit, What::Password(given.clone()));
                    wrong &= !job.recall(ask, &mut proven, &mut jobs);
                }
            }
            Method::Password { .. } => {}
        }
    }
    proven.bare = of.wants.difference(touched);
    Look { proven, jobs, wrong }
}

/// Which of the wanted groups the sender belongs to.
pub(crate) async fn prove(ask: &Ask<'_>, of: &Evidence<'_>) -> Result<Proven, Failure> {
    let Look { mut proven, jobs, mut wrong } = look(ask, of);
    let asked = jobs.iter().any(|job| matches!(job.what, What::Password(_)));
    // Whoever has given a right one is not guessing.
    if asked
        && wrong
        && let Some(wait) = throttled(ask, of.container)
    {
        return Err(Denied::Attempts { wait }.into());
    }
    for (job, until_ms) in check_elsewhere(ask, of.gate, jobs).await? {
        wrong &= !matches!(job.what, What::Password(_));
        proven.add(job.proof, job.by, until_ms);
    }
    if asked && wrong {
        count_failure(ask, of.container);
    }
    Ok(proven)
}

/// Which ways of password groups a name and a password fit.
pub(crate) async fn passwords(
    ask: &Ask<'_>,
    of: &Evidence<'_>,
    given: &Credentials,
) -> Result<Proven, Failure> {
    if let Some(wait) = throttled(ask, of.container) {
        return Err(Denied::Attempts { wait }.into());
    }
    let is_password = |(_, method): &(Proof, &Method)| matches!(method, Method::Password { .. });
    let methods = methods(of.policy, of.speaking).filter(is_password);
    let jobs =
        methods.map(|(proof, _)| Job::new(ask, of, proof, By::Deed, What::Password(given.clone())));
    let mut proven = Proven::default();
    for (job, until_ms) in check_elsewhere(ask, of.gate, jobs.collect()).await? {
        proven.add(job.proof, job.by, until_ms);
    }
    if proven.held.is_empty() {
        count_failure(ask, of.container);
    }
    Ok(proven)
}

/// The ways to the groups of a set, with their places.
pub(crate) fn methods(policy: &Policy, groups: GroupSet) -> impl Iterator<Item = (Proof, &Method)> {
    let groups = policy.groups().iter().enumerate().filter(move |(at, _)| groups.contains(*at));
    groups.flat_map(|(group, (_, methods))| {
        methods.iter().enumerate().map(move |(method, way)| (Proof { group, method }, way))
    })
}

/// What a session of a password is bound to.
pub(crate) fn session_of<'p>(
    policy: &'p Policy,
    group: usize,
    (username, salt, hash): (&'p str, &'p str, &'p [u8; 32]),
) -> [&'p [u8]; 4] {
    let name = policy.groups().get(group).map_or("", |(name, _)| name.as_str());
    [name.as_bytes(), username.as_bytes(), salt.as_bytes(), hash]
}

/// When the session of the request ends, if it has one.
fn session_until(
    ask: &Ask<'_>,
    of: &Evidence<'_>,
    group: usize,
    password: (&str, &str, &[u8; 32]),
) -> Option<i64> {
    let Found::One(text) = cookies::find(of.headers, SESSION) else { return None };
    if !browser::may_use_session(ask, of.container, of.method?, of.headers) {
        return None;
    }
    let rest = session_of(of.policy, group, password);
    let hostname = ask.hostname.as_str();
    let bound = Bound { hostname, container: of.container, rest: &rest };
    let seal = &ask.worker.guard().shared.seal;
    Some(seal.check(Use::Session, &bound, text, ask.worker.now_ms())?.until_ms)
}

/// What a place holds of a fixed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    /// Nothing, as far as a look at the place itself tells.
    Absent,
    Failed,
    Held(By),
}

fn try_token(of: &Evidence<'_>, place: &Place, value: &str, speaks: bool) -> Tried {
    let same = |given: &[u8]| verify_slices_are_equal(given, value.as_bytes()).is_ok();
    let (holds, by) = match place {
        Place::Header(name) => match field(of.headers, name, speaks) {
            Found::Absent => return Tried::Absent,
            found @ (Found::One(_) | Found::Several) => (found.one().is_some_and(same), By::Deed),
        },
        Place::Cookie(name) => (cookies::find(of.headers, name).one().is_some_and(same), By::Habit),
        Place::Param(name) => {
            let found = query::find(of.uri.query().unwrap_or_default(), name).one();
            (found.is_some_and(|value| same(&value)), By::Deed)
        }
    };
    if holds { Tried::Held(by) } else { Tried::Failed }
}

fn token_at<'h>(headers: &'h HeaderMap, source: &Source, speaks: bool) -> Option<(&'h [u8], By)> {
    match source {
        Source::Header(name) => {
            let field = field(headers, name, speaks).one()?;
            let token = match field.split_at_checked(7) {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
                Some(_) | None => field,
            };
            Some((token.trim_ascii(), By::Deed))
        }
        Source::Cookie(name) => cookies::find(headers, name).one().map(|it| (it, By::Habit)),
    }
}

/// The field of this name, as far as it is read.
fn field<'h>(headers: &'h HeaderMap, name: &str, speaks: bool) -> Found<&'h [u8]> {
    if !speaks && name == header::AUTHORIZATION.as_str() {
        return Found::Absent;
    }
    Found::of(headers.get_all(name).iter().map(HeaderValue::as_bytes))
}

impl Job {
    fn new(ask: &Ask<'_>, of: &Evidence<'_>, proof: Proof, by: By, what: What) -> Self {
        let octets = match &what {
            What::Password(given) => given.as_bytes(),
            What::Token(token) => token,
        };
        let key = ask.worker.guard().key(of.gate.serial, proof, octets);
        Self { proof, by, what, key }
    }

    /// Adds what is remembered of this check, or has it made. Says whether it is known to hold.
    fn recall(self, ask: &Ask<'_>, proven: &mut Proven, jobs: &mut Vec<Self>) -> bool {
        let known = ask.worker.guard().known.borrow().get(&self.key, ask.worker.now_ms());
        match known {
            Some(Outcome::Held { until_ms }) => {
                proven.add(self.proof, self.by, until_ms);
                return true;
            }
            Some(Outcome::Failed) => {}
            None => jobs.push(self),
        }
        false
    }

    /// Until when the credential holds, if it does.
    fn check(&self, policy: &Policy, now_ms: i64) -> Option<i64> {
        let (_, methods) = policy.groups().get(self.proof.group)?;
        match (&self.what, methods.get(self.proof.method)?) {
            (What::Password(given), Method::Password { username, salt, hash }) => {
                given.are(username, salt, hash).then_some(FOR_EVER)
            }
            (What::Token(token), Method::Jwt { algorithm, key, claims, .. }) => {
                let valid = jwt::verify(token, *algorithm, key, claims, now_ms)?;
                Some(valid.until_ms.unwrap_or(FOR_EVER))
            }
            (What::Password(_) | What::Token(_), _) => None,
        }
    }
}

/// Makes the checks on the control runtime, and returns those that held, and until when.
async fn check_elsewhere(
    ask: &Ask<'_>,
    gate: &Arc<Gate>,
    jobs: Vec<Job>,
) -> Result<Vec<(Job, i64)>, Failure> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let guard = ask.worker.guard();
    let turns = Arc::clone(&guard.shared.turns).acquire_owned();
    let Ok(Ok(turn)) = timeout(TURN_MAX, turns).await else {
        ask.worker.metrics().refused(Refused::CredentialChecks);
        return Err(Failure::EdgeBusy);
    };
    let (gate, now_ms) = (Arc::clone(gate), ask.worker.now_ms());
    let checked = ask.worker.deps().control.spawn_blocking(move || {
        let _turn = turn;
        let check = |job: Job| {
            let until_ms = gate.policy.as_ref().and_then(|policy| job.check(policy, now_ms));
            (job, until_ms)
        };
        jobs.into_iter().map(check).collect::<Vec<_>>()
    });
    let checked = checked.await.or(Err(Failure::EdgeBusy))?;
    let mut known = guard.known.borrow_mut();
    let mut held = Vec::new();
    for (job, until_ms) in checked {
        match until_ms {
            Some(until_ms) => {
                let remembered_ms = now_ms.saturating_add(HELD_MS).min(until_ms);
                known.put(job.key, Outcome::Held { until_ms }, remembered_ms);
                held.push((job, until_ms));
            }
            None => known.put(job.key, Outcome::Failed, now_ms.saturating_add(FAILED_MS)),
        }
    }
    Ok(held)
}

fn throttled(ask: &Ask<'_>, container: ContainerId) -> Option<Duration> {
    let key = throttle::Key::new(ask.downstream.peer.ip(), container);
    let wait = ask.worker.guard().shared.throttle().wait(key, ask.worker.now_ms());
    if wait.is_some() {
        ask.worker.metrics().refused(Refused::PasswordFailures);
    }
    wait
}

fn count_failure(ask: &Ask<'_>, container: ContainerId) {
    let key = throttle::Key::new(ask.downstream.peer.ip(), container);
    ask.worker.guard().shared.throttle().failed(key, ask.worker.now_ms());
}

/// A keyed hash of one credential held against one way of one gate.
pub(crate) type Key = [u8; 32];

/// The key under which a check is remembered.
pub(crate) fn key(secret: &[u8; 32], serial: u64, proof: Proof, octets: &[u8]) -> Key {
    let mut hash = Context::new(&SHA256);
    hash.update(secret);
    hash.update(&serial.to_be_bytes());
    for place in [proof.group, proof.method] {
        hash.update(&u64::try_from(place).unwrap_or(u64::MAX).to_be_bytes());
    }
    hash.update(octets);
    let mut key = [0; 32];
    key.copy_from_slice(hash.finish().as_ref());
    key
}

/// What came out of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Held { until_ms: i64 },
    Failed,
}

/// What came out of recent checks, by a keyed hash of what was checked.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// And until when each is remembered.
    checks: HashMap<Key, (Outcome, i64)>,
    /// In the order in which they came.
    order: VecDeque<Key>,
}

impl Known {
    /// The most that are remembered; beyond, the oldest are forgotten first.
    const MAX: usize = 4096;

    fn get(&self, key: &Key, now_ms: i64) -> Option<Outcome> {
        let (outcome, remembered_ms) = self.checks.get(key)?;
        (now_ms < *remembered_ms).then_some(*outcome)
    }

    fn put(&mut self, key: Key, outcome: Outcome, remembered_ms: i64) {
        if self.checks.insert(key, (outcome, remembered_ms)).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > Self::MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.checks.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_credentials_is_bounded_in_time_and_number() {
        let mut known = Known::default();
        let key =
            |number: usize| key(&[1; 32], 7, Proof { group: 0, method: 0 }, &number.to_be_bytes());
        let held = Outcome::Held { until_ms: 5000 };
        known.put(key(0), held, 1000);
        known.put(key(1), Outcome::Failed, 1000);
        assert_eq!(known.get(&key(0), 999), Some(held));
        assert_eq!(known.get(&key(1), 999), Some(Outcome::Failed));
        assert_eq!((known.get(&key(0), 1000), known.get(&key(2), 0)), (None, None));
        for number in 0..Known::MAX + 5 {
            known.put(key(number), held, 1000);
        }
        assert_eq!((known.checks.len(), known.order.len()), (Known::MAX, Known::MAX));
        assert_eq!((known.get(&key(4), 0), known.get(&key(5), 0)), (None, Some(held)));
    }
}
