//! What owners hear of visits by SSH: events of their containers.
//!
//! Only whoever has proved to have a container's key makes any, and never more than a few a minute: of each
//! container, the first [`BURST`] beginnings are told one by one, and then one each minute, with their ends;
//! refusals likewise. What is not told one by one is counted, and told as one event when the minute is over.
//! Nothing waits for the store: events of a second are written together, and when so many wait that a queue
//! is full, those that come are in the audit log alone.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use gantry_model::{Chain, ContainerId, ssh::KeyFingerprint};
use gantry_store::VisitTold;
use serde_json::json;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, controller::Controller};

/// Beginnings, and refusals, of one container that are told one by one, whatever came before.
const BURST: u32 = 20;
/// So often another one is, and what is counted is told, in milliseconds.
const MINUTE_MS: i64 = 60_000;
/// How often events are written.
const PERIOD: Duration = Duration::from_secs(1);
/// Visits that wait to be looked at.
const QUEUE_MAX: usize = 4096;
/// Events in one write.
const WRITE_MAX: usize = 256;

/// Somebody who has proved to have the key of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// The connection's number, of no other one of this process.
    pub connection: u64,
    /// The container.
    pub container: ContainerId,
    /// The key.
    pub key: KeyFingerprint,
    /// The login name.
    pub user: String,
    /// Where it comes from.
    pub address: IpAddr,
}

/// What came of a visit.
#[derive(Clone, Debug, PartialEq)]
pub enum Visit {
    /// It has begun.
    Begun,
    /// The visitor was not let in, for this reason.
    Refused(String),
    /// It is over.
    Ended {
        /// How long it lasted.
        lasted: Duration,
        /// Octets from the client.
        received: u64,
        /// Octets to the client.
        sent: u64,
        /// Why it was ended from here, if it was.
        why: Option<&'static str>,
    },
}

/// Takes visits; never waits.
#[derive(Clone, Debug)]
pub struct VisitSender {
    queue: mpsc::Sender<(Visitor, Visit, i64)>,
    clock: Clock,
}

impl VisitSender {
    /// Has a visit told.
    pub fn send(&self, visitor: Visitor, visit: Visit) {
        let container = visitor.container;
        if self.queue.try_send((visitor, visit, self.clock.now_ms())).is_err() {
            tracing::warn!(%container, "a visit by SSH is told in the audit log alone");
        }
    }
}

/// Tells owners of visits.
#[derive(Debug)]
pub struct VisitTeller {
    control: Controller,
    queue: mpsc::Receiver<(Visitor, Visit, i64)>,
    book: Book,
}

impl VisitTeller {
    /// One, and what it gets visits by.
    pub fn new(control: Controller) -> (VisitSender, Self) {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let clock = control.clock().clone();
        let book = Book { run: clock.now_ms(), pages: HashMap::new() };
        (VisitSender { queue: sender, clock }, Self { control, queue, book })
    }

    /// Tells of visits until `end`, and then of what has come before it.
    pub async fn run(mut self, end: CancellationToken) {
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = end.cancelled() => break,
                _ = period.tick() => {
                    told.extend(self.book.due(self.control.now_ms()));
                    self.write(&mut told).await;
                }
                heard = self.queue.recv(), if told.len() < WRITE_MAX => match heard {
                    Some((visitor, visit, at_ms)) => {
                        told.extend(self.book.hear(&visitor, &visit, at_ms));
                    }
                    None => break,
                },
            }
        }
        while let Ok((visitor, visit, at_ms)) = self.queue.try_recv() {
            told.extend(self.book.hear(&visitor, &visit, at_ms));
        }
        told.extend(self.book.due(i64::MAX));
        self.write(&mut told).await;
    }

    async fn write(&self, told: &mut Vec<VisitTold>) {
        if told.is_empty() {
            return;
        }
        let count = told.len();
        if let Err(error) = self.control.store().tell_visits(std::mem::take(told)).await {
            tracing::error!(count, error = %Chain(&error), "owners are not told of visits by SSH");
        }
    }
}

/// What was told of, and what was not yet.
#[derive(Debug)]
struct Book {
    /// Tells connections of this run of the process from those of others, whose numbers are the same.
    run: i64,
    pages: HashMap<ContainerId, Page>,
}

