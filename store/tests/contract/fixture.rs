//! A small world to test in: a user, a server and a project, and values that differ from each other.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use gantry_model::{
    ContainerId, ContainerSpec, Id, Phase, ProjectId, RealmId, TokenId, Wish,
    container::{Color, ContainerName, Environment, ImageName, RamdiskScope},
    project::{ProjectAlias, ProjectSpec},
    ssh::SshPublicKey,
};
use gantry_store::{
    Container, ContainerFilter, ContainerSort, ContainerStatus, EnvironmentSync, Page, Project,
    Server, Store, Token, User, Version,
};

/// An instant; tests add to it.
pub(crate) const NOW_MS: i64 = 1_790_000_000_000;

/// The page that holds everything, oldest first.
pub(crate) const ALL: Page<ContainerSort> =
    Page { page: 1, limit: 1000, sort: ContainerSort::CreatedAt, descending: false };

/// Every container, those being deleted included.
pub(crate) const EVERY: ContainerFilter = ContainerFilter {
    seen_by: None,
    project: None,
    realm: None,
    server: None,
    include_deleting: true,
    include_prespawn: true,
};

/// A store with a user, a server and a project in it.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) owner: User,
    pub(crate) server: Server,
    pub(crate) project: Project,
}

impl World {
    /// Fills an empty store.
    pub(crate) async fn new(store: Store) -> Self {
        let owner = user("owner");
        store.create_user(&owner).await.unwrap();
        let server = store.ensure_server(id(), &"local".parse().unwrap(), NOW_MS).await.unwrap();
        let project = project(&owner, "first");
        store.create_project(&project).await.unwrap();
        Self { store, owner, server, project }
    }

    /// A container of the world's project, not yet in the store.
    pub(crate) fn container(&self, name: &str) -> Container {
        self.container_in(self.project.id, name)
    }

    /// A container of some project, not yet in the store.
    pub(crate) fn container_in(&self, project: ProjectId, name: &str) -> Container {
        Container {
            id: id(),
            project,
            owner: self.owner.id,
            server: self.server.id,
            spec: spec(name),
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
        }
    }

    /// Adds a container to the world's project.
    pub(crate) async fn create(&self, name: &str) -> Container {
        self.store.create_container(&self.container(name)).await.unwrap()
    }

    /// The present record.
    pub(crate) async fn read(&self, id: ContainerId) -> Container {
        self.store.container(id).await.unwrap().unwrap()
    }
}

/// An id that no other call returns in this process.
pub(crate) fn id<K>() -> Id<K> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Id::from_bytes(bytes)
}

pub(crate) fn user(username: &str) -> User {
    User {
        id: id(),
        username: username.to_owned(),
        password_hash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA".to_owned(),
        is_admin: true,
        session_generation: 1,
        created_at_ms: NOW_MS,
        updated_at_ms: NOW_MS,
    }
}

pub(crate) fn token(owner: &User, alias: &str) -> Token {
    let id: TokenId = id();
    let mut hash = [7; 32];
    hash[..12].copy_from_slice(id.as_bytes());
    Token {
        id,
        owner: owner.id,
        alias: alias.to_owned(),
        prefix: "hdy_abcd".to_owned(),
        hash,
        realms: vec![RealmId::from_bytes([3; 12]), RealmId::from_bytes([4; 12])],
        allow_no_realm: true,
        event_access: false,
        vault_access: true,
        ip_whitelist: vec!["10.0.0.0/8".to_owned()],
        permissions: r#"{"actions":{"start":true}}"#.to_owned(),
        expires_at_ms: Some(NOW_MS + 1000),
        enabled: true,
        last_used_at_ms: None,
        last_used_ip: None,
        created_at_ms: NOW_MS,
        updated_at_ms: NOW_MS,
        created_by: Some(TokenId::from_bytes([5; 12])),
        depth: 2,
    }
}

pub(crate) fn project(owner: &User, alias: &str) -> Project {
    Project {
        id: id(),
        owner: owner.id,
        spec: ProjectSpec {
            alias: ProjectAlias::parse("alias", alias).unwrap(),
            color: Color::from_rgb([0x34, 0x98, 0xdb]),
            max_containers: None,
            realms: Vec::new(),
        },
        version: Version::FIRST,
        created_at_ms: NOW_MS,
        updated_at_ms: NOW_MS,
    }
}

pub(crate) fn spec(name: &str) -> ContainerSpec {
    ContainerSpec {
        name: ContainerName::parse("name", name).unwrap(),
        color: Color::from_rgb([1, 2, 3]),
        image: ImageName::parse("container_image", ImageName::DEFAULT).unwrap(),
        hoody_kit: true,
        dev_kit: false,
        ai: false,
        autostart: true,
        ramdisk: false,
        kvm: false,
        ramdisk_scope: RamdiskScope::Container,
        cache: true,
        environment: Environment::default(),
        ssh_public_key: None,
        ssh_forwarding: true,
        comment: None,
        realms: Vec::new(),
    }
}

/// The ed25519 key with this point.
pub(crate) fn key(point: [u8; 32]) -> SshPublicKey {
    let mut blob = Vec::new();
    for part in [b"ssh-ed25519".as_slice(), &point] {
        blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        blob.extend(part);
    }
    let line = format!("ssh-ed25519 {}", BASE64_STANDARD.encode(blob));
    SshPublicKey::parse("ssh_public_key", &line).unwrap()
}
