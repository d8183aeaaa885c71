//! What a CA suggests about when a certificate is renewed (RFC 9773).

use std::time::Duration;

use gantry_model::Chain;
use gantry_store::{CertificateRecord, Lease};
use instant_acme::Error;
use time::OffsetDateTime;

use super::{
    attempt::{identifier, ms},
    failure::Failure,
    plan::Life,
    shared::{Shared, random},
};

/// When a CA is asked next when to renew that does not say, and one that cannot say.
const ASK_AGAIN_MS: i64 = 6 * 3_600_000;
const ASK_LATER_MS: i64 = 24 * 3_600_000;
/// How soon it may be asked again at the earliest.
const ASK_MIN: Duration = Duration::from_mins(1);

impl Shared {
    /// Asks the CA when a certificate shall be renewed.
    pub(super) async fn ask(
        &self,
        record: &CertificateRecord,
        lease: &Lease,
    ) -> Result<(), Failure> {
        let now = self.now_ms();
        let (mut due, mut again) = (record.due_at_ms, now + ASK_AGAIN_MS);
        let issued = record.issued.as_ref();
        let authority = issued
            .and_then(|issued| self.authorities.iter().find(|it| it.directory == issued.directory));
        if let (Some(issued), Some(authority)) = (issued, authority)
            && let Some(identifier) = identifier(&issued.chain)
        {
            match self.at(authority).await {
                Ok(at) => match at.account.renewal_info(&identifier).await {
                    Ok((info, delay)) => {
                        let window = (info.suggested_window.start, info.suggested_window.end);
                        due = suggested(record, issued, window, now).unwrap_or(due);
                        let delay = i64::try_from(delay.max(ASK_MIN).as_millis());
                        again = now + delay.unwrap_or(ASK_LATER_MS).min(ASK_LATER_MS);
                    }
                    Err(Error::Unsupported(_)) => again = now + ASK_LATER_MS,
                    Err(error) => {
                        tracing::info!(
                            name = record.name, error = %Chain(&error), "a CA does not say when to renew"
                        );
                    }
                },
                Err(failure) => tracing::info!(name = record.name, error = failure.text, "no CA"),
            }
        }
        let planned = (record.name.as_str(), record.version);
        if !self.store.plan_certificate(planned, due, again, lease).await? {
            tracing::debug!(
                name = record.name,
                "somebody wants it anew: what the CA suggests waits"
            );
        }
        Ok(())
    }
}

/// When to renew by the window that a CA suggests; what was planned already, if that lies within it.
fn suggested(
    record: &CertificateRecord,
    issued: &gantry_store::Issued,
    window: (OffsetDateTime, OffsetDateTime),
    now: i64,
) -> Option<i64> {
    // After failures the pauses decide.
    if record.attempts > 0 {
        return None;
    }
    let is_within = (ms(window.0)..ms(window.1)).contains(&record.due_at_ms);
    if is_within && record.asked_at_ms.is_some() {
        return None;
    }
    let at = |ms: i64| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok();
    let life = Life { begin: at(issued.not_before_ms)?, end: at(issued.not_after_ms)? };
    life.suggested(window, at(now)?, random()).map(ms)
}
