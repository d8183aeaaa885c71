//! SQLite, the engine: the only module that speaks its dialect, handles its files and reads its
//! error codes. Everything else in the crate is SQL that PostgreSQL takes, too.
//!
//! Durability rests on three settings that are asked back after they were made: write-ahead log,
//! `synchronous=FULL` (a flush for each commit) and a version without the log-reset race of 3.7.0 to
//! 3.51.2. The library is the bundled one; the system's is never linked.

use std::{path::Path, time::Duration};

use sqlx::{
    ConnectOptions, Connection as _, Executor, Row as _, SqlitePool,
    error::{DatabaseError, ErrorKind},
    sqlite::{
        SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous,
    },
};

use crate::error::{Cause, OpenError};

/// The database driver; the name that generic code uses.
pub(crate) type Db = sqlx::Sqlite;
/// One connection.
pub(crate) type Connection = SqliteConnection;
/// One row.
pub(crate) type Row = SqliteRow;
/// The pool of connections that only read.
pub(crate) type Readers = SqlitePool;

/// Reads a project's quota and keeps others from creating containers in it until the end of the
/// transaction. The one writer is alone here; PostgreSQL would add `FOR UPDATE`.
pub(crate) const LOCK_PROJECT: &str = "SELECT max_containers FROM projects WHERE id = $1";

/// The database's present time in Unix milliseconds. Leases alone go by it: it is compared with itself only.
pub(crate) const NOW_MS: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// The oldest version without the log-reset race.
const VERSION_MIN: (u32, u32, u32) = (3, 51, 3);
const VERSION_MIN_TEXT: &str = "3.51.3";

/// How long a statement waits for another process that holds the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a read waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Readers run on threads of their own; more of them than cores help nobody.
const READERS_MAX: u32 = 4;

/// What an error of the database means for the transaction and the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// A uniqueness constraint, named by its columns or its name.
    Taken,
    /// A reference to a record that does not exist.
    Reference,
    /// No room on the disk. What was written of the transaction is void.
    Full,
    /// Reading, writing or flushing failed, or the file is damaged.
    Io,
    /// Held by another process for too long.
    Busy,
    /// A statement that this schema does not take: a bug.
    Refused,
}

/// The process that had the database before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// It has ended, in order or not.
    Ended,
    /// It has the database open, and writes.
    Lives,
}

/// The opened database: one connection that writes, a few that read.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) writer: Connection,
    pub(crate) readers: Readers,
}

/// Opens or makes the database at `path` (mode 0600: it holds keys) and checks all that durability
/// depends on. After an unclean end the whole file is read and checked.
pub(crate) async fn open(path: &Path, before: Before) -> Result<Opened, OpenError> {
    let failed = |source: Cause| OpenError::Open { path: path.display().to_string(), source };
    // Of a process that lives the log is no sign of anything.
    let unclean = before == Before::Ended && left_over_log(path).await;
    ensure_file(path).await.map_err(|error| failed(Cause::new(error)))?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // The log is cut back to this size after a checkpoint, in octets.
        .pragma("journal_size_limit", "67108864")
        // Pages of 4 KiB between checkpoints: ids are random, so that fewer of them rewrite fewer
        // pages twice.
        .pragma("wal_autocheckpoint", "4000")
        // KiB at most for each connection, taken as needed. The default of 2 MiB makes large tables
        // go to the operating system for every other page.
        .pragma("cache_size", "-32768")
        .disable_statement_logging();
    let mut writer = options
        .clone()
        .thread_name(|_| "store-writer".to_owned())
        .connect()
        .await
        .map_err(|error| failed(Cause::new(error)))?;
    check_settings(&mut writer).await?;
    if unclean {
        check_integrity(&mut writer).await?;
    }
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .connect_lazy_with(
            options
                .pragma("query_only", "ON")
                .thread_name(|number| format!("store-reader-{number}")),
        );
    Ok(Opened { writer, readers })
}

/// Opens the database at `path`, which must be there, without changing anything of it.
pub(crate) async fn open_to_look(path: &Path) -> Result<Connection, OpenError> {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("query_only", "ON")
        .disable_statement_logging()
        .connect()
        .await
        .map_err(|error| OpenError::Open {
            path: path.display().to_string(),
            source: Cause::new(error),
        })
}

/// Ends a look.
pub(crate) async fn end_look(connection: Connection) {
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "a look at the store does not end well");
    }
}

/// Whether the last process left a write-ahead log behind; a clean end removes it.
async fn left_over_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    tokio::fs::metadata(log).await.is_ok_and(|log| log.len() > 0)
}

/// Makes the file, readable by its owner only, and its entry in the folder durable.
async fn ensure_file(path: &Path) -> std::io::Result<()> {
    let mut options = tokio::fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path).await {
        Ok(file) => file.sync_all().await?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            tokio::fs::File::open(parent).await?.sync_all().await
        }
        Some(_) | None => tokio::fs::File::open(".").await?.sync_all().await,
    }
}

