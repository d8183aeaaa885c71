//! Members of projects: users who may do something with what is not theirs.

use gantry_model::{MemberId, ProjectId, UserId, project::Level};

use crate::{
    Store,
    columns::{self, damaged, natural},
    containers,
    error::{Error, Result, failed},
    listing::{Condition, List},
    projects,
    record::{Listed, Page},
    shares,
    sqlite::{Db, Row},
    told,
    writer::Tx,
};

/// What one user may do with one project of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// The project.
    pub project: ProjectId,
    /// The user.
    pub user: UserId,
    /// The name of the user.
    pub username: String,
    /// What that user may do.
    pub level: Level,
    /// When it was granted.
    pub created_at_ms: i64,
    /// When it was last changed.
    pub updated_at_ms: i64,
}

/// How many memberships there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberMax {
    /// Of one project.
    pub project: u32,
    /// Of one user: nobody fills the lists of others without a bound.
    pub user: u32,
}

/// Who says what a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granter {
    /// The user.
    pub user: UserId,
    /// What that user must be allowed as a member at the moment of the write; nothing for the owner, for
    /// administrators, and for whoever leaves.
    pub needs: Option<Level>,
}

/// What members may be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberSort {
    /// By id.
    Id,
    /// By the user's id.
    User,
    /// By the word of the level.
    Level,
    /// By the time of the grant.
    CreatedAt,
    /// By the time of the last change.
    UpdatedAt,
}

/// The members with the names of their users.
const NAMED: &str = "(SELECT m.id, m.project, m.member, m.level, m.created_at_ms, m.updated_at_ms, \
                     u.username FROM project_members m JOIN users u ON u.id = m.member) AS named";

impl Store {
    /// What a user may do with a project as a member; nothing if it is none.
    pub async fn member_level(&self, project: ProjectId, user: UserId) -> Result<Option<Level>> {
        let word: Option<String> = sqlx::query_scalar(
            "SELECT level FROM project_members WHERE project = $1 AND member = $2",
        )
        .bind(project.as_bytes().as_slice())
        .bind(user.as_bytes().as_slice())
        .fetch_optional(self.readers())
        .await
        .map_err(failed)?;
        word.as_deref().map(level).transpose()
    }

    /// One page of the members of a project.
    pub async fn members(
        &self,
        project: ProjectId,
        page: Page<MemberSort>,
    ) -> Result<Listed<Member>> {
        let conditions = [Condition::Is("project", *project.as_bytes())];
        let order = match page.sort {
            MemberSort::Id => "id",
            MemberSort::User => "member",
            MemberSort::Level => "level",
            MemberSort::CreatedAt => "created_at_ms",
            MemberSort::UpdatedAt => "updated_at_ms",
        };
        List { table: NAMED, conditions: &conditions, order, tie: "id" }
            .read(self.readers(), page, member)
            .await
    }

    /// The member of a project of this id.
    pub async fn member(&self, project: ProjectId, id: MemberId) -> Result<Option<Member>> {
        let conditions =
            [Condition::Is("project", *project.as_bytes()), Condition::Is("id", *id.as_bytes())];
        let list = List { table: NAMED, conditions: &conditions, order: "id", tie: "id" };
        Ok(list.first(self.readers(), 1, member).await?.pop())
    }

    /// The first members of a project, at most `limit`.
    pub async fn first_members(&self, project: ProjectId, limit: u32) -> Result<Vec<Member>> {
        let conditions = [Condition::Is("project", *project.as_bytes())];
        let list =
            List { table: NAMED, conditions: &conditions, order: "created_at_ms", tie: "id" };
        list.first(self.readers(), limit, member).await
    }

    /// Makes a user a member of a project. [`Error::MemberExists`] if it is one already,
    /// [`Error::MemberLimit`] if the project has as many members as it may,
    /// [`Error::MembershipLimit`] if the user has as many projects, [`Error::ProjectGone`] if there is
    /// no such project, [`Error::RamdiskShared`] if its containers share memory, [`Error::NotFound`] if
    /// there is no such user, [`Error::Stale`] if the granter
    /// may not do that (any more).
    pub async fn add_member(&self, member: &Member, max: MemberMax, by: Granter) -> Result<()> {
        let new = member.clone();
        self.write(move |tx| {
            Box::pin(async move {
                if projects::quota(tx, new.project).await?.is_none() {
                    return Err(Error::ProjectGone);
                }
                check_granter(tx, new.project, by).await?;
                let (project, user) = (new.project.as_bytes(), new.user.as_bytes());
                if count(tx, "project", project).await? >= u64::from(max.project) {
                    return Err(Error::MemberLimit { max: max.project });
                }
                if count(tx, "member", user).await? >= u64::from(max.user) {
                    return Err(Error::MembershipLimit { max: max.user });
                }
                if containers::any_shares_ramdisk(tx, new.project).await? {
                    return Err(Error::RamdiskShared);
                }
                sqlx::query(
                    "INSERT INTO project_members (id, project, member, level, created_at_ms, \
                     updated_at_ms) VALUES ($1, $2, $3, $4, $5, $6)",
                )
                .bind(new.id.as_bytes().as_slice())
                .bind(new.project.as_bytes().as_slice())
                .bind(new.user.as_bytes().as_slice())
                .bind(new.level.as_str())
                .bind(new.created_at_ms)
                .bind(new.updated_at_ms)
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                shares::rights_changed(tx, new.user, new.created_at_ms).await?;
                tell(tx, &new, "project.permission.created", by, new.created_at_ms).await
            })
        })
        .await
    }

