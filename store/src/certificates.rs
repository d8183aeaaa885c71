//! Certificates and how they come: records, orders under way, accounts, challenges, uses of a CA.
//!
//! What is secret is sealed before it gets here. What an order writes is written under the lease of
//! its certificate, so that a process that was taken for dead changes nothing any more.

mod orders;
mod revocations;

use std::fmt;

pub use revocations::Revocation;

use crate::{
    Store,
    columns::{self, natural},
    error::{Error, Result, failed},
    leases::{self, Lease},
    sqlite::Row,
    writer::Tx,
};

/// A certificate that is wanted, or was.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateRecord {
    /// What it is called; no two have the same name.
    pub name: String,
    /// The names that it is wanted for, in order, `*.` for wildcards.
    pub hostnames: Vec<String>,
    /// What is shown now, if there is something.
    pub issued: Option<Issued>,
    /// When the next attempt is due: a renewal, or after failures one more try.
    pub due_at_ms: i64,
    /// When the CA shall be asked again when to renew, if it can be asked.
    pub asked_at_ms: Option<i64>,
    /// Failed attempts since the last success.
    pub attempts: u32,
    /// Why the last attempt failed, in words for the operator, and when.
    pub error: Option<(String, i64)>,
    /// Grows with each write.
    pub version: u64,
    /// When it was first wanted.
    pub created_at_ms: i64,
    /// When it was last written.
    pub updated_at_ms: i64,
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The chain in PEM, the leaf first.
    pub chain: String,
    /// The leaf's private key, sealed.
    pub key_sealed: Vec<u8>,
    /// The leaf's serial number in hexadecimal digits.
    pub serial: String,
    /// The directory of the CA that it is from.
    pub directory: String,
    /// Where its validity begins.
    pub not_before_ms: i64,
    /// Where its validity ends.
    pub not_after_ms: i64,
}

/// An order under way, or one whose records are still to be removed.
#[derive(Clone, PartialEq, Eq)]
pub struct OrderRecord {
    /// The name of the certificate that it is for.
    pub certificate: String,
    /// The directory of the CA.
    pub directory: String,
    /// The names that are ordered.
    pub hostnames: Vec<String>,
    /// Where the CA keeps the order; absent until it has answered.
    pub url: Option<String>,
    /// The private key of the certificate to come, sealed.
    pub key_sealed: Vec<u8>,
    /// What was published at the domain name system, as (name, value).
    pub records: Vec<(String, String)>,
    /// Whether only its records are left to be removed.
    pub is_over: bool,
    /// When it was begun.
    pub created_at_ms: i64,
}

/// How a CA asks whether a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeKind {
    /// A file over HTTP (RFC 8555, section 8.3).
    Http,
    /// A certificate within a TLS handshake (RFC 8737).
    TlsAlpn,
}

/// The answer to a challenge.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    /// For which name.
    pub hostname: String,
    /// In which way.
    pub kind: ChallengeKind,
    /// What the CA calls it.
    pub token: String,
    /// The answer.
    pub key_authorization: String,
    /// After this nobody asks any more.
    pub expires_at_ms: i64,
}

/// What a CA counts: a kind of use and what it is counted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The directory of the CA.
    pub directory: String,
    /// What was done.
    pub kind: &'static str,
    /// The account, domain, set of names or hostname that it counts for.
    pub subject: String,
}

/// A key that session tickets are sealed with.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey {
    /// Stands at the beginning of each ticket.
    pub id: [u8; 16],
    /// The key, sealed.
    pub key_sealed: Vec<u8>,
    /// When it was made.
    pub created_at_ms: i64,
}

impl fmt::Debug for CertificateRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateRecord")
            .field("name", &self.name)
            .field("serial", &self.issued.as_ref().map(|issued| &issued.serial))
            .field("due_at_ms", &self.due_at_ms)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("serial", &self.serial).finish_non_exhaustive()
    }
}

impl fmt::Debug for OrderRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderRecord")
            .field("certificate", &self.certificate)
            .field("url", &self.url)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge")
            .field("hostname", &self.hostname)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ChallengeKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
        }
    }
}

/// Certificates.
impl Store {
    /// A number that grows with each write that an edge has to know of: to certificates, challenges and
    /// ticket keys. Cheap enough to be asked several times a second.
    pub async fn certificate_version(&self) -> Result<u64> {
        let version: i64 = sqlx::query_scalar("SELECT version FROM certificate_changes")
            .fetch_one(self.readers())
            .await
            .map_err(failed)?;
        natural(version, "version")
    }

    /// All certificates, by name.
    pub async fn certificates(&self) -> Result<Vec<CertificateRecord>> {
        let rows = sqlx::query("SELECT * FROM certificates ORDER BY name")
            .fetch_all(self.readers())
            .await
            .map_err(failed)?;
        rows.iter().map(certificate).collect()
    }

    /// The certificate of this name, if it is wanted.
    pub async fn certificate(&self, name: &str) -> Result<Option<CertificateRecord>> {
        let row = sqlx::query("SELECT * FROM certificates WHERE name = $1")
            .bind(name)
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map(certificate).transpose()
    }

