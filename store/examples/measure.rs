//! How fast the store is on this machine: creations with 1, 8, 32 and 64 callers, and loading the
//! routes of 100,000 containers. `cargo run --release -p gantry-store --example measure [folder]`.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::{error::Error, path::PathBuf, time::Instant};

use gantry_model::{
    ContainerSpec, Generation, Id, Phase, Wish,
    container::{Color, ContainerName, Environment, ImageName, RamdiskScope},
    project::{ProjectAlias, ProjectSpec},
};
use gantry_store::{Container, ContainerStatus, EnvironmentSync, Project, Store, User, Version};
use tokio::task::JoinSet;

const CONTAINERS: u32 = 100_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("gantry-store-measure-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let measured = measure(&folder.join("gantry.db")).await;
    std::fs::remove_dir_all(&folder)?;
    measured
}

async fn measure(path: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let store = Store::open(path).await?;
    let template = template(&store).await?;
    let mut next = 0;
    for (callers, each) in [(1, 500), (8, 200), (32, 100), (64, 100)] {
        let took = create(&store, &template, &mut next, callers, each).await?;
        println!("{callers:>3} callers: {:>6.0} creations/s", f64::from(callers * each) / took);
    }
    let rest = (CONTAINERS - next) / 64 + 1;
    let took = create(&store, &template, &mut next, 64, rest).await?;
    println!("the rest:    {:>6.0} creations/s", f64::from(rest * 64) / took);
    let start = Instant::now();
    let routes = store.load_routes().await?;
    let took = start.elapsed();
    println!("{} routes loaded in {took:.1?}", routes.containers.len());
    let start = Instant::now();
    store.close().await;
    println!("closed in {:.1?}", start.elapsed());
    Ok(())
}

async fn create(
    store: &Store,
    template: &Container,
    next: &mut u32,
    callers: u32,
    each: u32,
) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (store, template, first) = (store.clone(), template.clone(), *next);
        *next += each;
        tasks.spawn(async move {
            for number in first..first + each {
                let mut container = template.clone();
                // Spread over the key space, as random ids are.
                let mixed =
                    u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
                let [_, _, _, _, id @ ..] = mixed.to_be_bytes();
                container.id = Id::from_bytes(id);
                container.spec.name = ContainerName::parse("name", &format!("number-{number}"))
                    .map_err(|error| error.to_string())?;
                store.create_container(&container).await.map_err(|error| error.to_string())?;
            }
            Ok::<(), String>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(start.elapsed().as_secs_f64())
}

async fn template(store: &Store) -> Result<Container, Box<dyn Error>> {
    let owner = User {
        id: Id::from_bytes([1; 12]),
        username: "owner".to_owned(),
        password_hash: String::new(),
        is_admin: false,
        session_generation: 0,
        created_at_ms: 0,
        updated_at_ms: 0,
    };
    store.create_user(&owner).await?;
    let color = Color::from_rgb([0; 3]);
    let project = Project {
        id: Id::from_bytes([2; 12]),
        owner: owner.id,
        spec: ProjectSpec {
            alias: ProjectAlias::parse("alias", "measured")?,
            color,
            max_containers: None,
            realms: Vec::new(),
        },
        version: Version::FIRST,
        created_at_ms: 0,
        updated_at_ms: 0,
    };
    store.create_project(&project).await?;
    let server = store.ensure_server(Id::from_bytes([3; 12]), &"local".parse()?, 0).await?;
    let status = ContainerStatus {
        address: Some("10.88.0.2".parse()?),
        generation: Generation(1),
        done_seq: 1,
        started_at_ms: Some(0),
        boot_id: Some("0d5c8a3e-9d3f-4a61-b0ad-6c6f2b9f1c11".to_owned()),
        ..ContainerStatus::first(Phase::Running)
    };
    Ok(Container {
        id: Id::from_bytes([0; 12]),
        project: project.id,
        owner: owner.id,
        server: server.id,
        spec: spec(color)?,
        wish: Wish::Running,
        wish_seq: 1,
        source: None,
        prespawn: false,
        status,
        environment_sync: EnvironmentSync::default(),
        ssh_key_since_ms: None,
        version: Version::FIRST,
        created_at_ms: 0,
        updated_at_ms: 0,
    })
}

fn spec(color: Color) -> Result<ContainerSpec, Box<dyn Error>> {
    Ok(ContainerSpec {
        name: ContainerName::parse("name", "replaced")?,
        color,
        image: ImageName::parse("image", ImageName::DEFAULT)?,
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
    })
}
