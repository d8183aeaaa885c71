//! `gantry certs revoke`: has the CA revoke a certificate, and says what became of that and of the next one.

use std::time::Duration;

use gantry_certs::{
    acme::{Reason, RevokeError, await_revoked},
    diagnosis::find,
};
use gantry_model::Chain;
use serde::{Deserialize, Serialize};

use super::{Answer, Desk, Entry, Refusal, at};
use crate::daemon::glue;

/// How long a CA may take; what takes longer goes on by itself.
const REVOCATION_MAX: Duration = Duration::from_mins(2);

/// A certificate that its CA has revoked.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Revoked {
    pub(super) name: String,
    pub(super) serial: String,
    pub(super) reason: String,
    /// When the CA has done it.
    pub(super) at: String,
    /// What is shown instead.
    pub(super) replaced_by: Option<Entry>,
    /// Why nothing is, in words.
    pub(super) replacement_error: Option<String>,
}

impl Desk {
    pub(super) async fn revoke(&self, name: &str, reason: &str) -> Answer {
        let reason = match reason.parse::<Reason>() {
            Ok(reason) => reason,
            Err(error) => return Answer::Refused(Refusal::Failed, format!("reason: {error}")),
        };
        match self.try_revoke(&name.to_ascii_lowercase(), reason).await {
            Ok(answer) => answer,
            Err(error) => Answer::Refused(Refusal::Failed, Chain(&error).to_string()),
        }
    }

    async fn try_revoke(&self, name: &str, reason: Reason) -> Result<Answer, RevokeError> {
        let records = self.store.certificates().await?;
        // Not what a wildcard stands for: nobody shall revoke more than they have named.
        let is_meant = |hostnames: &[String]| hostnames.iter().any(|of| of == name);
        let record = records.iter().find(|it| it.name == name);
        let record = record.or_else(|| records.iter().find(|it| is_meant(&it.hostnames)));
        if let (None, Some(wider)) = (record, find(&records, name)) {
            let why = format!(
                "{name} has no certificate of its own; to have that revoked which is shown for it, name it: {}",
                wider.name
            );
            return Ok(Answer::Refused(Refusal::Conflict, why));
        }
        let Some(record) = record.filter(|_| !self.issuing.authorities().is_empty()) else {
            let (refusal, why) = self.not_ordered(name);
            return Ok(Answer::Refused(refusal, why));
        };
        let now = glue::now_ms();
        let wish = gantry_certs::acme::revoke(&self.store, &record.name, reason, now).await;
        let wish = match wish {
            Ok(wish) => wish,
            Err(error @ (RevokeError::Unknown(_) | RevokeError::NotIssued(_))) => {
                return Ok(Answer::Refused(Refusal::Conflict, error.to_string()));
            }
            Err(error @ RevokeError::Store(_)) => return Err(error),
        };
        let before = self.store.certificate(&record.name).await?;
        let found = await_revoked(&self.store, &wish, REVOCATION_MAX).await?;
        let Some(done) = found.done_at_ms else {
            let why = found.error.unwrap_or_else(|| "the CA was not asked yet".to_owned());
            let (name, due) = (&record.name, at(found.due_at_ms));
            let why = format!(
                "{name} is shown no more, but its CA has not revoked it: {why}; the next attempt is at {due}"
            );
            return Ok(Answer::Refused(Refusal::Failed, why));
        };
        let (replaced_by, replacement_error) =
            match self.outcome(before.as_ref().unwrap_or(record)).await? {
                Answer::Renewed(entry) => (Some(*entry), None),
                Answer::Refused(_, why) => (None, Some(why)),
                Answer::Listed(_)
                | Answer::Begun { .. }
                | Answer::Issuer { .. }
                | Answer::Revoked(_) => (None, None),
            };
        Ok(Answer::Revoked(Box::new(Revoked {
            name: record.name.clone(),
            serial: wish.serial,
            reason: reason.to_string(),
            at: at(done),
            replaced_by,
            replacement_error,
        })))
    }
}