/// Of one container.
#[derive(Debug, Default)]
struct Page {
    begun: Allowance,
    refused: Allowance,
    /// Connections whose beginnings were told.
    told: HashSet<u64>,
    untold: Untold,
}

#[derive(Debug, Default)]
struct Allowance {
    /// How many were told one by one and not made up for by time.
    spent: u32,
    /// From when the next minute counts.
    since_ms: i64,
}

#[derive(Debug, Default)]
struct Untold {
    since_ms: Option<i64>,
    begun: u64,
    ended: u64,
    refused: u64,
}

impl Allowance {
    /// Whether another one may be told.
    fn take(&mut self, now_ms: i64) -> bool {
        self.recover(now_ms);
        if self.spent == BURST {
            return false;
        }
        self.spent += 1;
        true
    }

    fn recover(&mut self, now_ms: i64) {
        let minutes = now_ms.saturating_sub(self.since_ms).max(0) / MINUTE_MS;
        self.spent = self.spent.saturating_sub(u32::try_from(minutes).unwrap_or(u32::MAX));
        self.since_ms = if self.spent == 0 { now_ms } else { self.since_ms + minutes * MINUTE_MS };
    }
}

impl Book {
    /// Takes a visit in; returns what is to be told now.
    fn hear(&mut self, visitor: &Visitor, visit: &Visit, now_ms: i64) -> Option<VisitTold> {
        let page = self.pages.entry(visitor.container).or_default();
        let (is_told, count) = match visit {
            Visit::Begun => {
                let is_told = page.begun.take(now_ms);
                if is_told {
                    page.told.insert(visitor.connection);
                }
                (is_told, &mut page.untold.begun)
            }
            // Told if its beginning was, so that none seems to last for ever.
            Visit::Ended { .. } => (page.told.remove(&visitor.connection), &mut page.untold.ended),
            Visit::Refused(_) => (page.refused.take(now_ms), &mut page.untold.refused),
        };
        if !is_told {
            *count += 1;
            page.untold.since_ms.get_or_insert(now_ms);
            return None;
        }
        let mut payload = vec![
            ("connection_id", json!(format!("{:x}-{}", self.run, visitor.connection))),
            ("ip_address", json!(visitor.address.to_string())),
            ("user", json!(visitor.user)),
            ("key_fingerprint", json!(visitor.key.to_string())),
        ];
        let kind = match visit {
            Visit::Begun => "container.ssh.begun",
            Visit::Refused(why) => {
                payload.push(("reason", json!(why)));
                "container.ssh.refused"
            }
            Visit::Ended { lasted, received, sent, why } => {
                let ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
                payload.extend([
                    ("duration_ms", json!(ms)),
                    ("received_bytes", json!(received)),
                    ("sent_bytes", json!(sent)),
                    ("reason", json!(why)),
                ]);
                "container.ssh.ended"
            }
        };
        Some(VisitTold { container: visitor.container, kind, payload, at_ms: now_ms })
    }

