//! How much may be asked of a CA, counted here before it refuses.
//!
//! A CA that has refused is angry for a week; one that is asked later than it could be loses nothing, since
//! renewals begin long before the end.

use gantry_store::{CertificateRecord, Store, Use};
use sha2::{Digest as _, Sha256};
use time::Duration;

use crate::chain;

/// The longest that any limit looks back.
pub(crate) const LOOK_BACK: Duration = Duration::days(7);

/// How far the limits of orders and of failed proofs look back.
const ORDERS_BACK: Duration = Duration::hours(3);
const FAILURES_BACK: Duration = Duration::hours(1);

/// How long orders of customers wait at most when a limit of the whole account seems to be reached.
pub(crate) const CUSTOMERS_HELD_MAX: Duration = Duration::hours(1);
/// The longest that a CA can want to be left alone, with some room for clocks that differ.
const HELD_MAX: Duration = Duration::hours(25);

/// How many orders, failed ones too, a registrable domain of customers gets of a CA in three hours, where that has a
/// limit for orders at all: one domain does not use up what all have.
const ORDERS_OF_DOMAIN: u32 = 20;

/// The limits of a CA. The defaults are those of Let's Encrypt; 0 stands for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// New orders of the account in three hours.
    pub orders: u32,
    /// New certificates for names of one registrable domain in a week; renewals do not count.
    pub domain: u32,
    /// Certificates for exactly the same names in a week.
    pub duplicates: u32,
    /// Failed proofs for a name in an hour.
    pub failures: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { orders: 300, domain: 50, duplicates: 5, failures: 5 }
    }
}

/// A limit that is reached, in words, and when it will be so no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) text: String,
    pub(crate) until_ms: i64,
}

/// What one order costs.
pub(crate) struct Cost<'a> {
    pub(crate) directory: &'a str,
    pub(crate) hostnames: &'a [String],
    /// Whether it renews a certificate for the same names.
    pub(crate) is_renewal: bool,
    /// Whether it is for names of the installation's own. A third of the account's orders is for these alone, and
    /// half is for these and for renewals.
    pub(crate) is_own: bool,
}

const ORDERS: &str = "orders";
const DOMAIN: &str = "domain";
const DUPLICATES: &str = "duplicates";
const FAILURES: &str = "failures";
const DOMAIN_ORDERS: &str = "orders of domain";
/// How often a CA was away while an order went on.
const INTERRUPTED: &str = "interrupted";
/// What a CA wants to be left alone with: everything, orders of customers, those for names of a domain, and those for
/// exactly the same names.
const HELD: &str = "held";
const HELD_CUSTOMERS: &str = "held customers";
const HELD_DOMAIN: &str = "held domain";
const HELD_NAMES: &str = "held names";

/// Whether an order at a CA for what is wanted now renews what is there: a certificate of the same CA for the same
/// names. To any other the CA has given nothing before, and counts it.
pub(crate) fn renews(record: &CertificateRecord, directory: &str) -> bool {
    let issued = record.issued.as_ref().filter(|issued| issued.directory == directory);
    let Some(mut issued) = issued.and_then(|issued| chain::names_of(&issued.chain)) else {
        return false;
    };
    let mut wanted: Vec<_> =
        record.hostnames.iter().map(|name| name.to_ascii_lowercase()).collect();
    for names in [&mut issued, &mut wanted] {
        names.sort();
        names.dedup();
    }
    issued == wanted
}

/// The use that stands for a CA that wants to be left alone altogether.
pub(crate) fn busy(directory: &str) -> Use {
    Use { directory: directory.to_owned(), kind: HELD, subject: String::new() }
}

/// Until when a CA wants to be left alone with a use.
pub(crate) async fn held(
    store: &Store,
    of: &Use,
    now_ms: i64,
) -> gantry_store::Result<Option<i64>> {
    store.acme_use_held(of, now_ms, now_ms + millis(HELD_MAX)).await
}

