//! What proves, beside a password, that somebody is who logs in: the secret of an authenticator app, and codes
//! that are good once in its place.
//!
//! An attempt is counted before its code is looked at, and a code is used up by the write that accepts it: guesses
//! at the same time are no more than guesses one after the other, and of two who come with one code, one gets in.
//! Each [`Door`] has attempts and a lock of its own, which a code that is right at that door opens again.

use gantry_model::UserId;

use crate::{
    Store,
    columns::{self, natural},
    error::{Error, Result, failed},
    sqlite::Row,
    told,
    writer::Tx,
};

/// The attempts before one more has to wait.
pub const ATTEMPTS_MAX: i64 = 5;
/// How long it waits at first, in milliseconds; twice as long each time after that.
pub const LOCKOUT_MS: i64 = 15 * 60 * 1000;
/// How long it waits at most.
pub const LOCKOUT_MAX_MS: i64 = 24 * 60 * 60 * 1000;

/// The second factor of an account.
#[derive(Clone, PartialEq, Eq)]
pub struct SecondFactor {
    /// The sealed secret.
    pub secret: Vec<u8>,
    /// Since when a login needs it; absent until its owner has shown a code of it.
    pub enabled_at_ms: Option<i64>,
    /// Whether tokens are made and changed with a code only.
    pub gates_tokens: bool,
    /// The step of the newest code that was taken.
    pub last_step: u64,
    /// How many backup codes are left.
    pub backup_codes: u64,
}

impl std::fmt::Debug for SecondFactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecondFactor")
            .field("enabled_at_ms", &self.enabled_at_ms)
            .finish_non_exhaustive()
    }
}

/// What whoever shows a code has shown besides. Who has a session only, which may be a stolen one, cannot lock
/// anybody out of the other door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The account's password.
    Password,
    /// A session of the account.
    Session,
}

impl Door {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Session => "session",
        }
    }
}

/// Whether a code may be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It may; this one is counted.
    Counted {
        /// What to hold it against.
        factor: SecondFactor,
        /// How long others have to wait after it, in milliseconds, if it is the last one.
        locks_ms: Option<i64>,
    },
    /// There were too many.
    Locked {
        /// Until when, in milliseconds since the epoch.
        until_ms: i64,
    },
}

/// What was shown and is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The code of this step.
    Step(u64),
    /// The backup code with this hash.
    Backup([u8; 32]),
}

