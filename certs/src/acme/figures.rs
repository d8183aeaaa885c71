//! What is counted of CAs: attempts, and how much of their limits is left.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use gantry_store::Store;

use super::{Authority, budget};

/// What is counted of the CAs of a configuration. Of any other nothing is.
#[derive(Debug, Default)]
pub struct Figures {
    of: BTreeMap<String, Figure>,
}

#[derive(Debug, Default)]
struct Figure {
    tried: AtomicU64,
    issued: AtomicU64,
    failed: AtomicU64,
    /// What is left, by limit.
    left: Mutex<Vec<(&'static str, u64)>>,
}

impl Figures {
    /// Nothing counted yet.
    pub fn new(authorities: &[Authority]) -> Self {
        let of = authorities.iter().map(|it| (it.directory.clone(), Figure::default()));
        Self { of: of.collect() }
    }

    /// A certificate has come of an attempt.
    pub(super) fn issued(&self, directory: &str) {
        if let Some(figure) = self.of.get(directory) {
            figure.tried.fetch_add(1, Relaxed);
            figure.issued.fetch_add(1, Relaxed);
        }
    }

    /// None has.
    pub(super) fn failed(&self, directory: &str) {
        if let Some(figure) = self.of.get(directory) {
            figure.tried.fetch_add(1, Relaxed);
            figure.failed.fetch_add(1, Relaxed);
        }
    }

    /// Looks how much of the limits is left.
    pub(super) async fn look(
        &self,
        authorities: &[Authority],
        store: &Store,
        now_ms: i64,
    ) -> gantry_store::Result<()> {
        for authority in authorities {
            let left = budget::left(&authority.directory, &authority.limits, store, now_ms).await?;
            if let Some(figure) = self.of.get(&authority.directory) {
                *figure.left.lock().unwrap_or_else(PoisonError::into_inner) = left;
            }
        }
        Ok(())
    }

    /// Writes all in the Prometheus text format. Does not block.
    pub(crate) fn render(&self, out: &mut String) {
        type Counter = (&'static str, &'static str, fn(&Figure) -> &AtomicU64);
        const COUNTERS: [Counter; 3] = [
            ("attempts", "Attempts at certificates that have ended.", |it| &it.tried),
            ("issued", "Those that a certificate has come of.", |it| &it.issued),
            ("failures", "Those that none has come of.", |it| &it.failed),
        ];
        // Writing to a string does not fail.
        for (name, help, read) in COUNTERS {
            _ = write!(
                out,
                "# HELP gantry_acme_{name}_total {help}\n# TYPE gantry_acme_{name}_total counter\n"
            );
            for (directory, figure) in &self.of {
                let (ca, value) = (label(directory), read(figure).load(Relaxed));
                _ = writeln!(out, "gantry_acme_{name}_total{{ca=\"{ca}\"}} {value}");
            }
        }
        out.push_str(
            "# HELP gantry_acme_budget_left What may still be asked of a CA now, by limit; where a limit is for \
             each name or domain, of the one with least.\n# TYPE gantry_acme_budget_left gauge\n",
        );
        for (directory, figure) in &self.of {
            let ca = label(directory);
            for (limit, left) in &*figure.left.lock().unwrap_or_else(PoisonError::into_inner) {
                _ = writeln!(
                    out,
                    "gantry_acme_budget_left{{ca=\"{ca}\",limit=\"{limit}\"}} {left}"
                );
            }
        }
    }
}

/// A text as the value of a label.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
