use std::path::Path;
use gantry_model::*;
use crate::{record::*, *};
use tokio::sync::watch;

macro_rules! gone { () => { Err(Error::Unavailable(Outage::Closed)) } }

impl Store {
    /// Opens.
    pub async fn open(path: &Path) -> Result<Self, OpenError> { Ok(Self) }
    /// Closes; waits for the writer.
    pub async fn close(&self) {}
    /// Epoch.
    pub fn epoch(&self) -> Epoch { Epoch([0; 16]) }
    /// Head.
    pub fn head(&self) -> watch::Receiver<Revision> { watch::channel(Revision(0)).1 }
    /// Copies the database into a new file.
    pub async fn backup(&self, to: &Path) -> Result<()> { gone!() }

    /// Adds a user.
    pub async fn create_user(&self, user: &User) -> Result<()> { gone!() }
    /// .
    pub async fn user(&self, id: UserId) -> Result<Option<User>> { gone!() }
    /// .
    pub async fn user_by_name(&self, username: &str) -> Result<Option<User>> { gone!() }
    /// .
    pub async fn update_password(&self, id: UserId, password_hash: &str, now_ms: i64) -> Result<()> { gone!() }
    /// Returns the new generation.
    pub async fn bump_session_generation(&self, id: UserId, now_ms: i64) -> Result<u64> { gone!() }
    /// .
    pub async fn count_users(&self) -> Result<u64> { gone!() }

    /// .
    pub async fn create_token(&self, token: &Token) -> Result<()> { gone!() }
    /// .
    pub async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<Token>> { gone!() }
    /// .
    pub async fn tokens(&self, owner: UserId) -> Result<Vec<Token>> { gone!() }
    /// .
    pub async fn token(&self, owner: UserId, id: TokenId) -> Result<Option<Token>> { gone!() }
    /// .
    pub async fn update_token(&self, token: &Token) -> Result<()> { gone!() }
    /// .
    pub async fn delete_token(&self, owner: UserId, id: TokenId) -> Result<()> { gone!() }
    /// .
    pub async fn touch_token(&self, id: TokenId, ip: &str, now_ms: i64) -> Result<()> { gone!() }

    /// .
    pub async fn get_or_insert_secret(&self, name: &str, candidate: &[u8]) -> Result<Vec<u8>> { gone!() }
    /// .
    pub async fn ensure_server(&self, candidate: ServerId, name: &ServerName, now_ms: i64) -> Result<Server> { gone!() }
    /// .
    pub async fn servers(&self) -> Result<Vec<Server>> { gone!() }

    /// .
    pub async fn create_project(&self, project: &Project) -> Result<()> { gone!() }
    /// .
    pub async fn project(&self, id: ProjectId) -> Result<Option<Project>> { gone!() }
    /// .
    pub async fn projects(&self, owner: Option<UserId>, realm: Option<RealmId>, page: Page<ProjectSort>) -> Result<Listed<Project>> { gone!() }
    /// CAS on `version`.
    pub async fn update_project(&self, project: &Project) -> Result<Project> { gone!() }
    /// .
    pub async fn delete_project(&self, id: ProjectId) -> Result<()> { gone!() }

    /// .
    pub async fn create_container(&self, container: &Container) -> Result<Container> { gone!() }
    /// .
    pub async fn container(&self, id: ContainerId) -> Result<Option<Container>> { gone!() }
    /// .
    pub async fn containers(&self, filter: ContainerFilter, page: Page<ContainerSort>) -> Result<Listed<Container>> { gone!() }
    /// .
    pub async fn containers_of_server(&self, server: ServerId) -> Result<Vec<Container>> { gone!() }
    /// .
    pub async fn update_spec(&self, id: ContainerId, version: Version, spec: &ContainerSpec, now_ms: i64) -> Result<Container> { gone!() }
    /// .
    pub async fn set_wish(&self, id: ContainerId, version: Version, wish: Wish, phase: Phase, triggered_by: &str, now_ms: i64) -> Result<Container> { gone!() }
    /// .
    pub async fn set_status(&self, id: ContainerId, version: Version, status: &ContainerStatus, triggered_by: &str, now_ms: i64) -> Result<Container> { gone!() }
    /// .
    pub async fn remove_container(&self, id: ContainerId, now_ms: i64) -> Result<()> { gone!() }
    /// .
    pub async fn status_logs(&self, container: ContainerId, page: Page<LogSort>) -> Result<Listed<StatusLog>> { gone!() }

    /// .
    pub async fn idempotency_begin(&self, scope: &str, key: &str, body_hash: &[u8; 32], now_ms: i64) -> Result<Idempotency> { gone!() }
    /// .
    pub async fn idempotency_finish(&self, scope: &str, key: &str, status: u16, body: &[u8], now_ms: i64) -> Result<()> { gone!() }
    /// .
    pub async fn idempotency_abandon(&self, scope: &str, key: &str) -> Result<()> { gone!() }
    /// Returns how many were removed.
    pub async fn sweep_idempotency(&self, before_ms: i64) -> Result<u64> { gone!() }

    /// .
    pub async fn load_routes(&self) -> Result<RouteSnapshot> { gone!() }
    /// .
    pub async fn changes(&self, after: Revision, limit: u32) -> Result<Changes> { gone!() }
    /// .
    pub async fn route_records(&self, ids: &[ContainerId]) -> Result<Vec<(ContainerId, Option<RouteRecord>)>> { gone!() }
}
