//! A real store with one user, one server and some projects.

use std::{path::PathBuf, time::Duration};

use gantry_model::{
    AliasId, ContainerId, ContainerSpec, Phase, ProjectId, Scheme, ServerId, UserId, Wish,
    access::Document,
    alias::AliasTarget,
    container::{Color, ContainerName, Environment, ImageName, RamdiskScope},
    edge::{EdgeSettings, WakePolicy},
    project::{ProjectAlias, ProjectSpec},
};
use gantry_router::Servers;
use gantry_store::{
    Access, Alias, AliasFilter, AliasRules, Container, ContainerStatus, CustomHostname,
    EnvironmentSync, HostnameProof, Project, Scope, Store, User, Version,
};
use sqlx::{Connection as _, SqliteConnection};

pub(crate) const NOW_MS: i64 = 1_790_000_000_000;

pub(crate) fn container_id(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 12])
}

pub(crate) fn project_id(number: u8) -> ProjectId {
    ProjectId::from_bytes([0x80 | number; 12])
}

/// A store in a directory of its own.
pub(crate) struct World {
    pub(crate) store: Store,
    path: PathBuf,
    server: ServerId,
    _dir: tempfile::TempDir,
}

impl World {
    /// Those that routes lead to.
    pub(crate) fn servers(&self) -> Servers {
        Servers::new([(self.server, "local".parse().unwrap())])
    }

    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gantry.db");
        let store = Store::open(&path).await.unwrap();
        let user = User {
            id: UserId::from_bytes([1; 12]),
            username: "owner".to_owned(),
            password_hash: "none".to_owned(),
            is_admin: false,
            session_generation: 0,
            created_at_ms: NOW_MS,
            updated_at_ms: NOW_MS,
        };
        store.create_user(&user).await.unwrap();
        let name = "local".parse().unwrap();
        let server =
            store.ensure_server(ServerId::from_bytes([2; 12]), &name, NOW_MS).await.unwrap();
        for number in 1..4 {
            let spec = ProjectSpec {
                alias: ProjectAlias::parse("alias", &format!("project {number}")).unwrap(),
                color: Color::from_rgb([0; 3]),
                max_containers: None,
                realms: Vec::new(),
            };
            let project = Project {
                id: project_id(number),
                owner: user.id,
                spec,
                version: Version::FIRST,
                created_at_ms: NOW_MS,
                updated_at_ms: NOW_MS,
            };
            store.create_project(&project).await.unwrap();
        }
        Self { store, path, server: server.id, _dir: dir }
    }

    pub(crate) async fn create(&self, number: u8, project: u8) -> Container {
        let spec = ContainerSpec {
            name: ContainerName::parse("name", &format!("container-{number}")).unwrap(),
            color: Color::from_rgb([0; 3]),
            image: ImageName::parse("image", ImageName::DEFAULT).unwrap(),
            hoody_kit: true,
            dev_kit: true,
            ai: true,
            autostart: true,
            ramdisk: true,
            kvm: false,
            ramdisk_scope: RamdiskScope::Container,
            cache: true,
            environment: Environment::default(),
            ssh_public_key: None,
            ssh_forwarding: true,
            comment: None,
            realms: Vec::new(),
        };
        let container = Container {
            id: container_id(number),
            project: project_id(project),
            owner: UserId::from_bytes([1; 12]),
            server: self.server,
            spec,
            wish: Wish::Running,
            wish_seq: 1,
            source: None,
            prespawn: false,
            status: ContainerStatus::first(Phase::Creating),
            environment_sync: EnvironmentSync::default(),
            ssh_key_since_ms: None,
            version: Version::FIRST,
            created_at_ms: NOW_MS,
            updated_at_ms: NOW_MS,
        };
        self.store.create_container(&container).await.unwrap()
    }

    /// Moves a container to a phase; one that runs gets an address and a new generation.
    pub(crate) async fn move_to(&self, number: u8, phase: Phase) -> Container {
        let container = self.store.container(container_id(number)).await.unwrap().unwrap();
        let mut status = container.status;
        status.phase = phase;
        status.address = None;
        if phase == Phase::Running {
            status.generation.0 += 1;
            status.address = Some([10, 88, 0, number].into());
            status.started_at_ms = Some(NOW_MS);
        }
        let by = "test";
        self.store.set_status(container.id, container.version, &status, by, NOW_MS).await.unwrap()
    }

    pub(crate) async fn remove(&self, number: u8) {
        self.store.remove_container(container_id(number), NOW_MS).await.unwrap();
    }

    /// Writes a permission document that closes its containers, or removes it.
    pub(crate) async fn set_access(&self, scope: Scope, closed: bool) {
        let document = Document { enable_proxy: Some(false), ..Document::default() };
        let Access { version, .. } = self.store.access(scope).await.unwrap();
        let access = Access { version, document: closed.then_some(document), hooks: Vec::new() };
        self.store.set_access(scope, access, NOW_MS).await.unwrap();
    }

    pub(crate) async fn set_wake(&self, number: u8, wake: WakePolicy) {
        let (version, settings) = self.store.edge_settings(container_id(number)).await.unwrap();
        let settings = EdgeSettings { wake, ..settings };
        let id = container_id(number);
        self.store.set_edge_settings(id, version, &settings, NOW_MS).await.unwrap();
    }

    /// Makes an alias of a container, perhaps with a custom hostname.
    pub(crate) async fn create_alias(&self, number: u8, label: &str, hostname: Option<&str>) {
        let container = self.store.container(container_id(number)).await.unwrap().unwrap();
        let number = self.store.head().borrow().0.to_be_bytes();
        let mut id = [0; 12];
        id[..8].copy_from_slice(&number);
        let alias = Alias {
            id: AliasId::from_bytes(id),
            owner: container.owner,
            project: container.project,
            container: container.id,
            server: container.server,
            label: label.to_owned(),
            target: AliasTarget::Port { scheme: Scheme::Http, port: 80 },
            target_path: None,
            allow_path_override: true,
            enabled: true,
            expires_at_ms: None,
            clear_site_data: false,
            version: Version::FIRST,
            created_at_ms: NOW_MS,
            updated_at_ms: NOW_MS,
        };
        let rules = AliasRules { per_owner_max: 100, quarantine_ms: 0, by_owner: true };
        self.store.create_alias(&alias, rules).await.unwrap();
        if let Some(hostname) = hostname {
            let hostname = CustomHostname {
                name: hostname.to_owned(),
                alias: alias.id,
                container: container.id,
                proof: HostnameProof::Named,
                is_proven: true,
                checked_at_ms: NOW_MS,
                created_at_ms: NOW_MS,
            };
            self.store.bind_hostname(&hostname, NOW_MS).await.unwrap();
        }
    }

    /// Removes the alias with this label, if there is one.
    pub(crate) async fn remove_alias(&self, label: &str) {
        let all = self.store.aliases(AliasFilter::default(), 100).await.unwrap();
        if let Some(alias) = all.into_iter().find(|alias| alias.label == label) {
            self.store.remove_alias(alias.id, NOW_MS).await.unwrap();
        }
    }

    /// Changes the database behind the store's back, as a fault of the disk or of a person would.
    pub(crate) async fn tamper(&self, statement: &'static str) {
        let url = format!("sqlite:{}", self.path.display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

/// Waits until `holds`, for at most ten seconds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let bound = Duration::from_secs(10);
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(bound, wait).await.is_ok(), "{what}: not within {bound:?}");
}
