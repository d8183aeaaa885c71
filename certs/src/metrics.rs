//! What Prometheus is told of certificates. Series have a bound: names of the installation have one each, those of
//! customers are only counted.

use std::{fmt, fmt::Write as _, sync::Arc};

use gantry_store::CertificateRecord;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    Clock, Resolver, Shelf,
    acme::{Figures, ms},
};

/// How soon certificates of customers end, in days, as they are counted.
const ENDING_DAYS: [i64; 6] = [1, 3, 7, 14, 30, 60];
const DAY_MS: i64 = 86_400_000;

/// What is told.
pub struct Metrics {
    /// The names of the installation, `*.` for wildcards.
    pub names: Vec<String>,
    /// What is shown.
    pub resolver: Arc<Resolver>,
    /// What was ordered.
    pub shelf: Arc<Shelf>,
    /// What was asked of CAs.
    pub figures: Arc<Figures>,
    /// The present time.
    pub clock: Clock,
}

impl Metrics {
    /// Writes all in the Prometheus text format. Does not block.
    pub fn render(&self, out: &mut String) {
        let records = self.shelf.records();
        let (own, others): (Vec<_>, Vec<_>) = records
            .iter()
            .partition(|record| record.hostnames.iter().all(|name| self.names.contains(name)));
        self.ends(out);
        gauge(
            out,
            "gantry_certificate_due_timestamp_seconds",
            "When the next attempt at an ordered certificate of the installation is due.",
        );
        // Writing to a string does not fail.
        for record in &own {
            let due = record.due_at_ms / 1000;
            let name = &record.name;
            _ = writeln!(out, "gantry_certificate_due_timestamp_seconds{{name=\"{name}\"}} {due}");
        }
        self.others(out, &others);
        self.figures.render(out);
    }

    /// When what is shown for the names of the installation ends, wherever it comes from.
    fn ends(&self, out: &mut String) {
        const NAME: &str = "gantry_certificate_not_after_timestamp_seconds";
        gauge(out, NAME, "When what is shown for a name of the installation ends.");
        for name in &self.names {
            let Some(shown) = self.resolver.certificate(name) else { continue };
            let leaf = shown.cert.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
            if let Some((_, leaf)) = leaf {
                let end = leaf.validity().not_after.timestamp();
                _ = writeln!(out, "{NAME}{{name=\"{name}\"}} {end}");
            }
        }
    }

    /// Those for customers' names, counted.
    fn others(&self, out: &mut String, records: &[&CertificateRecord]) {
        let now = ms((self.clock)());
        let left = |record: &CertificateRecord| {
            let shown = self.shelf.shown_serial(&record.name)?;
            let issued = record.issued.as_ref().filter(|issued| issued.serial == shown)?;
            Some(issued.not_after_ms - now)
        };
        let lefts: Vec<_> = records.iter().filter_map(|record| left(record)).collect();
        let name = "gantry_certificates_of_customers";
        gauge(out, name, "Ordered certificates for names of customers, by what is shown.");
        let missing = records.len() - lefts.len();
        _ = writeln!(out, "{name}{{state=\"shown\"}} {}", lefts.len());
        _ = writeln!(out, "{name}{{state=\"missing\"}} {missing}");
        let name = "gantry_certificates_of_customers_failing";
        gauge(out, name, "Those of them whose last attempt failed.");
        let failing = records.iter().filter(|record| record.attempts > 0).count();
        _ = writeln!(out, "{name} {failing}");
        let name = "gantry_certificates_of_customers_ending";
        gauge(out, name, "Those of them that are shown and end within so many days.");
        for days in ENDING_DAYS {
            let ending = lefts.iter().filter(|left| **left <= days * DAY_MS).count();
            _ = writeln!(out, "{name}{{days=\"{days}\"}} {ending}");
        }
        if let Some(due) = records.iter().map(|record| record.due_at_ms).min() {
            let name = "gantry_certificates_of_customers_due_timestamp_seconds";
            gauge(out, name, "When the next attempt at one of them is due.");
            _ = writeln!(out, "{name} {}", due / 1000);
        }
    }
}

fn gauge(out: &mut String, name: &str, help: &str) {
    _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n");
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("names", &self.names).finish_non_exhaustive()
    }
}