impl Cost<'_> {
    fn of(&self, kind: &'static str, subject: impl Into<String>) -> Use {
        Use { directory: self.directory.to_owned(), kind, subject: subject.into() }
    }

    fn same_names(&self) -> String {
        let mut sorted = self.hostnames.to_vec();
        sorted.sort();
        hex::encode(Sha256::digest(sorted.join(" ")))
    }

    /// The registrable domains of its names.
    pub(crate) fn domains(&self) -> Vec<String> {
        let mut domains: Vec<String> =
            self.hostnames.iter().map(|name| registrable(name).to_owned()).collect();
        domains.sort();
        domains.dedup();
        domains
    }

    /// What it is counted by, with the limit, and how far back that looks.
    fn counted(&self, limits: &Limits) -> Vec<(Use, u32, Duration)> {
        let orders = match (self.is_own, self.is_renewal) {
            (true, _) => limits.orders,
            (false, true) => of_customers(limits),
            (false, false) => first_of_customers(limits),
        };
        let mut counted = vec![
            (self.of(ORDERS, ""), orders, ORDERS_BACK),
            (self.of(DUPLICATES, self.same_names()), limits.duplicates, LOOK_BACK),
        ];
        if !self.is_own && limits.orders > 0 {
            let domains = self.domains().into_iter();
            counted.extend(
                domains.map(|it| (self.of(DOMAIN_ORDERS, it), ORDERS_OF_DOMAIN, ORDERS_BACK)),
            );
        }
        if !self.is_renewal {
            let domains = self.domains();
            counted.extend(
                domains.into_iter().map(|it| (self.of(DOMAIN, it), limits.domain, LOOK_BACK)),
            );
        }
        let names = self.hostnames.iter();
        counted.extend(names.map(|it| (self.of(FAILURES, it), limits.failures, FAILURES_BACK)));
        counted
    }

    /// What the CA is left alone with when it has refused the order by a limit.
    pub(crate) fn limited(&self) -> Vec<Use> {
        let domains = self.domains().into_iter().map(|it| self.of(HELD_DOMAIN, it));
        domains.chain([self.of_names()]).collect()
    }

    /// Orders for exactly these names.
    pub(crate) fn of_names(&self) -> Use {
        self.of(HELD_NAMES, self.same_names())
    }

    /// Orders of all customers.
    pub(crate) fn of_customers(&self) -> Use {
        self.of(HELD_CUSTOMERS, "")
    }

    /// A CA that was away or busy while an order there went on.
    pub(crate) fn interrupted(directory: &str, url: &str) -> Use {
        Use { directory: directory.to_owned(), kind: INTERRUPTED, subject: url.to_owned() }
    }

    /// What a CA may want to be left alone with that this order is of. What it has said to orders of customers does
    /// not hold the installation's own names up.
    fn holding(&self) -> Vec<Use> {
        let mut holding = vec![busy(self.directory)];
        if self.is_own {
            holding.push(self.of_names());
        } else {
            holding.extend(self.limited());
            holding.push(self.of_customers());
        }
        holding
    }

    /// Until when the CA wants to hear nothing of an order that it has: of that, it has refused a step by a limit.
    /// What it has said to other orders for names of the same domain does not hold this one up.
    pub(crate) async fn check_held(
        &self,
        store: &Store,
        now_ms: i64,
    ) -> gantry_store::Result<Option<Reached>> {
        let one = self.of_names();
        let until_ms = held(store, &one, now_ms).await?;
        Ok(until_ms.map(|until_ms| Reached { text: left_alone(&one), until_ms }))
    }

    /// The first limit that the order would go beyond, if any.
    pub(crate) async fn check(
        &self,
        limits: &Limits,
        store: &Store,
        now_ms: i64,
    ) -> gantry_store::Result<Option<Reached>> {
        for one in self.holding() {
            if let Some(until_ms) = held(store, &one, now_ms).await? {
                return Ok(Some(Reached { text: left_alone(&one), until_ms }));
            }
        }
        for (one, max, back) in self.counted(limits) {
            if max == 0 {
                continue;
            }
            let (count, oldest) = store.acme_uses(&one, now_ms - millis(back), now_ms).await?;
            if count >= u64::from(max) {
                let until_ms = oldest.unwrap_or(now_ms) + millis(back);
                return Ok(Some(Reached { text: reached(&one, max, back), until_ms }));
            }
        }
        Ok(None)
    }

    /// What to note when the order has been placed.
    pub(crate) fn placed(&self) -> Vec<Use> {
        let mut uses = vec![self.of(ORDERS, "")];
        if !self.is_own {
            uses.extend(self.domains().into_iter().map(|it| self.of(DOMAIN_ORDERS, it)));
        }
        uses
    }

    /// What to note when the certificate has come.
    pub(crate) fn issued(&self) -> Vec<Use> {
        let mut uses = vec![self.of(DUPLICATES, self.same_names())];
        if !self.is_renewal {
            uses.extend(self.domains().into_iter().map(|it| self.of(DOMAIN, it)));
        }
        uses
    }

    /// What to note when a name could not be proved.
    pub(crate) fn failed(&self, hostname: &str) -> Vec<Use> {
        vec![self.of(FAILURES, hostname)]
    }
}

/// How many orders of the account customers may use up.
fn of_customers(limits: &Limits) -> u32 {
    limits.orders - limits.orders / 3
}

/// How many of these may be no renewals.
fn first_of_customers(limits: &Limits) -> u32 {
    limits.orders - limits.orders / 2
}

