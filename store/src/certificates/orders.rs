//! Orders, accounts, challenges, and what was asked of a CA.

use super::{Challenge, ChallengeKind, OrderRecord, Use, changed, list, unlist};
use crate::{
    Store,
    columns::{self, damaged},
    error::{Error, Result, failed},
    leases::{self, Lease},
    sqlite::Row,
};

impl Store {
    /// The order of a certificate, if one is under way or its records are not removed yet.
    pub async fn acme_order(&self, certificate: &str) -> Result<Option<OrderRecord>> {
        let row = sqlx::query("SELECT * FROM acme_orders WHERE certificate = $1")
            .bind(certificate)
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map(order).transpose()
    }

    /// The names of certificates that have an order.
    pub async fn acme_orders(&self) -> Result<Vec<String>> {
        sqlx::query_scalar("SELECT certificate FROM acme_orders ORDER BY certificate")
            .fetch_all(self.readers())
            .await
            .map_err(failed)
    }

    /// Writes an order, new or not.
    pub async fn put_acme_order(&self, order: &OrderRecord, lease: &Lease) -> Result<()> {
        let (order, lease) = (order.clone(), lease.clone());
        self.write(move |tx| {
            Box::pin(async move {
                leases::require(tx, &lease).await?;
                let records = serde_json::to_string(&order.records)
                    .map_err(|error| damaged("records", &error.to_string()))?;
                sqlx::query(
                    "INSERT INTO acme_orders (certificate, directory, hostnames, url, key_sealed, \
                     records, is_over, created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
                     ON CONFLICT (certificate) DO UPDATE SET directory = excluded.directory, \
                     hostnames = excluded.hostnames, url = excluded.url, \
                     key_sealed = excluded.key_sealed, records = excluded.records, \
                     is_over = excluded.is_over, created_at_ms = excluded.created_at_ms",
                )
                .bind(order.certificate)
                .bind(order.directory)
                .bind(list(&order.hostnames))
                .bind(order.url)
                .bind(order.key_sealed)
                .bind(records)
                .bind(order.is_over)
                .bind(order.created_at_ms)
                .execute(&mut tx.connection)
                .await
                .map(drop)
                .map_err(failed)
            })
        })
        .await
    }

    /// Forgets an order: nothing of it is left.
    pub async fn remove_acme_order(&self, certificate: &str, lease: &Lease) -> Result<()> {
        let (certificate, lease) = (certificate.to_owned(), lease.clone());
        self.write(move |tx| {
            Box::pin(async move {
                leases::require(tx, &lease).await?;
                sqlx::query("DELETE FROM acme_orders WHERE certificate = $1")
                    .bind(certificate)
                    .execute(&mut tx.connection)
                    .await
                    .map(drop)
                    .map_err(failed)
            })
        })
        .await
    }

