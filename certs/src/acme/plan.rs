//! When to renew, and when to try again. Functions of values alone.

use std::collections::HashMap;

use gantry_store::CertificateRecord;
use time::{Duration, OffsetDateTime};

use super::budget::registrable;

/// The part of a certificate's life after which it is renewed, if its CA does not say when.
const RENEW_AFTER: f64 = 2.0 / 3.0;
/// The part of its life over which renewals are spread, so that they do not all come at once.
const SPREAD: f64 = 0.05;
/// The first pause after a failure; each further one is twice as long.
const PAUSE: Duration = Duration::minutes(1);
/// The longest pause while a certificate still is valid, and while there is none.
const PAUSE_MAX: Duration = Duration::hours(6);
const PAUSE_MAX_WITHOUT: Duration = Duration::hours(1);

/// The validity of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) begin: OffsetDateTime,
    pub(crate) end: OffsetDateTime,
}

impl Life {
    /// When it shall be renewed, by its age alone. `random` is from 0 to 1.
    pub(crate) fn renewal(self, random: f64) -> OffsetDateTime {
        let whole = self.end - self.begin;
        self.begin + whole * (RENEW_AFTER + SPREAD * random)
    }

    /// When it shall be renewed if its CA suggests a window (RFC 9773, section 4.2): at a random point
    /// of it, now if that has passed. A window that ends after the certificate is none.
    pub(crate) fn suggested(
        self,
        (start, end): (OffsetDateTime, OffsetDateTime),
        now: OffsetDateTime,
        random: f64,
    ) -> Option<OffsetDateTime> {
        if end <= start || end > self.end {
            return None;
        }
        Some((start + (end - start) * random).max(now))
    }
}

/// How long to wait after this many failures in a row. `random` is from 0 to 1.
pub(crate) fn pause(failures: u32, is_shown: bool, random: f64) -> Duration {
    let max = if is_shown { PAUSE_MAX } else { PAUSE_MAX_WITHOUT };
    let doubled = PAUSE * 2_f64.powi(i32::try_from(failures.min(20)).unwrap_or(20));
    doubled.min(max) * (1.0 + 0.2 * random)
}

/// Certificates that are due, in the order in which they are begun: one of each registrable domain in turn, so that
/// whoever has many names does not hold others up; of each turn those first that were attempted the longest ago.
pub(crate) fn in_turn(mut due: Vec<CertificateRecord>) -> Vec<CertificateRecord> {
    due.sort_by_key(|record| {
        let failed = record.error.as_ref().map(|(_, at_ms)| *at_ms);
        let issued = record.issued.as_ref().map(|issued| issued.not_before_ms);
        failed.or(issued).unwrap_or(record.created_at_ms)
    });
    let mut turns = HashMap::new();
    let turn = |record: &CertificateRecord| {
        let name = record.hostnames.first().map_or("", String::as_str);
        let next: &mut usize = turns.entry(registrable(name).to_owned()).or_default();
        *next += 1;
        *next
    };
    let of_turns: Vec<usize> = due.iter().map(turn).collect();
    let mut numbered: Vec<_> = of_turns.into_iter().zip(due).collect();
    numbered.sort_by_key(|(turn, _)| *turn);
    numbered.into_iter().map(|(_, record)| record).collect()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const LIFE: Life =
        Life { begin: datetime!(2027-01-01 0:00 UTC), end: datetime!(2027-04-01 0:00 UTC) };

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_a_little_later() {
        assert_eq!(LIFE.renewal(0.0).date(), datetime!(2027-03-02 0:00 UTC).date());
        assert!(LIFE.renewal(1.0) - LIFE.renewal(0.0) < Duration::days(5));
        assert!(LIFE.renewal(1.0) - LIFE.renewal(0.0) > Duration::days(4));
        // Six days, as of a profile of short lives.
        let short = Life { end: LIFE.begin + Duration::days(6), ..LIFE };
        assert_eq!(short.renewal(0.0), LIFE.begin + Duration::days(4));
    }

    #[test]
    fn a_suggested_window_is_kept_to_unless_it_cannot_be_meant() {
        let window = (datetime!(2027-02-10 0:00 UTC), datetime!(2027-02-12 0:00 UTC));
        let early = datetime!(2027-02-01 0:00 UTC);
        assert_eq!(LIFE.suggested(window, early, 0.5), Some(datetime!(2027-02-11 0:00 UTC)));
        // The CA wants it replaced now: it will be revoked.
        let late = datetime!(2027-02-20 0:00 UTC);
        assert_eq!(LIFE.suggested(window, late, 0.5), Some(late));
        let beyond = (window.0, datetime!(2027-05-01 0:00 UTC));
        assert_eq!(LIFE.suggested(beyond, early, 0.5), None);
        assert_eq!(LIFE.suggested((window.1, window.0), early, 0.5), None);
    }

    #[test]
    fn pauses_double_up_to_a_bound_that_is_lower_while_nothing_is_shown() {
        assert_eq!(pause(0, false, 0.0), Duration::minutes(1));
        assert_eq!(pause(3, true, 0.0), Duration::minutes(8));
        assert_eq!(pause(30, true, 0.0), Duration::hours(6));
        assert_eq!(pause(30, false, 0.0), Duration::hours(1));
        assert!(pause(3, true, 1.0) > pause(3, true, 0.0));
    }

    #[test]
    fn domains_take_turns_and_who_has_waited_longest_is_first() {
        let record = |name: &str, created_at_ms, failed_at_ms: Option<i64>| CertificateRecord {
            name: name.to_owned(),
            hostnames: vec![name.to_owned()],
            issued: None,
            due_at_ms: 0,
            asked_at_ms: None,
            attempts: 0,
            error: failed_at_ms.map(|at_ms| ("no".to_owned(), at_ms)),
            version: 1,
            created_at_ms,
            updated_at_ms: 0,
        };
        let due = vec![
            record("a.many.test", 1, Some(90)),
            record("b.many.test", 2, None),
            record("c.many.test", 3, None),
            record("shop.late.test", 50, None),
            record("shop.one.test", 10, Some(20)),
        ];
        let order: Vec<_> = in_turn(due).into_iter().map(|record| record.name).collect();
        let want = ["b.many.test", "shop.one.test", "shop.late.test", "c.many.test", "a.many.test"];
        assert_eq!(order, want);
    }
}
