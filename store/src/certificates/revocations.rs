//! Revocations: wished for by the operator, made true at the CA by whoever orders certificates.

use std::fmt;

use super::changed;
use crate::{
    Store,
    columns::{self, damaged},
    error::{Error, Result, failed},
    leases::{self, Lease},
    sqlite::Row,
    writer::Tx,
};

/// A certificate that shall not be shown any more, and what its CA has said to that.
#[derive(Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The directory of the CA that has issued it.
    pub directory: String,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
    /// The name of the record that it was of.
    pub certificate: String,
    /// The chain in PEM, the leaf first.
    pub chain: String,
    /// Its key, sealed; absent once the CA has revoked it, and in records of older versions.
    pub key_sealed: Option<Vec<u8>>,
    /// Why, by the codes of RFC 5280, section 5.3.1.
    pub reason: u8,
    /// When it would have ended by itself.
    pub not_after_ms: i64,
    /// When it was wished for.
    pub asked_at_ms: i64,
    /// When the CA has revoked it; absent until then.
    pub done_at_ms: Option<i64>,
    /// Failed attempts.
    pub attempts: u32,
    /// When the next attempt is due.
    pub due_at_ms: i64,
    /// Why the last attempt failed, in words for the operator.
    pub error: Option<String>,
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocation")
            .field("certificate", &self.certificate)
            .field("serial", &self.serial)
            .field("reason", &self.reason)
            .field("done_at_ms", &self.done_at_ms)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Notes that what is shown for a record shall be revoked and replaced: both are due at once. May be
    /// repeated with the same serial number; the reason can be changed until the CA has heard it.
    /// [`Error::NotFound`] if there is no such record, or nothing was issued for it yet; [`Error::Stale`] if
    /// something else is shown by now than the certificate with this serial number.
    pub async fn revoke_certificate(
        &self,
        name: &str,
        serial: Option<&str>,
        reason: u8,
        now_ms: i64,
    ) -> Result<Revocation> {
        let (name, serial) = (name.to_owned(), serial.map(str::to_owned));
        self.write(move |tx| {
            Box::pin(async move {
                let record = super::load(tx, &name).await?.ok_or(Error::NotFound)?;
                let issued = record.issued.ok_or(Error::NotFound)?;
                if serial.is_some_and(|serial| serial != issued.serial) {
                    return Err(Error::Stale);
                }
                sqlx::query(
                    "INSERT INTO certificate_revocations (directory, serial, certificate, chain, \
                     reason, not_after_ms, asked_at_ms, attempts, due_at_ms, key_sealed) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $7, $8) \
                     ON CONFLICT (directory, serial) DO UPDATE SET reason = excluded.reason, \
                     due_at_ms = excluded.due_at_ms, key_sealed = excluded.key_sealed \
                     WHERE certificate_revocations.done_at_ms IS NULL",
                )
                .bind(&issued.directory)
                .bind(&issued.serial)
                .bind(&name)
                .bind(issued.chain)
                .bind(i64::from(reason))
                .bind(issued.not_after_ms)
                .bind(now_ms)
                .bind(issued.key_sealed)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                sqlx::query(
                    "UPDATE certificates SET due_at_ms = $1, attempts = 0, \
                     version = version + 1, updated_at_ms = $1 WHERE name = $2",
                )
                .bind(now_ms)
                .bind(&name)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                changed(tx).await?;
                one(tx, &issued.directory, &issued.serial).await
            })
        })
        .await
    }

    /// All revocations, by CA and serial number; some are of certificates that have ended by themselves since.
    pub async fn revocations(&self) -> Result<Vec<Revocation>> {
        let rows = sqlx::query("SELECT * FROM certificate_revocations ORDER BY directory, serial")
            .fetch_all(self.readers())
            .await
            .map_err(failed)?;
        rows.iter().map(revocation).collect()
    }

    /// Notes that the CA has revoked a certificate; forgets those that have ended by themselves. The lease is
    /// that of the certificate's record.
    pub async fn note_revoked(&self, of: &Revocation, lease: &Lease, now_ms: i64) -> Result<()> {
        let (of, lease) = (of.clone(), lease.clone());
        self.write(move |tx| {
            Box::pin(async move {
                leases::require(tx, &lease).await?;
                sqlx::query(
                    "UPDATE certificate_revocations SET done_at_ms = $1, error = NULL, \
                     key_sealed = NULL WHERE directory = $2 AND serial = $3",
                )
                .bind(now_ms)
                .bind(of.directory)
                .bind(of.serial)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                sqlx::query("DELETE FROM certificate_revocations WHERE not_after_ms < $1")
                    .bind(now_ms)
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                changed(tx).await
            })
        })
        .await
    }

    /// Notes that an attempt to revoke has failed, why, and when the next one is due.
    pub async fn note_failed_revocation(
        &self,
        of: &Revocation,
        error: &str,
        due_at_ms: i64,
        lease: &Lease,
    ) -> Result<()> {
        let (of, error, lease) = (of.clone(), error.to_owned(), lease.clone());
        self.write(move |tx| {
            Box::pin(async move {
                leases::require(tx, &lease).await?;
                sqlx::query(
                    "UPDATE certificate_revocations SET attempts = attempts + 1, error = $1, \
                     due_at_ms = $2 WHERE directory = $3 AND serial = $4",
                )
                .bind(error)
                .bind(due_at_ms)
                .bind(of.directory)
                .bind(of.serial)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                changed(tx).await
            })
        })
        .await
    }
}

async fn one(tx: &mut Tx, directory: &str, serial: &str) -> Result<Revocation> {
    let row =
        sqlx::query("SELECT * FROM certificate_revocations WHERE directory = $1 AND serial = $2")
            .bind(directory)
            .bind(serial)
            .fetch_one(&mut tx.connection)
            .await
            .map_err(failed)?;
    revocation(&row)
}

fn revocation(row: &Row) -> Result<Revocation> {
    let reason: i64 = columns::get(row, "reason")?;
    Ok(Revocation {
        directory: columns::get(row, "directory")?,
        serial: columns::get(row, "serial")?,
        certificate: columns::get(row, "certificate")?,
        chain: columns::get(row, "chain")?,
        key_sealed: columns::get(row, "key_sealed")?,
        reason: u8::try_from(reason).map_err(|_error| damaged("reason", "is no code"))?,
        not_after_ms: columns::get(row, "not_after_ms")?,
        asked_at_ms: columns::get(row, "asked_at_ms")?,
        done_at_ms: columns::get(row, "done_at_ms")?,
        attempts: u32::try_from(columns::count(row, "attempts")?).unwrap_or(u32::MAX),
        due_at_ms: columns::get(row, "due_at_ms")?,
        error: columns::get(row, "error")?,
    })
}