/// How much of each limit of a CA is left, as (limit, left); of a limit for each name, domain or set of names the
/// least. What has no limit is left out.
pub(crate) async fn left(
    directory: &str,
    limits: &Limits,
    store: &Store,
    now_ms: i64,
) -> gantry_store::Result<Vec<(&'static str, u64)>> {
    let mut left = Vec::with_capacity(6);
    for (limit, kind, max, back) in [
        (ORDERS, ORDERS, limits.orders, ORDERS_BACK),
        ("orders_for_customers", ORDERS, of_customers(limits), ORDERS_BACK),
        ("first_orders_for_customers", ORDERS, first_of_customers(limits), ORDERS_BACK),
        (DOMAIN, DOMAIN, limits.domain, LOOK_BACK),
        (DUPLICATES, DUPLICATES, limits.duplicates, LOOK_BACK),
        (FAILURES, FAILURES, limits.failures, FAILURES_BACK),
    ] {
        if max > 0 {
            let used = store.acme_used_most(directory, kind, now_ms - millis(back), now_ms).await?;
            left.push((limit, u64::from(max).saturating_sub(used)));
        }
    }
    Ok(left)
}

fn left_alone(one: &Use) -> String {
    let what = match one.kind {
        HELD => return format!("{} wants to be left alone", one.directory),
        HELD_DOMAIN => format!("names of {}", one.subject),
        HELD_NAMES => "exactly these names".to_owned(),
        _ => "hostnames of customers".to_owned(),
    };
    format!(
        "{} has refused orders for {what} by a limit of its own, and said when to ask again",
        one.directory
    )
}

fn reached(one: &Use, max: u32, back: Duration) -> String {
    let hours = back.whole_hours();
    let what = match one.kind {
        DOMAIN => format!("new certificates for names of {}", one.subject),
        DOMAIN_ORDERS => {
            let (at, domain) = (&one.directory, &one.subject);
            return format!(
                "{at} is asked for at most {max} new orders for names of {domain} within {hours} hours, and was"
            );
        }
        DUPLICATES => "certificates for exactly these names".to_owned(),
        FAILURES => format!("failed proofs for {}", one.subject),
        _ => "new orders".to_owned(),
    };
    format!("{} takes at most {max} {what} within {hours} hours, and had them", one.directory)
}

/// The domain that the CA counts a name by: the one that somebody has registered.
pub(crate) fn registrable(hostname: &str) -> &str {
    let name = hostname.strip_prefix("*.").unwrap_or(hostname);
    psl::domain_str(name).unwrap_or(name)
}

pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.whole_milliseconds()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_counted_by_what_was_registered() {
        assert_eq!(registrable("*.eu.containers.example.com"), "example.com");
        assert_eq!(registrable("shop.example.co.uk"), "example.co.uk");
        assert_eq!(registrable("localhost"), "localhost");
    }

    #[test]
    fn a_renewal_is_one_of_the_same_names_at_the_same_ca() {
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let chain = |of: &[&str]| {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::new(names(of)).unwrap().self_signed(&key).unwrap().pem()
        };
        let mut record = CertificateRecord {
            name: "example.com".to_owned(),
            hostnames: names(&["example.com", "*.example.com"]),
            issued: None,
            due_at_ms: 0,
            asked_at_ms: None,
            attempts: 0,
            error: None,
            version: 1,
            created_at_ms: 0,
            updated_at_ms: 0,
        };
        assert!(!renews(&record, "https://ca/"));
        record.issued = Some(gantry_store::Issued {
            chain: chain(&["*.example.com", "example.com"]),
            key_sealed: Vec::new(),
            serial: "01".to_owned(),
            directory: "https://ca/".to_owned(),
            not_before_ms: 0,
            not_after_ms: 1,
        });
        assert!(renews(&record, "https://ca/"));
        // As after trials with the CA's staging environment, or with the next CA.
        assert!(!renews(&record, "https://staging.ca/"));
        record.hostnames.push("www.example.com".to_owned());
        assert!(!renews(&record, "https://ca/"));
    }

    #[tokio::test]
    async fn what_a_ca_has_refused_holds_the_same_names_and_customers_of_their_domain() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("gantry.db")).await.unwrap();
        let held = async |name: &str, is_own, now| {
            let hostnames = [name.to_owned()];
            let cost =
                Cost { directory: "https://ca/", hostnames: &hostnames, is_renewal: true, is_own };
            cost.check(&Limits::default(), &store, now).await.unwrap().map(|it| it.until_ms)
        };
        let (hostnames, now, hour) = (["a.example.com".to_owned()], 1_000_000, 3_600_000);
        let cost = Cost {
            directory: "https://ca/",
            hostnames: &hostnames,
            is_renewal: false,
            is_own: false,
        };
        store.hold_acme_uses(&cost.limited(), now + 5 * hour).await.unwrap();
        store.hold_acme_uses(&[cost.of_customers()], now + hour).await.unwrap();
        for (name, is_own, until) in [
            ("a.example.com", false, Some(5 * hour)),
            ("b.example.com", false, Some(5 * hour)),
            ("a.example.org", false, Some(hour)),
            ("a.example.com", true, Some(5 * hour)),
            ("b.example.com", true, None),
        ] {
            assert_eq!(held(name, is_own, now).await, until.map(|it| now + it), "{name} {is_own}");
            assert_eq!(held(name, is_own, now + 5 * hour).await, None, "{name} {is_own}");
        }
        store.hold_acme_uses(&[busy("https://ca/")], now + 9 * hour).await.unwrap();
        assert_eq!(held("b.example.com", true, now).await, Some(now + 9 * hour));
    }

    #[tokio::test]
    async fn what_was_noted_counts_until_it_is_old_and_a_renewal_is_no_new_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("gantry.db")).await.unwrap();
        let limits = Limits { domain: 2, duplicates: 0, ..Limits::default() };
        let names = ["a.example.com".to_owned(), "b.example.com".to_owned()];
        let cost =
            Cost { directory: "https://ca/", hostnames: &names, is_renewal: false, is_own: true };
        let (hour, now) = (3_600_000, 100 * 3_600_000);
        for at in [now, now + hour] {
            assert_eq!(cost.check(&limits, &store, at).await.unwrap(), None);
            store.note_acme_uses(&cost.issued(), 0, at).await.unwrap();
        }
        let reached = cost.check(&limits, &store, now + 2 * hour).await.unwrap().unwrap();
        assert!(reached.text.contains("example.com"), "{}", reached.text);
        assert_eq!(reached.until_ms, now + 7 * 24 * hour);
        let renewal = Cost { is_renewal: true, ..cost };
        assert_eq!(renewal.check(&limits, &store, now + 2 * hour).await.unwrap(), None);
        assert_eq!(cost.check(&limits, &store, now + 7 * 24 * hour + 1).await.unwrap(), None);
        // Without a limit nothing is left of it, nor used up.
        let lefts = left("https://ca/", &limits, &store, now + 2 * hour).await.unwrap();
        let want = [
            ("orders", 300),
            ("orders_for_customers", 200),
            ("first_orders_for_customers", 150),
            ("domain", 0),
            ("failures", 5),
        ];
        assert_eq!(lefts, want);
        for _ in 0..5 {
            store.note_acme_uses(&cost.failed("b.example.com"), 0, now).await.unwrap();
        }
        let reached = renewal.check(&limits, &store, now + 1).await.unwrap().unwrap();
        assert!(reached.text.contains("b.example.com"), "{}", reached.text);
    }

    #[tokio::test]
    async fn a_domain_and_first_orders_of_customers_leave_orders_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("gantry.db")).await.unwrap();
        let limits = Limits { orders: 60, ..Limits::default() };
        let now = 1_000_000;
        let hostnames = |domain: &str| [format!("shop.{domain}.test")];
        let reached = async |domain: &str, is_renewal, is_own| {
            let hostnames = hostnames(domain);
            let cost = Cost { directory: "https://ca/", hostnames: &hostnames, is_renewal, is_own };
            cost.check(&limits, &store, now).await.unwrap().map(|it| it.text)
        };
        let place = async |domain: &str, times: usize| {
            let hostnames = hostnames(domain);
            let cost = Cost {
                directory: "https://ca/",
                hostnames: &hostnames,
                is_renewal: false,
                is_own: false,
            };
            for _ in 0..times {
                store.note_acme_uses(&cost.placed(), 0, now).await.unwrap();
            }
        };
        place("one", 19).await;
        assert_eq!(reached("one", false, false).await, None);
        place("one", 1).await;
        for is_renewal in [false, true] {
            let text = reached("one", is_renewal, false).await.unwrap();
            assert!(text.contains("20 new orders for names of one.test"), "{text}");
        }
        assert_eq!(reached("one", false, true).await, None);
        assert_eq!(reached("two", false, false).await, None);
        // Half of the account's orders: what is left is for renewals and for us.
        place("two", 10).await;
        assert!(reached("three", false, false).await.unwrap().contains("at most 30 new orders"));
        assert_eq!(reached("three", true, false).await, None);
        // Two thirds: the rest is for us alone.
        place("three", 10).await;
        assert!(reached("four", true, false).await.unwrap().contains("at most 40 new orders"));
        assert_eq!(reached("four", false, true).await, None);
    }
}
