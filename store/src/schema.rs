//! Migrations: numbered, embedded, each in a transaction of its own.
//!
//! A database remembers which it has had. One that has had others than this binary knows is refused: running
//! on would damage it. So is one that has had more, unless whoever brought it there has noted that programs
//! as old as this one can go on: an upgrade that fails after its migrations leaves the old program one that can
//! be started again. Before the first migration of a database that holds something, a copy of it is made beside
//! it.

use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Row as _};

use crate::{
    error::{Cause, OpenError, failed},
    sqlite::{self, Connection, Row},
};

/// One step from a schema to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    number: i64,
    name: &'static str,
    text: &'static str,
}

/// The oldest schema whose programs can use what the migrations here leave. Later ones only add: tables, indexes,
/// columns that may be left out. One that does more raises this to its own number, and the release says that there
/// is no way back.
const USABLE_FROM: i64 = 22;
/// The migration that brings the column for it.
const NOTES_USABLE_FROM: i64 = 23;

/// Every migration, in order, numbered from 1 without gaps. Never change one that was released.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, name: "first", text: include_str!("../migrations/0001_first.sql") },
    Migration { number: 2, name: "edge", text: include_str!("../migrations/0002_edge.sql") },
    Migration {
        number: 3,
        name: "accounts",
        text: include_str!("../migrations/0003_accounts.sql"),
    },
    Migration { number: 4, name: "events", text: include_str!("../migrations/0004_events.sql") },
    Migration {
        number: 5,
        name: "snapshots",
        text: include_str!("../migrations/0005_snapshots.sql"),
    },
    Migration {
        number: 6,
        name: "firewalls",
        text: include_str!("../migrations/0006_firewalls.sql"),
    },
    Migration { number: 7, name: "members", text: include_str!("../migrations/0007_members.sql") },
    Migration { number: 8, name: "vault", text: include_str!("../migrations/0008_vault.sql") },
    Migration {
        number: 9,
        name: "prespawn",
        text: include_str!("../migrations/0009_prespawn.sql"),
    },
    Migration {
        number: 10,
        name: "token_profiles",
        text: include_str!("../migrations/0010_token_profiles.sql"),
    },
    Migration {
        number: 11,
        name: "outbound",
        text: include_str!("../migrations/0011_outbound.sql"),
    },
    Migration { number: 12, name: "shares", text: include_str!("../migrations/0012_shares.sql") },
    Migration {
        number: 13,
        name: "alias_ends",
        text: include_str!("../migrations/0013_alias_ends.sql"),
    },
    Migration { number: 14, name: "servers", text: include_str!("../migrations/0014_servers.sql") },
    Migration { number: 15, name: "quotas", text: include_str!("../migrations/0015_quotas.sql") },
    Migration { number: 16, name: "images", text: include_str!("../migrations/0016_images.sql") },
    Migration {
        number: 17,
        name: "factor_attempts",
        text: include_str!("../migrations/0017_factor_attempts.sql"),
    },
    Migration {
        number: 18,
        name: "environment_sync",
        text: include_str!("../migrations/0018_environment_sync.sql"),
    },
    Migration {
        number: 19,
        name: "alias_ends_since",
        text: include_str!("../migrations/0019_alias_ends_since.sql"),
    },
    Migration { number: 20, name: "ssh", text: include_str!("../migrations/0020_ssh.sql") },
    Migration {
        number: 21,
        name: "certificates",
        text: include_str!("../migrations/0021_certificates.sql"),
    },
    Migration {
        number: 22,
        name: "revocations",
        text: include_str!("../migrations/0022_revocations.sql"),
    },
    Migration {
        number: 23,
        name: "processes",
        text: include_str!("../migrations/0023_processes.sql"),
    },
    Migration {
        number: 24,
        name: "freed_ssh_keys",
        text: include_str!("../migrations/0024_freed_ssh_keys.sql"),
    },
    Migration {
        number: 25,
        name: "revocation_keys",
        text: include_str!("../migrations/0025_revocation_keys.sql"),
    },
];

/// Brings the database to the newest schema of `migrations`.
pub(crate) async fn migrate(
    connection: &mut Connection,
    path: &Path,
    migrations: &[Migration],
) -> Result<(), OpenError> {
    let had = history(connection).await?;
    let missing = missing(&had, migrations)?;
    if let (Some(had), false) = (had.last(), missing.is_empty()) {
        copy_before(connection, path, had.number).await?;
    }
    for migration in missing {
        apply(connection, migration).await.map_err(|error| OpenError::Migration {
            number: migration.number,
            source: Cause::new(error),
        })?;
        tracing::info!(number = migration.number, name = migration.name, "migrated the store");
    }
    Ok(())
}

/// The schema of a database that is left as it is, and that to which [`migrate`] would bring it. An error if this
/// program cannot use it.
pub(crate) async fn look(connection: &mut Connection) -> Result<(i64, i64), OpenError> {
    let had = history(connection).await?;
    let missing = missing(&had, MIGRATIONS)?;
    let now = had.last().map_or(0, |had| had.number);
    Ok((now, missing.last().map_or(now, |migration| migration.number)))
}