    /// Lets a member who may do what `old` says do something else. [`Error::NotFound`] if it is none
    /// any more, [`Error::Stale`] if it may do something else by now, or if the granter may not do that
    /// (any more).
    pub async fn set_member(&self, member: &Member, old: Level, by: Granter) -> Result<()> {
        let new = member.clone();
        self.write(move |tx| {
            Box::pin(async move {
                check_granter(tx, new.project, by).await?;
                let done = sqlx::query(
                    "UPDATE project_members SET level = $3, updated_at_ms = $4 \
                     WHERE project = $1 AND id = $2 AND level = $5",
                )
                .bind(new.project.as_bytes().as_slice())
                .bind(new.id.as_bytes().as_slice())
                .bind(new.level.as_str())
                .bind(new.updated_at_ms)
                .bind(old.as_str())
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(untouched(tx, &new).await?);
                }
                shares::rights_changed(tx, new.user, new.updated_at_ms).await?;
                tell(tx, &new, "project.permission.updated", by, new.updated_at_ms).await
            })
        })
        .await
    }

    /// Ends a membership as it was read. [`Error::NotFound`] if there is none, [`Error::Stale`] if its
    /// level is another one by now, or if the granter may not do that (any more).
    pub async fn remove_member(&self, member: &Member, by: Granter, now_ms: i64) -> Result<()> {
        let gone = member.clone();
        self.write(move |tx| {
            Box::pin(async move {
                check_granter(tx, gone.project, by).await?;
                let done = sqlx::query(
                    "DELETE FROM project_members WHERE project = $1 AND id = $2 AND level = $3",
                )
                .bind(gone.project.as_bytes().as_slice())
                .bind(gone.id.as_bytes().as_slice())
                .bind(gone.level.as_str())
                .execute(&mut tx.connection)
                .await
                .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(untouched(tx, &gone).await?);
                }
                shares::rights_changed(tx, gone.user, now_ms).await?;
                tell(tx, &gone, "project.permission.deleted", by, now_ms).await
            })
        })
        .await
    }
}

/// Refuses a granter whose level was taken away between the look at it and this write.
async fn check_granter(tx: &mut Tx, project: ProjectId, by: Granter) -> Result<()> {
    let Some(needs) = by.needs else { return Ok(()) };
    let word: Option<String> =
        sqlx::query_scalar("SELECT level FROM project_members WHERE project = $1 AND member = $2")
            .bind(project.as_bytes().as_slice())
            .bind(by.user.as_bytes().as_slice())
            .fetch_optional(&mut tx.connection)
            .await
            .map_err(failed)?;
    let has = word.as_deref().map(level).transpose()?;
    if has.is_some_and(|has| has >= needs) { Ok(()) } else { Err(Error::Stale) }
}

/// Why no membership was touched: it is another one by now, or none.
async fn untouched(tx: &mut Tx, member: &Member) -> Result<Error> {
    let there: i64 =
        sqlx::query_scalar("SELECT count(*) FROM project_members WHERE project = $1 AND id = $2")
            .bind(member.project.as_bytes().as_slice())
            .bind(member.id.as_bytes().as_slice())
            .fetch_one(&mut tx.connection)
            .await
            .map_err(failed)?;
    Ok(if there == 0 { Error::NotFound } else { Error::Stale })
}

async fn tell(tx: &mut Tx, member: &Member, kind: &str, by: Granter, at_ms: i64) -> Result<()> {
    let project = projects::load(tx, member.project).await?.ok_or(Error::NotFound)?;
    let about = [
        ("user_id", member.user.to_string()),
        ("permission_level", member.level.as_str().to_owned()),
        ("granted_by", by.user.to_string()),
    ];
    told::project_told_with(tx, &project, kind, about, at_ms).await
}

/// How many memberships have this id in this column.
/// Whether a project has members besides its owner.
pub(crate) async fn has_any(tx: &mut Tx, project: ProjectId) -> Result<bool> {
    Ok(count(tx, "project", project.as_bytes()).await? > 0)
}

async fn count(tx: &mut Tx, column: &'static str, id: &[u8; 12]) -> Result<u64> {
    let mut query = sqlx::QueryBuilder::<Db>::new("SELECT count(*) FROM project_members WHERE ");
    query.push(column).push(" = ").push_bind(id.to_vec());
    let count: i64 =
        query.build_query_scalar().fetch_one(&mut tx.connection).await.map_err(failed)?;
    natural(count, "count")
}

fn level(word: &str) -> Result<Level> {
    Level::from_word(word).ok_or_else(|| damaged("level", "is no level"))
}

fn member(row: &Row) -> Result<Member> {
    let id = columns::id(row, "id")?;
    let read = || -> Result<Member> {
        Ok(Member {
            id,
            project: columns::id(row, "project")?,
            user: columns::id(row, "member")?,
            username: columns::get(row, "username")?,
            level: level(columns::get(row, "level")?)?,
            created_at_ms: columns::get(row, "created_at_ms")?,
            updated_at_ms: columns::get(row, "updated_at_ms")?,
        })
    };
    read().map_err(columns::of("member", id))
}