    /// Removes the order of a certificate if it is damaged, so that another one can be placed; says whether it was.
    /// Who has the certificate's lease cannot go on with such an order either.
    pub async fn remove_damaged_acme_order(&self, certificate: &str) -> Result<bool> {
        let certificate = certificate.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let row = sqlx::query("SELECT * FROM acme_orders WHERE certificate = $1")
                    .bind(&certificate)
                    .fetch_optional(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                match row.as_ref().map(order) {
                    Some(Err(Error::Corrupt { .. })) => {}
                    Some(Err(other)) => return Err(other),
                    Some(Ok(_)) | None => return Ok(false),
                }
                sqlx::query("DELETE FROM acme_orders WHERE certificate = $1")
                    .bind(certificate)
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                Ok(true)
            })
        })
        .await
    }

    /// The sealed credentials of the account at a CA, and when it was made there, if there is one.
    pub async fn acme_account(&self, directory: &str) -> Result<Option<(Vec<u8>, i64)>> {
        sqlx::query_as(
            "SELECT credentials_sealed, created_at_ms FROM acme_accounts WHERE directory = $1",
        )
        .bind(directory)
        .fetch_optional(self.readers())
        .await
        .map_err(failed)
    }

    /// Writes the sealed credentials of a new account at a CA, in the place of an older one. The lease is that
    /// of the account.
    pub async fn put_acme_account(
        &self,
        directory: &str,
        credentials: &[u8],
        lease: &Lease,
        now_ms: i64,
    ) -> Result<()> {
        let (directory, credentials) = (directory.to_owned(), credentials.to_vec());
        let lease = lease.clone();
        self.write(move |tx| {
            Box::pin(async move {
                leases::require(tx, &lease).await?;
                sqlx::query(
                    "INSERT INTO acme_accounts (directory, credentials_sealed, created_at_ms) \
                     VALUES ($1, $2, $3) ON CONFLICT (directory) DO UPDATE SET \
                     credentials_sealed = excluded.credentials_sealed, \
                     created_at_ms = excluded.created_at_ms",
                )
                .bind(directory)
                .bind(credentials)
                .bind(now_ms)
                .execute(&mut tx.connection)
                .await
                .map(drop)
                .map_err(failed)
            })
        })
        .await
    }

    /// The answers that edges have to give now.
    pub async fn acme_challenges(&self, now_ms: i64) -> Result<Vec<Challenge>> {
        let rows = sqlx::query("SELECT * FROM acme_challenges WHERE expires_at_ms > $1")
            .bind(now_ms)
            .fetch_all(self.readers())
            .await
            .map_err(failed)?;
        rows.iter().map(challenge).collect()
    }

    /// Adds an answer, in the place of an older one for the same name and kind; drops what has expired. The
    /// lease is that of the certificate.
    pub async fn put_acme_challenge(
        &self,
        challenge: &Challenge,
        lease: &Lease,
        now_ms: i64,
    ) -> Result<()> {
        let (challenge, lease) = (challenge.clone(), lease.clone());
        self.write(move |tx| {
            Box::pin(async move {
                leases::require(tx, &lease).await?;
                sqlx::query("DELETE FROM acme_challenges WHERE expires_at_ms <= $1")
                    .bind(now_ms)
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                sqlx::query(
                    "INSERT INTO acme_challenges (hostname, kind, token, key_authorization, \
                     expires_at_ms) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (hostname, kind) \
                     DO UPDATE SET token = excluded.token, \
                     key_authorization = excluded.key_authorization, \
                     expires_at_ms = excluded.expires_at_ms",
                )
                .bind(challenge.hostname)
                .bind(challenge.kind.word())
                .bind(challenge.token)
                .bind(challenge.key_authorization)
                .bind(challenge.expires_at_ms)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                changed(tx).await
            })
        })
        .await
    }

    /// Takes the answers for a name away. The lease is that of the certificate.
    pub async fn remove_acme_challenges(&self, hostname: &str, lease: &Lease) -> Result<()> {
        let (hostname, lease) = (hostname.to_owned(), lease.clone());
        self.write(move |tx| {
            Box::pin(async move {
                leases::require(tx, &lease).await?;
                let done = sqlx::query("DELETE FROM acme_challenges WHERE hostname = $1")
                    .bind(hostname)
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                if done.rows_affected() > 0 { changed(tx).await } else { Ok(()) }
            })
        })
        .await
    }

    /// Notes uses of a CA, and forgets those of before `since_ms`.
    pub async fn note_acme_uses(&self, uses: &[Use], since_ms: i64, now_ms: i64) -> Result<()> {
        let uses = uses.to_vec();
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query("DELETE FROM acme_uses WHERE at_ms < $1")
                    .bind(since_ms)
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                for one in uses {
                    sqlx::query(
                        "INSERT INTO acme_uses (directory, kind, subject, at_ms) \
                         VALUES ($1, $2, $3, $4)",
                    )
                    .bind(one.directory)
                    .bind(one.kind)
                    .bind(one.subject)
                    .bind(now_ms)
                    .execute(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Notes until when a CA wants to be left alone with each of these uses, in the place of what was noted before.
    pub async fn hold_acme_uses(&self, uses: &[Use], until_ms: i64) -> Result<()> {
        let uses = uses.to_vec();
        self.write(move |tx| {
            Box::pin(async move {
                for one in uses {
                    for statement in [
                        // What is the same already may stay.
                        "DELETE FROM acme_uses WHERE directory = $1 AND kind = $2 AND subject = $3 \
                         AND at_ms <> $4",
                        "INSERT INTO acme_uses (directory, kind, subject, at_ms) \
                         VALUES ($1, $2, $3, $4)",
                    ] {
                        sqlx::query(statement)
                            .bind(&one.directory)
                            .bind(one.kind)
                            .bind(&one.subject)
                            .bind(until_ms)
                            .execute(&mut tx.connection)
                            .await
                            .map_err(failed)?;
                    }
                }
                Ok(())
            })
        })
        .await
    }

    /// Until when a CA wants to be left alone with a use, if that is after now and by `latest_ms`: what lies
    /// further was noted while the clock was ahead.
    pub async fn acme_use_held(
        &self,
        of: &Use,
        now_ms: i64,
        latest_ms: i64,
    ) -> Result<Option<i64>> {
        sqlx::query_scalar(
            "SELECT MAX(at_ms) FROM acme_uses WHERE directory = $1 AND kind = $2 AND subject = $3 \
             AND at_ms > $4 AND at_ms <= $5",
        )
        .bind(&of.directory)
        .bind(of.kind)
        .bind(&of.subject)
        .bind(now_ms)
        .bind(latest_ms)
        .fetch_one(self.readers())
        .await
        .map_err(failed)
    }

    /// How often a use was noted from then to now, and when the oldest of those was.
    pub async fn acme_uses(
        &self,
        of: &Use,
        since_ms: i64,
        now_ms: i64,
    ) -> Result<(u64, Option<i64>)> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS n, MIN(at_ms) AS oldest FROM acme_uses \
             WHERE directory = $1 AND kind = $2 AND subject = $3 AND at_ms BETWEEN $4 AND $5",
        )
        .bind(&of.directory)
        .bind(of.kind)
        .bind(&of.subject)
        .bind(since_ms)
        .bind(now_ms)
        .fetch_one(self.readers())
        .await
        .map_err(failed)?;
        Ok((columns::count(&row, "n")?, columns::get(&row, "oldest")?))
    }

    /// How often the uses of a kind were noted from then to now, for the subject that has most of them;
    /// nothing where there were none.
    pub async fn acme_used_most(
        &self,
        directory: &str,
        kind: &str,
        since_ms: i64,
        now_ms: i64,
    ) -> Result<u64> {
        let most: Option<i64> = sqlx::query_scalar(
            "SELECT COUNT(*) AS n FROM acme_uses \
             WHERE directory = $1 AND kind = $2 AND at_ms BETWEEN $3 AND $4 \
             GROUP BY subject ORDER BY n DESC LIMIT 1",
        )
        .bind(directory)
        .bind(kind)
        .bind(since_ms)
        .bind(now_ms)
        .fetch_optional(self.readers())
        .await
        .map_err(failed)?;
        columns::natural(most.unwrap_or(0), "n")
    }
}

fn order(row: &Row) -> Result<OrderRecord> {
    let records: &str = columns::get(row, "records")?;
    Ok(OrderRecord {
        certificate: columns::get(row, "certificate")?,
        directory: columns::get(row, "directory")?,
        hostnames: unlist(columns::get(row, "hostnames")?),
        url: columns::get(row, "url")?,
        key_sealed: columns::get(row, "key_sealed")?,
        records: serde_json::from_str(records)
            .map_err(|error| damaged("records", &error.to_string()))?,
        is_over: columns::get(row, "is_over")?,
        created_at_ms: columns::get(row, "created_at_ms")?,
    })
}

fn challenge(row: &Row) -> Result<Challenge> {
    let kind = match columns::get(row, "kind")? {
        "http-01" => ChallengeKind::Http,
        "tls-alpn-01" => ChallengeKind::TlsAlpn,
        _ => return Err(damaged("kind", "is no kind of challenge")),
    };
    Ok(Challenge {
        hostname: columns::get(row, "hostname")?,
        kind,
        token: columns::get(row, "token")?,
        key_authorization: columns::get(row, "key_authorization")?,
        expires_at_ms: columns::get(row, "expires_at_ms")?,
    })
}
