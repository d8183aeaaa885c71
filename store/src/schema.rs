//! Migrations: numbered, embedded, each in a transaction of its own.
//!
//! A database remembers which it has had. One that has had more than this binary knows, or others,
//! is refused: running on would damage it. Before the first migration of a database that holds
//! something, a copy of it is made beside it.

use std::path::{Path, PathBuf};

use sqlx::AssertSqlSafe;

use crate::{
    error::{Cause, OpenError, failed},
    sqlite::{self, Connection},
};

/// One step from a schema to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    number: i64,
    name: &'static str,
    text: &'static str,
}

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
];

/// Brings the database to the newest schema of `migrations`.
pub(crate) async fn migrate(
    connection: &mut Connection,
    path: &Path,
    migrations: &[Migration],
) -> Result<(), OpenError> {
    let had = history(connection).await?;
    let known = migrations.last().map_or(0, |migration| migration.number);
    for (at, (number, name)) in had.iter().enumerate() {
        match migrations.get(at) {
            Some(migration) if migration.number == *number && migration.name == name => {}
            Some(migration) => {
                let what = format!("{number} ({name}) stands where {} should", migration.number);
                return Err(OpenError::ForeignSchema { what });
            }
            None => {
                let found = had.last().map_or(*number, |(newest, _)| *newest);
                return Err(OpenError::NewerSchema { found, known });
            }
        }
    }
    let missing = migrations.get(had.len()..).unwrap_or_default();
    if let (Some((number, _)), false) = (had.last(), missing.is_empty()) {
        copy_before(connection, path, *number).await?;
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

/// The migrations that the database has had, oldest first.
async fn history(connection: &mut Connection) -> Result<Vec<(i64, String)>, OpenError> {
    let unreadable = |error| OpenError::Record(failed(error));
    if sqlite::has_table(connection, Some("migrations")).await.map_err(unreadable)? {
        return sqlx::query_as("SELECT number, name FROM migrations ORDER BY number")
            .fetch_all(connection)
            .await
            .map_err(unreadable);
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
    async fn a_newer_schema_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = sqlite::open(&path(&dir), sqlite::Before::Ended).await.unwrap().writer;
        migrate(&mut writer, &path(&dir), MIGRATIONS).await.unwrap();
        let newest = newest();
        sqlx::query("INSERT INTO migrations VALUES ($1, 'of the future')")
            .bind(newest + 1)
            .execute(&mut writer)
            .await
            .unwrap();
        let refused = migrate(&mut writer, &path(&dir), MIGRATIONS).await.unwrap_err();
        assert!(
            matches!(refused, OpenError::NewerSchema { found, known }
                if (found, known) == (newest + 1, newest)),
            "refused with {refused}"
        );
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