/// The migrations that a database has not had.
fn missing<'m>(had: &[Had], migrations: &'m [Migration]) -> Result<&'m [Migration], OpenError> {
    let known = migrations.last().map_or(0, |migration| migration.number);
    for (at, Had { number, name, .. }) in had.iter().enumerate() {
        match migrations.get(at) {
            Some(migration) if migration.number == *number && migration.name == *name => {}
            Some(migration) => {
                let what = format!("{number} ({name}) stands where {} should", migration.number);
                return Err(OpenError::ForeignSchema { what });
            }
            None => break,
        }
    }
    let newer = had.get(migrations.len()..).unwrap_or_default();
    if let Some(newest) = newer.last() {
        let is_usable = |had: &Had| had.usable_from.is_some_and(|oldest| oldest <= known);
        if !newer.iter().all(is_usable) {
            return Err(OpenError::NewerSchema { found: newest.number, known });
        }
        tracing::warn!(
            found = newest.number,
            known,
            "a newer version has used the store; this one goes on with what it knows of it"
        );
    }
    Ok(migrations.get(had.len()..).unwrap_or_default())
}

/// A migration that a database has had.
#[derive(Debug)]
struct Had {
    number: i64,
    name: String,
    usable_from: Option<i64>,
}

/// The migrations that the database has had, oldest first.
async fn history(connection: &mut Connection) -> Result<Vec<Had>, OpenError> {
    let unreadable = |error| OpenError::Record(failed(error));
    if sqlite::has_table(connection, Some("migrations")).await.map_err(unreadable)? {
        // All columns, of which the last one may be missing.
        let rows = sqlx::query("SELECT * FROM migrations ORDER BY number")
            .persistent(false)
            .fetch_all(connection)
            .await
            .map_err(unreadable)?;
        let read = |row: &Row| -> sqlx::Result<Had> {
            let usable_from = match row.try_get("usable_from") {
                Err(sqlx::Error::ColumnNotFound(_)) => None,
                found => found?,
            };
            Ok(Had { number: row.try_get("number")?, name: row.try_get("name")?, usable_from })
        };
        return rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(unreadable);
    }
    if sqlite::has_table(connection, None).await.map_err(unreadable)? {
        let what = "there are tables, but no record of migrations".to_owned();
        return Err(OpenError::ForeignSchema { what });
    }
    Ok(Vec::new())
}

async fn copy_before(
    connection: &mut Connection,
    path: &Path,
    number: i64,
) -> Result<(), OpenError> {
    let mut copy = path.as_os_str().to_owned();
    copy.push(format!(".schema-{number}"));
    let copy = PathBuf::from(copy);
    // A copy that an earlier, interrupted attempt left is of the same state or incomplete.
    match tokio::fs::remove_file(&copy).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let (path, source) = (copy.display().to_string(), Cause::new(error));
            return Err(OpenError::Open { path, source });
        }
        Ok(()) | Err(_) => {}
    }
    sqlite::copy_into(connection, &copy).await.map_err(|error| OpenError::Open {
        path: copy.display().to_string(),
        source: Cause::new(error),
    })
}

async fn apply(connection: &mut Connection, migration: &Migration) -> sqlx::Result<()> {
    sqlite::begin(connection).await?;
    let applied = statements(connection, migration).await;
    match applied {
        Ok(()) => sqlite::commit(connection).await,
        Err(error) => {
            sqlite::rollback(connection).await?;
            Err(error)
        }
    }
}

async fn statements(connection: &mut Connection, migration: &Migration) -> sqlx::Result<()> {
    if migration.number == 1 {
        let table = "CREATE TABLE migrations (number BIGINT PRIMARY KEY, name TEXT NOT NULL)";
        execute(connection, table).await?;
    }
    for statement in split(migration.text) {
        execute(connection, &statement).await?;
    }
    sqlx::query("INSERT INTO migrations (number, name) VALUES ($1, $2)")
        .bind(migration.number)
        .bind(migration.name)
        .execute(&mut *connection)
        .await?;
    if migration.number < NOTES_USABLE_FROM {
        return Ok(());
    }
    sqlx::query("UPDATE migrations SET usable_from = $1 WHERE number = $2")
        .bind(USABLE_FROM)
        .bind(migration.number)
        .execute(connection)
        .await
        .map(drop)
}

async fn execute(connection: &mut Connection, statement: &str) -> sqlx::Result<()> {
    // Safe: the text is part of this binary.
    let text = AssertSqlSafe(sqlite::dialect(statement));
    sqlx::query(text).persistent(false).execute(connection).await.map(drop)
}