async fn check_settings(connection: &mut Connection) -> Result<(), OpenError> {
    let version = ask(connection, "SELECT sqlite_version()").await?;
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    if (next(), next(), next()) < VERSION_MIN {
        return Err(OpenError::OldEngine { found: version, needed: VERSION_MIN_TEXT });
    }
    for (question, setting, want) in [
        ("PRAGMA journal_mode", "journal_mode=WAL", "wal"),
        ("SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous", "synchronous=FULL", "2"),
        ("SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys", "foreign_keys=ON", "1"),
    ] {
        let found = ask(connection, question).await?;
        if found != want {
            return Err(OpenError::Setting { setting, found });
        }
    }
    Ok(())
}

async fn check_integrity(connection: &mut Connection) -> Result<(), OpenError> {
    tracing::info!("the store was not closed in order; checking the database");
    let found = ask(connection, "PRAGMA integrity_check(1)").await?;
    if found == "ok" { Ok(()) } else { Err(OpenError::Damaged { found }) }
}

async fn ask(connection: &mut Connection, question: &'static str) -> Result<String, OpenError> {
    connection
        .fetch_one(question)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(|error| OpenError::Record(crate::error::failed(error)))
}

/// Starts a transaction that may write; waits for other processes up to the busy timeout.
pub(crate) async fn begin(connection: &mut Connection) -> sqlx::Result<()> {
    // IMMEDIATE: a deferred one would find out about another writer at its first write only, where
    // waiting cannot help.
    sqlx::query("BEGIN IMMEDIATE").execute(connection).await.map(drop)
}

/// Makes the transaction durable. Never repeat it after a failure.
pub(crate) async fn commit(connection: &mut Connection) -> sqlx::Result<()> {
    sqlx::query("COMMIT").execute(connection).await.map(drop)
}

/// Ends the transaction without a trace, if there is one still: SQLite ends it by itself after
/// some failures.
pub(crate) async fn rollback(connection: &mut Connection) -> sqlx::Result<()> {
    match sqlx::query("ROLLBACK").execute(connection).await {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if classify(&*error) == Class::Refused => Ok(()),
        Err(error) => Err(error),
    }
}

/// A transaction that reads one state of the database from start to end.
pub(crate) async fn begin_read(readers: &Readers) -> sqlx::Result<sqlx::Transaction<'static, Db>> {
    // Deferred: the snapshot is taken by the first statement. PostgreSQL needs REPEATABLE READ.
    readers.begin().await
}

/// Tells what kind of failure this is.
pub(crate) fn classify(error: &dyn DatabaseError) -> Class {
    if error.kind() == ErrorKind::UniqueViolation {
        return Class::Taken;
    }
    if error.kind() == ErrorKind::ForeignKeyViolation {
        return Class::Reference;
    }
    // An extended code carries the primary one in its low octet.
    match error.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff) {
        Some(13) => Class::Full,                      // SQLITE_FULL
        Some(5 | 6) => Class::Busy,                   // SQLITE_BUSY, SQLITE_LOCKED
        Some(7 | 8 | 10 | 11 | 14 | 26) => Class::Io, // NOMEM READONLY IOERR CORRUPT CANTOPEN NOTADB
        Some(_) | None => Class::Refused,
    }
}

/// What a uniqueness constraint is called here: its columns, as in `users.username`.
pub(crate) fn constraint(error: &dyn DatabaseError) -> Option<&str> {
    // "UNIQUE constraint failed: containers.project, containers.name"
    error.message().split_once("failed: ").map(|(_, columns)| columns)
}

/// Rewrites a migration from PostgreSQL's type names. `STRICT` makes SQLite keep to the types.
pub(crate) fn dialect(statement: &str) -> String {
    let mut text = statement.to_owned();
    for (theirs, ours) in
        [("BYTEA", "BLOB"), ("BIGINT", "INTEGER"), ("SMALLINT", "INTEGER"), ("BOOLEAN", "INTEGER")]
    {
        text = text.replace(theirs, ours);
    }
    if text.starts_with("CREATE TABLE") {
        text.push_str(" STRICT");
    }
    text
}

/// Whether there is a table of this name; of any name when it is absent.
pub(crate) async fn has_table(
    connection: &mut Connection,
    name: Option<&str>,
) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND ($1 IS NULL OR name = $1))",
    )
    .bind(name)
    .fetch_one(connection)
    .await
}

/// Writes a copy of the whole database, as of now, into a new file.
pub(crate) async fn copy_into(connection: &mut Connection, to: &Path) -> sqlx::Result<()> {
    let Some(text) = to.to_str() else {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "path is not UTF-8");
        return Err(sqlx::Error::Configuration(error.into()));
    };
    // VACUUM INTO takes an empty file, and would make one that everybody may read.
    ensure_file(to).await?;
    sqlx::query("VACUUM INTO $1").bind(text).execute(connection).await?;
    // It does not flush what it has written.
    tokio::fs::File::open(to).await?.sync_all().await?;
    Ok(())
}

/// As [`copy_into`], on a connection of its own, so that neither reads nor writes wait.
pub(crate) async fn backup(readers: &Readers, to: &Path) -> sqlx::Result<()> {
    // Readers refuse even to write into another file.
    let options = readers.connect_options().as_ref().clone().pragma("query_only", "OFF");
    let mut connection = options.connect().await?;
    copy_into(&mut connection, to).await?;
    connection.close().await
}

/// Closes the writer after the readers, so that it folds the log into the database and removes it.
pub(crate) async fn close(writer: Connection, readers: &Readers) -> sqlx::Result<()> {
    readers.close().await;
    writer.close().await
}
