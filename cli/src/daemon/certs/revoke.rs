//! `gantry certs revoke`: has the CA revoke a certificate, and says what became of that and of the next one.

use std::time::Duration;

use gantry_certs::{
    acme::{Reason, RevokeError, await_revoked},
    diagnosis::find,
};
use gantry_model::Chain;
use gantry_store::{CertificateRecord, Issued, Revocation};
use serde::{Deserialize, Serialize};

use super::{Answer, Desk, Entry, Refusal, at};
use crate::daemon::glue;

/// How long a CA may take; what takes longer goes on by itself.
const REVOCATION_MAX: Duration = Duration::from_mins(2);
/// How long one who asks once more is taken to mean the certificate that was revoked before.
const REPEATED_MS: i64 = 24 * 3_600_000;

/// What is to be revoked.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Wish {
    pub(super) name: String,
    /// Only the certificate that has this serial number.
    pub(super) serial: Option<String>,
    pub(super) reason: String,
    /// Even if no other can be had in its place.
    pub(super) force: bool,
}

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
    pub(super) async fn revoke(&self, wish: &Wish) -> Answer {
        let reason = match wish.reason.parse::<Reason>() {
            Ok(reason) => reason,
            Err(error) => return Answer::Refused(Refusal::Failed, format!("reason: {error}")),
        };
        match self.try_revoke(wish, reason).await {
            Ok(answer) => answer,
            Err(error) => Answer::Refused(Refusal::Failed, Chain(&error).to_string()),
        }
    }

    /// Why a certificate is not to be revoked as it was wished, with the hint what to do.
    async fn objection(
        &self,
        wish: &Wish,
        record: &CertificateRecord,
        issued: &Issued,
        now: i64,
    ) -> gantry_store::Result<Option<String>> {
        let (name, serial) = (&record.name, &issued.serial);
        match &wish.serial {
            Some(wanted) if !wanted.eq_ignore_ascii_case(serial) => {
                return Ok(Some(format!(
                    "the certificate {name} has the serial number {serial}, and not {wanted}"
                )));
            }
            Some(_) => {}
            None => {
                let earlier = self.store.revocations().await?.into_iter().find(|it| {
                    it.certificate == *name
                        && it.serial != *serial
                        && it.asked_at_ms > now - REPEATED_MS
                });
                if let Some(earlier) = earlier {
                    let done = earlier.done_at_ms.map_or_else(
                        || "its CA has not heard of that yet".to_owned(),
                        |done| format!("its CA has revoked it at {}", at(done)),
                    );
                    return Ok(Some(format!(
                        "{name} was to be revoked at {}, which was serial {}: {done}, and another one, \
                         serial {serial}, has come in its place; --serial {serial} has that revoked, too",
                        at(earlier.asked_at_ms),
                        earlier.serial
                    )));
                }
            }
        }
        // What is to be revoked already is only asked for once more.
        if wish.force || self.shown.shelf.is_revoked(record) {
            return Ok(None);
        }
        let authorities = self.issuing.authorities();
        let hindrance = if authorities.iter().any(|it| it.directory == issued.directory) {
            let spent = self.spent(authorities, record).await?;
            spent.map(|why| format!("no other could be had in its place: {why}"))
        } else {
            let directory = &issued.directory;
            Some(format!(
                "nobody can ask {directory}, which has issued it and is not configured any more"
            ))
        };
        Ok(hindrance.map(|why| format!("{why}; --force has it shown no more all the same")))
    }

    async fn try_revoke(&self, wish: &Wish, reason: Reason) -> Result<Answer, RevokeError> {
        let name = wish.name.to_ascii_lowercase();
        let name = name.as_str();
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
        let Some(issued) = &record.issued else {
            let why = RevokeError::NotIssued(record.name.clone()).to_string();
            return Ok(Answer::Refused(Refusal::Conflict, why));
        };
        if let Some(why) = self.objection(wish, record, issued, now).await? {
            return Ok(Answer::Refused(Refusal::Conflict, why));
        }
        let serial = Some(&*issued.serial);
        let noted =
            gantry_certs::acme::revoke(&self.store, &record.name, serial, reason, now).await;
        let noted = match noted {
            Ok(noted) => noted,
            Err(error @ RevokeError::Store(_)) => return Err(error),
            Err(error) => return Ok(Answer::Refused(Refusal::Conflict, error.to_string())),
        };
        self.revoked(record, &noted, reason).await
    }

    /// Waits for what comes of a revocation, and of the order for the next certificate.
    async fn revoked(
        &self,
        record: &CertificateRecord,
        noted: &Revocation,
        reason: Reason,
    ) -> Result<Answer, RevokeError> {
        let before = self.store.certificate(&record.name).await?;
        let found = await_revoked(&self.store, noted, REVOCATION_MAX).await?;
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
            serial: noted.serial.clone(),
            reason: reason.to_string(),
            at: at(done),
            replaced_by,
            replacement_error,
        })))
    }
}