    /// What was counted for a minute, and forgets containers of which there is nothing to remember.
    fn due(&mut self, now_ms: i64) -> Vec<VisitTold> {
        let mut due = Vec::new();
        self.pages.retain(|container, page| {
            let since_ms = page.untold.since_ms.unwrap_or(now_ms);
            if page.untold.since_ms.is_some() && now_ms.saturating_sub(since_ms) >= MINUTE_MS {
                let Untold { begun, ended, refused, .. } = std::mem::take(&mut page.untold);
                let counts = [("begun", begun), ("ended", ended), ("refused", refused)];
                due.push(VisitTold {
                    container: *container,
                    kind: "container.ssh.more",
                    payload: counts.map(|(name, count)| (name, json!(count))).to_vec(),
                    at_ms: now_ms.min(since_ms.saturating_add(MINUTE_MS)),
                });
            }
            page.begun.recover(now_ms);
            page.refused.recover(now_ms);
            page.untold.since_ms.is_some()
                || !page.told.is_empty()
                || page.begun.spent + page.refused.spent > 0
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const CONTAINER: ContainerId = ContainerId::from_bytes([1; 12]);
    const ENDED: Visit =
        Visit::Ended { lasted: Duration::from_millis(1500), received: 7, sent: 8, why: None };

    fn book() -> Book {
        Book { run: 255, pages: HashMap::new() }
    }

    fn visitor(connection: u64) -> Visitor {
        Visitor {
            connection,
            container: CONTAINER,
            key: KeyFingerprint([7; 32]),
            user: "root".to_owned(),
            address: "192.0.2.1".parse().unwrap(),
        }
    }

    fn kinds(told: &[VisitTold]) -> Vec<&str> {
        told.iter().map(|told| told.kind).collect()
    }

    #[test]
    fn a_visit_is_told_from_its_beginning_to_its_end() {
        let mut book = book();
        let begun = book.hear(&visitor(3), &Visit::Begun, 1000).unwrap();
        assert_eq!(
            (begun.kind, begun.container, begun.at_ms),
            ("container.ssh.begun", CONTAINER, 1000)
        );
        let key = KeyFingerprint([7; 32]).to_string();
        let mut want = vec![
            ("connection_id", json!("ff-3")),
            ("ip_address", json!("192.0.2.1")),
            ("user", json!("root")),
            ("key_fingerprint", json!(key)),
        ];
        assert_eq!(begun.payload, want);
        let ended = book.hear(&visitor(3), &ENDED, 2500).unwrap();
        let figures = [("duration_ms", 1500), ("received_bytes", 7), ("sent_bytes", 8)];
        want.extend(figures.map(|(name, value)| (name, json!(value))));
        want.push(("reason", Value::Null));
        assert_eq!((ended.kind, ended.payload), ("container.ssh.ended", want));
        // Nothing is left once time has made up for it.
        assert_eq!(book.due(2500 + MINUTE_MS), []);
        assert!(book.pages.is_empty());
    }

    #[test]
    fn a_flood_is_told_in_a_few_events_and_all_of_it_counts() {
        let mut book = book();
        let why = Visit::Refused("not from there".to_owned());
        let mut told = Vec::new();
        let (mut begun, mut ended, mut refused) = (0, 0, 0);
        // An hour, ten a second.
        for tenth in 0..36_000_u32 {
            let now_ms = i64::from(tenth) * 100;
            told.extend(book.hear(&visitor(tenth.into()), &Visit::Begun, now_ms));
            told.extend(book.hear(&visitor(tenth.into()), &ENDED, now_ms));
            told.extend(book.hear(&visitor(0), &why, now_ms));
            told.extend(book.due(now_ms));
        }
        told.extend(book.due(i64::MAX));
        assert!(told.len() < 4 * 60 + 4 * BURST as usize, "{}", told.len());
        for told in &told {
            let count = |name: &str| {
                let found = told.payload.iter().find(|(known, _)| *known == name);
                found.and_then(|(_, count)| count.as_u64()).unwrap_or(0)
            };
            match told.kind {
                "container.ssh.begun" => begun += 1,
                "container.ssh.ended" => ended += 1,
                "container.ssh.refused" => refused += 1,
                _ => {
                    begun += count("begun");
                    ended += count("ended");
                    refused += count("refused");
                }
            }
        }
        assert_eq!((begun, ended, refused), (36_000, 36_000, 36_000));
        assert!(book.pages.is_empty());
    }

    #[test]
    fn an_end_is_told_if_its_beginning_was() {
        let mut book = book();
        for connection in 0..u64::from(BURST) {
            assert!(book.hear(&visitor(connection), &Visit::Begun, 0).is_some());
        }
        assert_eq!(book.hear(&visitor(99), &Visit::Begun, 0), None);
        // The quiet ones end first; much later all of the others.
        assert_eq!(book.hear(&visitor(99), &ENDED, 10), None);
        assert_eq!(kinds(&book.due(MINUTE_MS)), ["container.ssh.more"]);
        for connection in 0..u64::from(BURST) {
            assert!(book.hear(&visitor(connection), &ENDED, MINUTE_MS).is_some());
        }
        // Refusals have an allowance of their own.
        let why = Visit::Refused("not from there".to_owned());
        assert!(book.hear(&visitor(100), &why, MINUTE_MS).is_some());
    }
}