/// The statements of a migration, without comments. Migrations hold no semicolon in a text.
fn split(text: &str) -> Vec<String> {
    let bare: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).collect();
    let bare = bare.join("\n");
    bare.split(';').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(dir: &tempfile::TempDir) -> PathBuf {
        dir.path().join("gantry.db")
    }

    fn newest() -> i64 {
        MIGRATIONS.last().unwrap().number
    }

    #[test]
    fn migrations_are_numbered_from_one_without_gaps() {
        for (number, migration) in (1..).zip(MIGRATIONS) {
            assert_eq!(migration.number, number, "{}", migration.name);
        }
    }

    #[tokio::test]
    async fn a_newer_schema_is_left_alone_and_used_only_if_it_allows_that() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = sqlite::open(&path(&dir), sqlite::Before::Ended).await.unwrap().writer;
        migrate(&mut writer, &path(&dir), MIGRATIONS).await.unwrap();
        let newest = newest();
        let future = "INSERT INTO migrations VALUES ($1, 'of the future', $2)";
        for (number, usable_from, refused) in [
            (newest + 1, Some(newest), false),
            (newest + 2, Some(newest - 1), false),
            // Each of those that this program does not know must allow it.
            (newest + 3, Some(newest + 1), true),
            (newest + 4, Some(newest), true),
            (newest + 5, None, true),
        ] {
            sqlx::query(future).bind(number).bind(usable_from).execute(&mut writer).await.unwrap();
            let looked = look(&mut writer).await;
            let migrated = migrate(&mut writer, &path(&dir), MIGRATIONS).await;
            if !refused {
                assert_eq!((looked.unwrap(), migrated.unwrap()), ((number, number), ()));
                continue;
            }
            for error in [looked.unwrap_err(), migrated.unwrap_err()] {
                assert!(
                    matches!(error, OpenError::NewerSchema { found, known }
                        if (found, known) == (number, newest)),
                    "refused with {error}"
                );
            }
        }
    }

    /// What programs before can go on with: they name the columns that they write, and know nothing of others.
    #[test]
    fn migrations_since_the_oldest_program_that_can_go_on_only_add() {
        let later = MIGRATIONS.iter().filter(|migration| migration.number > USABLE_FROM);
        for migration in later {
            for statement in split(migration.text) {
                let is_table = statement.starts_with("CREATE TABLE ");
                let is_index = statement.starts_with("CREATE INDEX ");
                let is_column = statement.starts_with("ALTER TABLE ")
                    && statement.contains(" ADD COLUMN ")
                    && (!statement.contains("NOT NULL") || statement.contains("DEFAULT"));
                let is_row = statement.starts_with("INSERT INTO ");
                let adds = is_table || is_index || is_column || is_row;
                assert!(adds, "{}: {statement}", migration.name);
            }
        }
    }

    #[tokio::test]
    async fn a_look_says_what_would_come_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = sqlite::open(&path(&dir), sqlite::Before::Ended).await.unwrap().writer;
        let newest = newest();
        assert_eq!(look(&mut writer).await.unwrap(), (0, newest));
        let older = MIGRATIONS.split_last().unwrap().1;
        migrate(&mut writer, &path(&dir), older).await.unwrap();
        for _ in 0..2 {
            assert_eq!(look(&mut writer).await.unwrap(), (newest - 1, newest));
        }
        migrate(&mut writer, &path(&dir), MIGRATIONS).await.unwrap();
        assert_eq!(look(&mut writer).await.unwrap(), (newest, newest));
    }

    #[tokio::test]
    async fn a_database_of_another_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = sqlite::open(&path(&dir), sqlite::Before::Ended).await.unwrap().writer;
        sqlx::query("CREATE TABLE theirs (a INTEGER)").execute(&mut writer).await.unwrap();
        let refused = migrate(&mut writer, &path(&dir), MIGRATIONS).await.unwrap_err();
        assert!(matches!(refused, OpenError::ForeignSchema { .. }), "refused with {refused}");
    }

    #[tokio::test]
    async fn a_migration_applies_once_after_a_copy_was_made_and_fails_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = sqlite::open(&path(&dir), sqlite::Before::Ended).await.unwrap().writer;
        migrate(&mut writer, &path(&dir), MIGRATIONS).await.unwrap();
        let newest = newest();
        let number = newest + 1;
        let next = Migration { number, name: "more", text: "CREATE TABLE more (a BIGINT);" };
        let list = [MIGRATIONS, &[next]].concat();
        let number = newest + 2;
        let broken = Migration { number, name: "bad", text: "CREATE TABLE b (a TEXT);\nNO;" };

        for _ in 0..2 {
            migrate(&mut writer, &path(&dir), &list).await.unwrap();
        }
        assert!(dir.path().join(format!("gantry.db.schema-{newest}")).exists());
        assert!(sqlite::has_table(&mut writer, Some("more")).await.unwrap());

        let refused =
            migrate(&mut writer, &path(&dir), &[&list[..], &[broken]].concat()).await.unwrap_err();
        assert!(
            matches!(refused, OpenError::Migration { number: bad, .. } if bad == number),
            "{refused}"
        );
        assert!(!sqlite::has_table(&mut writer, Some("b")).await.unwrap());
        assert_eq!(history(&mut writer).await.unwrap().len(), MIGRATIONS.len() + 1);
    }
}
