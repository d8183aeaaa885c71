//! Revocation (RFC 8555, section 7.6): the operator's wish is a record, which takes the certificate off everything
//! that shows it; the issuer tells the CA and orders another one, with another key.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use gantry_model::Chain;
use gantry_store::{Lease, Revocation, Store};
use instant_acme::{Error, RevocationReason, RevocationRequest};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::{
    attempt::key_context,
    budget::millis,
    by_key,
    client::Client,
    failure::{Failure, Kind, type_of},
    plan,
    shared::{REPEATS, Shared, random},
};

/// How often somebody who waits for a CA looks.
const LOOK: Duration = Duration::from_millis(250);

/// Why a certificate is revoked: the reasons of RFC 5280, section 5.3.1, that its holder can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// Nothing is said.
    #[default]
    Unspecified,
    /// Somebody else may have the private key.
    KeyCompromise,
    /// The holder is somebody else now.
    AffiliationChanged,
    /// There is another one.
    Superseded,
    /// The name is used no more.
    CessationOfOperation,
    /// The holder may not have it any more.
    PrivilegeWithdrawn,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// Its code of RFC 5280.
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::PrivilegeWithdrawn => 9,
        }
    }

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key-compromise",
            Self::AffiliationChanged => "affiliation-changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
            Self::PrivilegeWithdrawn => "privilege-withdrawn",
        }
    }

    fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// As the CA hears it; of one that says nothing it hears nothing.
    fn told(self) -> Option<RevocationReason> {
        match self {
            Self::Unspecified => None,
            Self::KeyCompromise => Some(RevocationReason::KeyCompromise),
            Self::AffiliationChanged => Some(RevocationReason::AffiliationChanged),
            Self::Superseded => Some(RevocationReason::Superseded),
            Self::CessationOfOperation => Some(RevocationReason::CessationOfOperation),
            Self::PrivilegeWithdrawn => Some(RevocationReason::PrivilegeWithdrawn),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that is no reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {}, found {word:?}", Reason::ALL.map(Reason::word).join(", "))]
pub struct UnknownReason {
    word: String,
}

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(word: &str) -> Result<Self, UnknownReason> {
        let found = Self::ALL.into_iter().find(|reason| reason.word() == word);
        found.ok_or_else(|| UnknownReason { word: word.to_owned() })
    }
}

/// Why a certificate cannot be revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// No CA was asked for it.
    #[error("there is no certificate {0:?} that was ordered from a CA")]
    Unknown(String),
    /// It was ordered, but has not come yet.
    #[error("no CA has issued a certificate {0:?} yet")]
    NotIssued(String),
    /// Another certificate has come in its place.
    #[error("another certificate {0:?} has come in the place of the one with this serial number")]
    Replaced(String),
    /// The store is away.
    #[error("the store does not answer")]
    Store(#[from] gantry_store::Error),
}

/// Has what is shown for a record of this name revoked and replaced. From now on it is shown no more, here or by
/// any other process of this store within a second; whoever orders certificates asks the CA, until it has done it,
/// and for another certificate at the same time. With a serial number only the certificate that has it, so that a
/// repetition does not revoke what has come in its place.
pub async fn revoke(
    store: &Store,
    name: &str,
    serial: Option<&str>,
    reason: Reason,
    now_ms: i64,
) -> Result<Revocation, RevokeError> {
    match store.revoke_certificate(name, serial, reason.code(), now_ms).await {
        Err(gantry_store::Error::Stale) => Err(RevokeError::Replaced(name.to_owned())),
        Err(gantry_store::Error::NotFound) => Err(match store.certificate(name).await? {
            Some(_) => RevokeError::NotIssued(name.to_owned()),
            None => RevokeError::Unknown(name.to_owned()),
        }),
        other => Ok(other?),
    }
}

/// Waits for at most `patience` until the CA has revoked a certificate or an attempt at that has failed; gives the
/// revocation as it is then.
pub async fn await_revoked(
    store: &Store,
    of: &Revocation,
    patience: Duration,
) -> gantry_store::Result<Revocation> {
    let end = tokio::time::Instant::now() + patience;
    loop {
        let all = store.revocations().await?;
        let found = all
            .into_iter()
            .find(|it| (it.directory.as_str(), it.serial.as_str()) == (&of.directory, &of.serial));
        let found = found.unwrap_or_else(|| of.clone());
        let is_over = found.done_at_ms.is_some() || found.attempts > of.attempts;
        if is_over || tokio::time::Instant::now() >= end {
            return Ok(found);
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Shared {
    /// Tells the CAs of what is to be revoked of a record.
    pub(super) async fn revoke(&self, name: &str, lease: &Lease) -> Result<(), Failure> {
        for one in self.store.revocations().await? {
            let now = self.now_ms();
            let is_over = one.done_at_ms.is_some() || one.not_after_ms <= now;
            if one.certificate != name || is_over || one.due_at_ms > now {
                continue;
            }
            let mut outcome = self.revoke_at_ca(&one).await;
            for _ in 0..REPEATS {
                if !matches!(&outcome, Err(failure) if failure.kind == Kind::Repeat) {
                    break;
                }
                outcome = self.revoke_at_ca(&one).await;
            }
            match outcome {
                Ok(()) => {
                    tracing::info!(name, serial = one.serial, "a certificate was revoked");
                    self.store.note_revoked(&one, lease, self.now_ms()).await?;
                }
                Err(failure) if failure.kind == Kind::Lost => return Err(failure),
                Err(failure) => self.note_failed(&one, &failure, lease).await?,
            }
        }
        Ok(())
    }

    async fn note_failed(
        &self,
        one: &Revocation,
        failure: &Failure,
        lease: &Lease,
    ) -> Result<(), Failure> {
        let planned = self.now_ms() + millis(plan::pause(one.attempts, false, random()));
        let due = failure.not_before_ms.map_or(planned, |least| planned.max(least));
        let (name, serial, error) = (&one.certificate, &one.serial, &failure.text);
        tracing::error!(
            name,
            serial,
            error,
            "a certificate is not shown any more, but not revoked"
        );
        Ok(self.store.note_failed_revocation(one, error, due, lease).await?)
    }

    async fn revoke_at_ca(&self, one: &Revocation) -> Result<(), Failure> {
        let directory = &one.directory;
        let authority = self.authorities.iter().find(|it| it.directory == *directory);
        let authority = authority.ok_or_else(|| {
            Failure::own(format!("{directory}, which has issued it, is not configured any more"))
        })?;
        let leaf = CertificateDer::from_pem_slice(one.chain.as_bytes())
            .map_err(|error| Failure::own(format!("the stored chain: {}", Chain(&error))))?;
        let reason = Reason::of_code(one.reason).and_then(Reason::told);
        let at = self.at(authority).await?;
        let request = RevocationRequest { certificate: &leaf, reason };
        let mut outcome = at.account.revoke(&request).await;
        if refuses(&outcome, &["accountDoesNotExist", "unauthorized"])
            && let Some(key) = &one.key_sealed
        {
            let key = self.seal.open(&key_context(&one.certificate), key)?;
            let client = Client {
                transport: Arc::clone(&authority.transport),
                manners: Arc::clone(&at.manners),
                heard: at.heard.clone(),
            };
            let code = request.reason.map(|_told| one.reason);
            outcome = by_key::revoke(&client, directory, (&leaf, code), &key).await;
        }
        if refuses(&outcome, &["alreadyRevoked"]) {
            return Ok(());
        }
        outcome.map_err(|error| Failure::of(&error, &at.manners))
    }
}

/// Whether a CA refuses for a reason of one of these kinds.
fn refuses(outcome: &Result<(), Error>, kinds: &[&str]) -> bool {
    match outcome {
        Err(Error::Api(problem)) => type_of(problem).is_some_and(|kind| kinds.contains(&kind)),
        Ok(()) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_one_word_and_the_code_of_rfc_5280() {
        for reason in Reason::ALL {
            assert_eq!(reason.word().parse(), Ok(reason));
            assert_eq!(Reason::of_code(reason.code()), Some(reason));
            let told = reason.told().map_or(0, |told| told as u8);
            assert_eq!(told, reason.code(), "{reason}");
        }
        let error = "certificate-hold".parse::<Reason>().unwrap_err().to_string();
        assert!(error.starts_with("must be one of unspecified, key-compromise, "), "{error}");
        assert!(error.ends_with("found \"certificate-hold\""), "{error}");
    }
}