impl Store {
    /// The second factor of an account; one that is not enabled yet, too.
    pub async fn second_factor(&self, user: UserId) -> Result<Option<SecondFactor>> {
        let row = sqlx::query(SELECT)
            .bind(user.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(failed)?;
        row.as_ref().map(factor).transpose()
    }

    /// Gives an account a second factor that is not enabled, and backup codes, in the place of one that is not enabled,
    /// with all attempts. [`Error::IdTaken`] if one is.
    pub async fn begin_second_factor(
        &self,
        user: UserId,
        secret: &[u8],
        backup_codes: &[[u8; 32]],
    ) -> Result<()> {
        let (secret, codes) = (secret.to_vec(), backup_codes.to_vec());
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query(
                    "INSERT INTO second_factors (owner, secret, enabled_at_ms, gates_tokens, \
                     last_step) VALUES ($1, $2, NULL, $3, 0) \
                     ON CONFLICT (owner) DO UPDATE SET secret = $2 WHERE enabled_at_ms IS NULL",
                )
                .bind(user.as_bytes().as_slice())
                .bind(secret)
                .bind(true)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(Error::IdTaken);
                }
                for door in [Door::Password, Door::Session] {
                    forget_attempts(tx, user, door).await?;
                }
                replace_codes(tx, user, &codes).await
            })
        })
        .await
    }

    /// Counts an attempt with a code. [`Error::NotFound`] if there is no second factor.
    pub async fn try_second_factor(
        &self,
        user: UserId,
        door: Door,
        now_ms: i64,
    ) -> Result<Attempt> {
        self.write(move |tx| {
            Box::pin(async move {
                let row: Row = sqlx::query(SELECT)
                    .bind(user.as_bytes().as_slice())
                    .fetch_optional(&mut tx.connection)
                    .await
                    .map_err(failed)?
                    .ok_or(Error::NotFound)?;
                let Tries { failures, lockouts, until_ms } = tries(tx, user, door).await?;
                if until_ms > now_ms {
                    return Ok(Attempt::Locked { until_ms });
                }
                let failures = failures.saturating_add(1);
                let locks_ms = (failures >= ATTEMPTS_MAX).then(|| lock_ms(lockouts));
                let tries = match locks_ms {
                    Some(ms) => Tries {
                        failures: 0,
                        lockouts: lockouts.saturating_add(1),
                        until_ms: now_ms.saturating_add(ms),
                    },
                    None => Tries { failures, lockouts, until_ms: 0 },
                };
                set_tries(tx, user, door, tries).await?;
                Ok(Attempt::Counted { factor: factor(&row)?, locks_ms })
            })
        })
        .await
    }

    /// Uses up a code that is right, and forgets the attempts before it at this door. False if it has been used
    /// meanwhile.
    pub async fn use_second_factor(&self, user: UserId, door: Door, shown: Shown) -> Result<bool> {
        self.write(move |tx| Box::pin(async move { take(tx, user, door, shown).await })).await
    }

    /// Enables the second factor by a code of it, shown by a session; ends all sessions, and returns the generation of those to come. `None`
    /// if the code has been used, or it is enabled already.
    pub async fn enable_second_factor(
        &self,
        user: UserId,
        step: u64,
        now_ms: i64,
    ) -> Result<Option<u64>> {
        self.write(move |tx| {
            Box::pin(async move {
                if !take(tx, user, Door::Session, Shown::Step(step)).await? {
                    return Ok(None);
                }
                let done = sqlx::query(
                    "UPDATE second_factors SET enabled_at_ms = $2 WHERE owner = $1 \
                     AND enabled_at_ms IS NULL",
                )
                .bind(user.as_bytes().as_slice())
                .bind(now_ms)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Ok(None);
                }
                end_sessions(tx, user, now_ms).await.map(Some)
            })
        })
        .await
    }

    /// Takes the second factor and its backup codes away; ends all sessions, and returns the generation of those to come.
    /// [`Error::NotFound`] if there is none that is enabled.
    pub async fn remove_second_factor(&self, user: UserId, now_ms: i64) -> Result<u64> {
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query(
                    "DELETE FROM second_factors WHERE owner = $1 AND enabled_at_ms IS NOT NULL",
                )
                .bind(user.as_bytes().as_slice())
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(Error::NotFound);
                }
                end_sessions(tx, user, now_ms).await
            })
        })
        .await
    }

    /// Replaces the backup codes. [`Error::NotFound`] if there is no second factor.
    pub async fn set_backup_codes(
        &self,
        user: UserId,
        hashes: &[[u8; 32]],
        now_ms: i64,
    ) -> Result<()> {
        let hashes = hashes.to_vec();
        self.write(move |tx| {
            Box::pin(async move {
                replace_codes(tx, user, &hashes).await?;
                told::account_told(tx, user, "two_factor", now_ms).await
            })
        })
        .await
    }

    /// Says whether tokens are made and changed with a code only. [`Error::NotFound`] if there is no second factor.
    pub async fn set_token_gate(&self, user: UserId, on: bool, now_ms: i64) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let done =
                    sqlx::query("UPDATE second_factors SET gates_tokens = $2 WHERE owner = $1")
                        .bind(user.as_bytes().as_slice())
                        .bind(on)
                        .execute(&mut tx.connection)
                        .await
                        .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(Error::NotFound);
                }
                told::account_told(tx, user, "two_factor", now_ms).await
            })
        })
        .await
    }
}

const SELECT: &str = "SELECT *, (SELECT count(*) FROM backup_codes b WHERE b.owner = f.owner) \
                      AS codes FROM second_factors f WHERE f.owner = $1";

/// What is counted at a door.
#[derive(Clone, Copy, Default)]
struct Tries {
    failures: i64,
    lockouts: i64,
    until_ms: i64,
}

/// How long a door is locked that was locked so often before.
fn lock_ms(lockouts: i64) -> i64 {
    let doubled = u32::try_from(lockouts).ok().and_then(|times| 2_i64.checked_pow(times));
    doubled.and_then(|times| LOCKOUT_MS.checked_mul(times)).unwrap_or(i64::MAX).min(LOCKOUT_MAX_MS)
}

