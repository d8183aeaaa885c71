//! Which realms there are: those that some record is visible in.

use std::collections::BTreeMap;

use gantry_model::{Phase, RealmId, UserId};
use sqlx::QueryBuilder;

use crate::{
    Store,
    columns::{self, natural},
    error::{Result, failed},
    listing::{self, CONTAINER_REALMS, Membership, PROJECT_REALMS},
    sqlite::{self, Connection, Db, Row},
};

/// How much is visible in a realm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RealmUse {
    /// Projects.
    pub projects: u64,
    /// Containers, without those being deleted and those that wait in a warm pool.
    pub containers: u64,
}

impl Store {
    /// The realms of the projects and containers that a user owns or sees as a member, or of everybody's,
    /// at one instant.
    pub async fn realms(&self, seen_by: Option<UserId>) -> Result<BTreeMap<RealmId, RealmUse>> {
        let mut tx = sqlite::begin_read(self.readers()).await.map_err(failed)?;
        let mut realms: BTreeMap<RealmId, RealmUse> = BTreeMap::new();
        for (realm, count) in
            count(&mut tx, "projects", &PROJECT_REALMS, ("id", seen_by), None).await?
        {
            realms.entry(realm).or_default().projects = count;
        }
        let gone = Some(Phase::Deleting.as_str());
        for (realm, count) in
            count(&mut tx, "containers", &CONTAINER_REALMS, ("project", seen_by), gone).await?
        {
            realms.entry(realm).or_default().containers = count;
        }
        Ok(realms)
    }
}

async fn count(
    connection: &mut Connection,
    of: &'static str,
    Membership { table, column }: &Membership,
    (project, seen_by): (&'static str, Option<UserId>),
    without: Option<&'static str>,
) -> Result<Vec<(RealmId, u64)>> {
    let mut query = QueryBuilder::<Db>::new("SELECT m.realm AS realm, count(*) AS n FROM ");
    query.push(table).push(" m JOIN ").push(of).push(" r ON r.id = m.").push(column);
    let mut joint = " WHERE ";
    if let Some(user) = seen_by {
        listing::push_seen_by(query.push(joint), "r.", project, *user.as_bytes());
        joint = " AND ";
    }
    if let Some(phase) = without {
        query.push(joint).push("NOT r.prespawn AND r.phase <> ").push_bind(phase);
    }
    query.push(" GROUP BY m.realm");
    let rows: Vec<Row> = query.build().fetch_all(connection).await.map_err(failed)?;
    rows.iter()
        .map(|row| Ok((columns::id(row, "realm")?, natural(columns::get(row, "n")?, "n")?)))
        .collect()
}