    /// Notes that a certificate is wanted for these names, due at once if that is new or they are others than
    /// before. Returns the record.
    pub async fn want_certificate(
        &self,
        name: &str,
        hostnames: &[String],
        now_ms: i64,
    ) -> Result<CertificateRecord> {
        let (name, hostnames) = (name.to_owned(), list(hostnames));
        self.write(move |tx| {
            Box::pin(async move {
                let written = sqlx::query(
                    "INSERT INTO certificates (name, hostnames, due_at_ms, attempts, version, \
                     created_at_ms, updated_at_ms) VALUES ($1, $2, $3, 0, 1, $3, $3) \
                     ON CONFLICT (name) DO UPDATE SET hostnames = excluded.hostnames, \
                     due_at_ms = excluded.due_at_ms, attempts = 0, \
                     version = certificates.version + 1, updated_at_ms = excluded.updated_at_ms \
                     WHERE certificates.hostnames <> excluded.hostnames",
                )
                .bind(&name)
                .bind(&hostnames)
                .bind(now_ms)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if written.rows_affected() > 0 {
                    changed(tx).await?;
                }
                load(tx, &name).await?.ok_or(Error::NotFound)
            })
        })
        .await
    }

    /// Makes a certificate due now, whatever its plan was. [`Error::NotFound`] if it is not wanted.
    pub async fn hasten_certificate(&self, name: &str, now_ms: i64) -> Result<()> {
        let name = name.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query(
                    "UPDATE certificates SET due_at_ms = $1, version = version + 1, \
                     updated_at_ms = $1 WHERE name = $2",
                )
                .bind(now_ms)
                .bind(name)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(Error::NotFound);
                }
                changed(tx).await
            })
        })
        .await
    }

    /// Forgets a certificate that is not wanted any more, with its order. The lease is the certificate's.
    pub async fn forget_certificate(&self, name: &str, lease: &Lease) -> Result<()> {
        let (name, lease) = (name.to_owned(), lease.clone());
        self.write(move |tx| {
            Box::pin(async move {
                leases::require(tx, &lease).await?;
                for statement in [
                    "DELETE FROM certificates WHERE name = $1",
                    "DELETE FROM acme_orders WHERE certificate = $1",
                ] {
                    sqlx::query(statement)
                        .bind(&name)
                        .execute(&mut tx.connection)
                        .await
                        .map_err(failed)?;
                }
                changed(tx).await
            })
        })
        .await
    }

    /// Notes what a CA has issued for these names: the certificate is shown, its next renewal is planned, and its
    /// order is over, in one write. [`Error::Stale`] if it is wanted for other names by now, or no more.
    pub async fn put_certificate(
        &self,
        (name, hostnames): (&str, &[String]),
        issued: Issued,
        due_at_ms: i64,
        lease: &Lease,
        now_ms: i64,
    ) -> Result<()> {
        let (name, hostnames, lease) = (name.to_owned(), list(hostnames), lease.clone());
        self.write(move |tx| {
            Box::pin(async move {
                leases::require(tx, &lease).await?;
                let done = sqlx::query(
                    "UPDATE certificates SET chain = $1, key_sealed = $2, serial = $3, \
                     directory = $4, not_before_ms = $5, not_after_ms = $6, due_at_ms = $7, \
                     asked_at_ms = NULL, attempts = 0, error = NULL, error_at_ms = NULL, \
                     version = version + 1, updated_at_ms = $8 \
                     WHERE name = $9 AND hostnames = $10",
                )
                .bind(issued.chain)
                .bind(issued.key_sealed)
                .bind(issued.serial)
                .bind(issued.directory)
                .bind(issued.not_before_ms)
                .bind(issued.not_after_ms)
                .bind(due_at_ms)
                .bind(now_ms)
                .bind(&name)
                .bind(hostnames)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(Error::Stale);
                }
                sqlx::query("UPDATE acme_orders SET is_over = TRUE WHERE certificate = $1")
                    .bind(&name)
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                changed(tx).await
            })
        })
        .await
    }

    /// Plans the next renewal of a certificate anew: the CA has said when it would be right. Says whether that
    /// was done: not if the record has another version than this one, since somebody may want it sooner by now.
    pub async fn plan_certificate(
        &self,
        (name, version): (&str, u64),
        due_at_ms: i64,
        asked_at_ms: i64,
        lease: &Lease,
    ) -> Result<bool> {
        let (name, lease) = (name.to_owned(), lease.clone());
        let version = columns::integer(version);
        self.write(move |tx| {
            Box::pin(async move {
                leases::require(tx, &lease).await?;
                let done = sqlx::query(
                    "UPDATE certificates SET due_at_ms = $1, asked_at_ms = $2, \
                     version = version + 1 WHERE name = $3 AND version = $4",
                )
                .bind(due_at_ms)
                .bind(asked_at_ms)
                .bind(name)
                .bind(version)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                changed(tx).await?;
                Ok(true)
            })
        })
        .await
    }

    /// Notes that an attempt has failed, why, and when the next one is due: not later than somebody wants it who has
    /// written to the record since it had this version.
    pub async fn note_failed_certificate(
        &self,
        (name, version): (&str, u64),
        error: &str,
        due_at_ms: i64,
        lease: &Lease,
        now_ms: i64,
    ) -> Result<()> {
        let (name, error, lease) = (name.to_owned(), error.to_owned(), lease.clone());
        let version = columns::integer(version);
        self.write(move |tx| {
            Box::pin(async move {
                leases::require(tx, &lease).await?;
                sqlx::query(
                    "UPDATE certificates SET attempts = attempts + 1, error = $1, \
                     error_at_ms = $2, due_at_ms = CASE WHEN version = $5 OR due_at_ms > $3 \
                     THEN $3 ELSE due_at_ms END, version = version + 1, \
                     updated_at_ms = $2 WHERE name = $4",
                )
                .bind(error)
                .bind(now_ms)
                .bind(due_at_ms)
                .bind(name)
                .bind(version)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                changed(tx).await
            })
        })
        .await
    }
}