async fn tries(tx: &mut Tx, user: UserId, door: Door) -> Result<Tries> {
    let row: Option<Row> = sqlx::query(
        "SELECT failures, lockouts, locked_until_ms FROM factor_attempts \
         WHERE owner = $1 AND door = $2",
    )
    .bind(user.as_bytes().as_slice())
    .bind(door.as_str())
    .fetch_optional(&mut tx.connection)
    .await
    .map_err(failed)?;
    row.map_or_else(
        || Ok(Tries::default()),
        |row| {
            Ok(Tries {
                failures: columns::get(&row, "failures")?,
                lockouts: columns::get(&row, "lockouts")?,
                until_ms: columns::get(&row, "locked_until_ms")?,
            })
        },
    )
}

async fn set_tries(tx: &mut Tx, user: UserId, door: Door, tries: Tries) -> Result<()> {
    sqlx::query(
        "INSERT INTO factor_attempts (owner, door, failures, lockouts, locked_until_ms) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (owner, door) \
         DO UPDATE SET failures = $3, lockouts = $4, locked_until_ms = $5",
    )
    .bind(user.as_bytes().as_slice())
    .bind(door.as_str())
    .bind(tries.failures)
    .bind(tries.lockouts)
    .bind(tries.until_ms)
    .execute(&mut tx.connection)
    .await
    .map(drop)
    .map_err(failed)
}

async fn forget_attempts(tx: &mut Tx, user: UserId, door: Door) -> Result<()> {
    sqlx::query("DELETE FROM factor_attempts WHERE owner = $1 AND door = $2")
        .bind(user.as_bytes().as_slice())
        .bind(door.as_str())
        .execute(&mut tx.connection)
        .await
        .map(drop)
        .map_err(failed)
}

async fn take(tx: &mut Tx, user: UserId, door: Door, shown: Shown) -> Result<bool> {
    let query = match shown {
        Shown::Step(step) => sqlx::query(
            "UPDATE second_factors SET last_step = $2 WHERE owner = $1 AND last_step < $2",
        )
        .bind(user.as_bytes().as_slice())
        .bind(columns::integer(step)),
        Shown::Backup(hash) => {
            sqlx::query("DELETE FROM backup_codes WHERE owner = $1 AND hash = $2")
                .bind(user.as_bytes().as_slice())
                .bind(hash.to_vec())
        }
    };
    let done = query.execute(&mut tx.connection).await.map_err(failed)?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    forget_attempts(tx, user, door).await?;
    Ok(true)
}

async fn replace_codes(tx: &mut Tx, user: UserId, hashes: &[[u8; 32]]) -> Result<()> {
    sqlx::query("DELETE FROM backup_codes WHERE owner = $1")
        .bind(user.as_bytes().as_slice())
        .execute(&mut tx.connection)
        .await
        .map_err(failed)?;
    for hash in hashes {
        sqlx::query("INSERT INTO backup_codes (owner, hash) VALUES ($1, $2)")
            .bind(user.as_bytes().as_slice())
            .bind(hash.to_vec())
            .execute(&mut tx.connection)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

async fn end_sessions(tx: &mut Tx, user: UserId, now_ms: i64) -> Result<u64> {
    let generation: Option<i64> = sqlx::query_scalar(
        "UPDATE users SET session_generation = session_generation + 1, updated_at_ms = $2 \
         WHERE id = $1 RETURNING session_generation",
    )
    .bind(user.as_bytes().as_slice())
    .bind(now_ms)
    .fetch_optional(&mut tx.connection)
    .await
    .map_err(failed)?;
    told::account_told(tx, user, "two_factor", now_ms).await?;
    natural(generation.ok_or(Error::NotFound)?, "session_generation")
}

fn factor(row: &Row) -> Result<SecondFactor> {
    Ok(SecondFactor {
        secret: columns::get(row, "secret")?,
        enabled_at_ms: columns::get(row, "enabled_at_ms")?,
        gates_tokens: columns::get(row, "gates_tokens")?,
        last_step: columns::count(row, "last_step")?,
        backup_codes: columns::count(row, "codes")?,
    })
}
