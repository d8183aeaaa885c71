//! What belongs to the installation as a whole: its epoch, its secrets, its servers, its backups.

use std::path::Path;

use gantry_model::{ServerId, ServerName};

use crate::{
    Store,
    columns::{self, damaged},
    error::{OpenError, Result, failed},
    record::{Epoch, Server},
    sqlite::{self, Connection, Row},
};

/// Reads the epoch, or chooses one if this database has none yet.
pub(crate) async fn ensure_epoch(connection: &mut Connection) -> Result<Epoch, OpenError> {
    let mut candidate = [0; 16];
    getrandom::fill(&mut candidate).map_err(OpenError::Random)?;
    let unreadable = |error| OpenError::Record(failed(error));
    sqlx::query("INSERT INTO cell (k, v) VALUES ('epoch', $1) ON CONFLICT (k) DO NOTHING")
        .bind(candidate.as_slice())
        .execute(&mut *connection)
        .await
        .map_err(unreadable)?;
    let row: Row = sqlx::query("SELECT v FROM cell WHERE k = 'epoch'")
        .fetch_one(connection)
        .await
        .map_err(unreadable)?;
    columns::octets(&row, "v").map(Epoch).map_err(OpenError::Record)
}

impl Store {
    /// Returns the secret of this name; the first caller's candidate becomes it.
    ///
    /// Secrets are what the installation itself needs, such as the key that signs sessions.
    pub async fn get_or_insert_secret(&self, name: &str, candidate: &[u8]) -> Result<Vec<u8>> {
        let (name, candidate) = (name.to_owned(), candidate.to_vec());
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
                )
                .bind(&name)
                .bind(candidate)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                sqlx::query_scalar("SELECT value FROM secrets WHERE name = $1")
                    .bind(&name)
                    .fetch_one(&mut tx.connection)
                    .await
                    .map_err(failed)
            })
        })
        .await
    }

    /// Puts a secret in the place of one, unless that has been replaced meanwhile.
    pub async fn replace_secret(&self, name: &str, old: &[u8], new: &[u8]) -> Result<()> {
        let (name, old, new) = (name.to_owned(), old.to_vec(), new.to_vec());
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query("UPDATE secrets SET value = $1 WHERE name = $2 AND value = $3")
                    .bind(new)
                    .bind(name)
                    .bind(old)
                    .execute(&mut tx.connection)
                    .await
                    .map(drop)
                    .map_err(failed)
            })
        })
        .await
    }

    /// Returns the server of this name; makes it, with the candidate as its id, if there is none.
    pub async fn ensure_server(
        &self,
        candidate: ServerId,
        name: &ServerName,
        now_ms: i64,
    ) -> Result<Server> {
        let name = name.clone();
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO servers (id, name, created_at_ms) VALUES ($1, $2, $3) \
                     ON CONFLICT (name) DO NOTHING",
                )
                .bind(candidate.as_bytes().as_slice())
                .bind(name.as_str())
                .bind(now_ms)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                let row = sqlx::query("SELECT * FROM servers WHERE name = $1")
                    .bind(name.as_str())
                    .fetch_one(&mut tx.connection)
                    .await
                    .map_err(failed)?;
                server(&row)
            })
        })
        .await
    }

    /// Every server, by name.
    pub async fn servers(&self) -> Result<Vec<Server>> {
        let rows = sqlx::query("SELECT * FROM servers ORDER BY name")
            .fetch_all(self.readers())
            .await
            .map_err(failed)?;
        rows.iter().map(server).collect()
    }

    /// Writes a copy of everything, as of one instant, into a new file that only its owner may
    /// read. Refused if the file exists and is not empty. Writers go on meanwhile.
    pub async fn backup(&self, to: &Path) -> Result<()> {
        sqlite::backup(self.readers(), to).await.map_err(failed)
    }
}

fn server(row: &Row) -> Result<Server> {
    let id = columns::id(row, "id")?;
    let read = || -> Result<Server> {
        let name: &str = columns::get(row, "name")?;
        let name = name
            .parse()
            .map_err(|error: gantry_model::InvalidName| damaged("name", &error.to_string()))?;
        Ok(Server { id, name, created_at_ms: columns::get(row, "created_at_ms")? })
    };
    read().map_err(columns::of("server", id))
}