/// Keys of session tickets.
impl Store {
    /// The keys, the newest first.
    pub async fn ticket_keys(&self) -> Result<Vec<TicketKey>> {
        let rows = sqlx::query("SELECT * FROM ticket_keys ORDER BY created_at_ms DESC, id")
            .fetch_all(self.readers())
            .await
            .map_err(failed)?;
        rows.iter().map(ticket_key).collect()
    }

    /// Adds a key, unless there is one that was made after `newer_than_ms`, and drops those made before
    /// `older_than_ms`, or after `latest_ms`.
    pub async fn rotate_ticket_keys(
        &self,
        key: &TicketKey,
        newer_than_ms: i64,
        older_than_ms: i64,
        latest_ms: i64,
    ) -> Result<()> {
        let key = key.clone();
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "DELETE FROM ticket_keys WHERE created_at_ms < $1 OR created_at_ms > $2",
                )
                .bind(older_than_ms)
                // Made while the clock was ahead: it would seal everything until then.
                .bind(latest_ms)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                let done = sqlx::query(
                    "INSERT INTO ticket_keys (id, key_sealed, created_at_ms) SELECT $1, $2, $3 \
                     WHERE NOT EXISTS (SELECT 1 FROM ticket_keys WHERE created_at_ms > $4)",
                )
                .bind(key.id.as_slice())
                .bind(key.key_sealed)
                .bind(key.created_at_ms)
                .bind(newer_than_ms)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if done.rows_affected() > 0 { changed(tx).await } else { Ok(()) }
            })
        })
        .await
    }
}

pub(super) async fn changed(tx: &mut Tx) -> Result<()> {
    sqlx::query("UPDATE certificate_changes SET version = version + 1")
        .execute(&mut tx.connection)
        .await
        .map(drop)
        .map_err(failed)
}

async fn load(tx: &mut Tx, name: &str) -> Result<Option<CertificateRecord>> {
    let row = sqlx::query("SELECT * FROM certificates WHERE name = $1")
        .bind(name)
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(failed)?;
    row.as_ref().map(certificate).transpose()
}

/// Names never hold a blank.
pub(super) fn list(hostnames: &[String]) -> String {
    hostnames.join(" ")
}

pub(super) fn unlist(text: &str) -> Vec<String> {
    text.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn certificate(row: &Row) -> Result<CertificateRecord> {
    let chain: Option<String> = columns::get(row, "chain")?;
    let issued = match chain {
        None => None,
        Some(chain) => Some(Issued {
            chain,
            key_sealed: columns::get(row, "key_sealed")?,
            serial: columns::get(row, "serial")?,
            directory: columns::get(row, "directory")?,
            not_before_ms: columns::get(row, "not_before_ms")?,
            not_after_ms: columns::get(row, "not_after_ms")?,
        }),
    };
    let error: Option<String> = columns::get(row, "error")?;
    let error_at_ms: Option<i64> = columns::get(row, "error_at_ms")?;
    Ok(CertificateRecord {
        name: columns::get(row, "name")?,
        hostnames: unlist(columns::get(row, "hostnames")?),
        issued,
        due_at_ms: columns::get(row, "due_at_ms")?,
        asked_at_ms: columns::get(row, "asked_at_ms")?,
        attempts: u32::try_from(columns::count(row, "attempts")?).unwrap_or(u32::MAX),
        error: error.zip(error_at_ms),
        version: columns::count(row, "version")?,
        created_at_ms: columns::get(row, "created_at_ms")?,
        updated_at_ms: columns::get(row, "updated_at_ms")?,
    })
}

fn ticket_key(row: &Row) -> Result<TicketKey> {
    Ok(TicketKey {
        id: columns::octets(row, "id")?,
        key_sealed: columns::get(row, "key_sealed")?,
        created_at_ms: columns::get(row, "created_at_ms")?,
    })
}
