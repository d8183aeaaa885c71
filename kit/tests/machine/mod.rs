//! A container of one image on a network of its own.

use std::{net::IpAddr, net::Ipv4Addr, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use gantry_kit::{Kit, recipes};
use gantry_model::{Chain, ContainerId, container::ImageName};
use gantry_runtime::{
    Error, Exec, ExecOutput, Limits, Order, Runtime as _,
    embedded::{Config, Embedded, File, NetworkConfig, Recipe},
};
use ipnet::Ipv4Net;
use tokio::time::Instant;

/// How long a container may take to be there, its image built on the way.
const BUILD_TIME_MAX: Duration = Duration::from_mins(12);

/// A running container.
pub(crate) struct Machine {
    runtime: Embedded,
    id: ContainerId,
    address: IpAddr,
}

impl Machine {
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    pub(crate) fn url(&self, port: u16, path: &str) -> String {
        format!("http://{}:{port}{path}", self.address)
    }

    pub(crate) async fn exec(&self, command: &Exec) -> ExecOutput {
        match self.runtime.exec(self.id, command).await {
            Ok(output) => output,
            Err(error) => panic!("{:?}: {}", command.argv, Chain(&error)),
        }
    }

    /// What a shell in the container prints.
    pub(crate) async fn shell(&self, script: &str) -> String {
        let output = self.exec(&Exec::new(["sh", "-c", script])).await;
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

fn builder_recipe(recipe: gantry_kit::Recipe) -> Recipe {
    let file = |file: gantry_kit::File| File {
        path: file.path.to_owned(),
        mode: file.mode,
        contents: file.contents,
    };
    Recipe {
        image: recipe.image,
        kit: match recipe.kit {
            Kit::None => gantry_runtime::Kit::None,
            Kit::Base => gantry_runtime::Kit::Base,
            Kit::Dev => gantry_runtime::Kit::Dev,
        },
        suite: recipe.suite.to_owned(),
        packages: recipe.packages,
        files: recipe.files.into_iter().map(file).collect(),
        commands: recipe.commands,
    }
}

/// Runs a test in a container of the image, and takes everything back from the host but the image.
pub(crate) async fn run(image: &str, number: u8, test: impl AsyncFn(&Machine)) {
    let dir = tempfile::Builder::new().prefix("gantry-kit-").tempdir_in("/var/tmp").unwrap();
    let anyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), anyone).unwrap();
    let pid = std::process::id();
    let config = Config {
        dir: dir.path().join("state"),
        tarballs: dir.path().join("tarballs"),
        cgroup: format!("gantrykit{number}_{pid}"),
        network: NetworkConfig {
            bridge: format!("gk{number}_{pid}"),
            // Not of the ranges that tests beside it use.
            subnet: Ipv4Net::new_assert(
                Ipv4Addr::new(10, 40 + number, pid.to_le_bytes()[0], 0),
                24,
            ),
            ..NetworkConfig::default()
        },
        ..Config::new(recipes().into_iter().map(builder_recipe).collect())
    };
    let runtime = match Embedded::open(config.clone()).await {
        Ok(runtime) => runtime,
        Err(error @ Error::Denied { .. }) if std::env::var_os("CI").is_none() => {
            eprintln!("\n*** NOT TESTED: {error} ***\n");
            return;
        }
        Err(error) => panic!("{}", Chain(&error)),
    };
    let result = AssertUnwindSafe(in_container(runtime, image, number, test)).catch_unwind().await;
    let runtime = Embedded::open(config).await.expect("it opens for cleaning");
    runtime.uninstall().await.expect("everything can be taken back");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

async fn in_container(runtime: Embedded, image: &str, number: u8, test: impl AsyncFn(&Machine)) {
    let order = Order {
        id: ContainerId::from_bytes([number; 12]),
        hostname: format!("kit-{number}"),
        image: ImageName::parse("image", image).unwrap(),
        kit: gantry_runtime::Kit::Base,
        cache: true,
        env: [("KIT_TEST".to_owned(), "seen by shells".to_owned())].into(),
        ramdisk: false,
        kvm: false,
        project_ramdisk: None,
        limits: Limits { memory_bytes: 1 << 30, cpu_millis: 2000, pids: 500 },
        firewall: gantry_runtime::Firewall::default(),
        outbound: gantry_runtime::Outbound::default(),
    };
    let made = tokio::time::timeout(BUILD_TIME_MAX, runtime.ensure_created(&order)).await;
    if let Err(error) = made.expect("it is made in time") {
        panic!("{}", Chain(&error));
    }
    let begin = Instant::now();
    let running = match runtime.ensure_running(&order).await {
        Ok(running) => running,
        Err(error) => panic!("{}", Chain(&error)),
    };
    eprintln!("{image}: the start took {:?}", begin.elapsed());
    let machine = Machine { runtime, id: order.id, address: running.address };
    test(&machine).await;
}
