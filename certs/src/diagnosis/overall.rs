//! How it stands with all certificates at once: what must be mended is what the installation's own names lack. What
//! becomes of a customer's hostname is up to the customer, whose DNS it is.

use gantry_model::Chain;
use gantry_store::CertificateRecord;
use time::OffsetDateTime;

use super::{Finding, Grounds, Verdict, find, shown_by, written};
use crate::{
    Resolver,
    acme::{is_of, ms},
};

const CHECK: &str = "certificates";

/// Who has less than this part of a certificate's life left has missed its renewal and all that came after.
const PART_LEFT: i32 = 10;

impl Grounds<'_> {
    /// How it stands with the certificates for the installation's own names, and with those of customers.
    pub async fn certificates(&self) -> Vec<Finding> {
        let records = match self.store {
            Some(store) => store.certificates().await,
            None => Ok(Vec::new()),
        };
        let records = match records {
            Ok(records) => records,
            Err(error) => {
                let why = Chain(&error).to_string();
                return vec![Finding::failure(CHECK, why, "the store can be read")];
            }
        };
        let is_own =
            |record: &CertificateRecord| record.hostnames.iter().all(|it| is_of(self.domain, it));
        let (own, others): (Vec<_>, Vec<_>) = records.into_iter().partition(is_own);
        let mut findings = self.resolver.map(|it| self.own(it, &own)).unwrap_or_default();
        findings.extend(self.of_customers(&others));
        findings
    }

    fn own(&self, resolver: &Resolver, records: &[CertificateRecord]) -> Vec<Finding> {
        let mut first_end: Option<OffsetDateTime> = None;
        let mut findings = Vec::new();
        for name in self.wanted {
            let shown = self.shown(name);
            let about = shown_by(resolver, name).map(|(_, about)| about);
            let ends_soon = about.as_ref().is_some_and(|about| {
                about.not_after - self.now < (about.not_after - about.not_before) / PART_LEFT
            });
            if shown.verdict != Verdict::Failure && !ends_soon {
                first_end = first_end.into_iter().chain(about.map(|about| about.not_after)).min();
                continue;
            }
            let has_ended = about.is_some_and(|about| about.not_after <= self.now);
            let soon = match (has_ended, ends_soon) {
                (true, _) => "; that is over",
                (false, true) => "; that is soon",
                (false, false) => "",
            };
            let failed = find(records, name).and_then(|record| record.error.as_ref());
            let why = failed.map(|(why, _)| format!("; the last attempt: {why}"));
            let found = format!("{name}: {}{soon}{}", shown.found, why.unwrap_or_default());
            findings.push(Finding::failure(CHECK, found, looks_at(name)));
        }
        if findings.is_empty() {
            let count = self.wanted.len();
            let until = first_end.map(|end| format!(", until {} or later", written(end)));
            let until = until.unwrap_or_default();
            let found = format!("good ones for all {count} names of the installation{until}");
            findings.push(Finding::ok(CHECK, found));
            let failed = records.iter().filter_map(|it| Some((it, it.error.as_ref()?)));
            findings.extend(failed.map(|(record, (why, _))| {
                let (name, attempts) = (&record.name, record.attempts);
                let found = format!("that for {name} was not renewed, {attempts} times: {why}");
                Finding::warning(CHECK, found, looks_at(name))
            }));
        }
        findings
    }

    fn of_customers(&self, records: &[CertificateRecord]) -> Option<Finding> {
        let has_ended = |it: &&CertificateRecord| {
            it.issued.as_ref().is_some_and(|issued| issued.not_after_ms <= ms(self.now))
        };
        let ended = records.iter().filter(has_ended).count();
        let failed = || records.iter().filter_map(|it| Some((it, it.error.as_ref()?)));
        let found = format!(
            "{} of customers, of which {ended} have ended and {} were not to be had at the last attempt",
            records.len(),
            failed().count()
        );
        Some(match failed().next() {
            Some((record, (why, _))) => {
                let found = format!("{found}, such as {}: {why}", record.name);
                Finding::warning(CHECK, found, looks_at(&record.name))
            }
            None if ended > 0 => {
                let right = "`gantry certs list` shows which; is the clock right?";
                Finding::warning(CHECK, found, right)
            }
            None if records.is_empty() => return None,
            None => Finding::ok(CHECK, found),
        })
    }
}

fn looks_at(name: &str) -> String {
    format!("`gantry doctor '{name}'` looks at what a CA would look at")
}
