//! How much may be asked of a CA, counted here before it refuses.
//!
//! A CA that has refused is angry for a week; one that is asked later than it could be loses nothing, since
//! renewals begin long before the end.

use gantry_store::{Store, Use};
use sha2::{Digest as _, Sha256};
use time::Duration;

/// The longest that any limit looks back.
pub(crate) const LOOK_BACK: Duration = Duration::days(7);

/// How far the limits of orders and of failed proofs look back.
const ORDERS_BACK: Duration = Duration::hours(3);
const FAILURES_BACK: Duration = Duration::hours(1);

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
    /// Whether it is for names of the installation's own; a third of the account's orders is for these alone.
    pub(crate) is_own: bool,
}

const ORDERS: &str = "orders";
const DOMAIN: &str = "domain";
const DUPLICATES: &str = "duplicates";
const FAILURES: &str = "failures";

impl Cost<'_> {
    fn of(&self, kind: &'static str, subject: impl Into<String>) -> Use {
        Use { directory: self.directory.to_owned(), kind, subject: subject.into() }
    }

    fn same_names(&self) -> String {
        let mut sorted = self.hostnames.to_vec();
        sorted.sort();
        hex::encode(Sha256::digest(sorted.join(" ")))
    }

    fn domains(&self) -> Vec<String> {
        let mut domains: Vec<String> =
            self.hostnames.iter().map(|name| registrable(name).to_owned()).collect();
        domains.sort();
        domains.dedup();
        domains
    }

    /// What it is counted by, with the limit, and how far back that looks.
    fn counted(&self, limits: &Limits) -> Vec<(Use, u32, Duration)> {
        let orders = if self.is_own { limits.orders } else { limits.orders - limits.orders / 3 };
        let mut counted = vec![
            (self.of(ORDERS, ""), orders, ORDERS_BACK),
            (self.of(DUPLICATES, self.same_names()), limits.duplicates, LOOK_BACK),
        ];
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

    /// The first limit that the order would go beyond, if any.
    pub(crate) async fn check(
        &self,
        limits: &Limits,
        store: &Store,
        now_ms: i64,
    ) -> gantry_store::Result<Option<Reached>> {
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
        vec![self.of(ORDERS, "")]
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

/// How much of each limit of a CA is left, as (limit, left); of a limit for each name, domain or set of names the
/// least. What has no limit is left out.
pub(crate) async fn left(
    directory: &str,
    limits: &Limits,
    store: &Store,
    now_ms: i64,
) -> gantry_store::Result<Vec<(&'static str, u64)>> {
    let of_customers = limits.orders - limits.orders / 3;
    let mut left = Vec::with_capacity(5);
    for (limit, kind, max, back) in [
        (ORDERS, ORDERS, limits.orders, ORDERS_BACK),
        ("orders_for_customers", ORDERS, of_customers, ORDERS_BACK),
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

fn reached(one: &Use, max: u32, back: Duration) -> String {
    let hours = back.whole_hours();
    let what = match one.kind {
        DOMAIN => format!("new certificates for names of {}", one.subject),
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
        let want = [("orders", 300), ("orders_for_customers", 200), ("domain", 0), ("failures", 5)];
        assert_eq!(lefts, want);
        for _ in 0..5 {
            store.note_acme_uses(&cost.failed("b.example.com"), 0, now).await.unwrap();
        }
        let reached = renewal.check(&limits, &store, now + 1).await.unwrap().unwrap();
        assert!(reached.text.contains("b.example.com"), "{}", reached.text);
    }
}
