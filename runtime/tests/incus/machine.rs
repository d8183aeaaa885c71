//! An installation for one test: its own directory, project, bridge and subnet.

use std::{
    net::Ipv4Addr,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use futures_util::FutureExt as _;
use gantry_model::{ContainerId, container::ImageName};
use gantry_runtime::{
    Exec, NetworkConfig, Runtime,
    incus::{Config, Incus},
};
use ipnet::Ipv4Net;

use crate::{
    busybox::{INIT_PIDS, tarball},
    contract::{Host, id, until},
};

/// What names the socket of the Incus that the tests may use.
const SOCKET: &str = "GANTRY_TEST_INCUS";

/// A port of the host that containers may reach.
pub(crate) const OPEN_PORT: u16 = 48_444;

/// A host with one runtime on it.
pub(crate) struct Machine {
    _dir: tempfile::TempDir,
    /// How the runtime is set up.
    pub(crate) config: Config,
    runtime: Option<Arc<Incus>>,
}

impl Host for Machine {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(self.runtime.as_ref().expect("it is open")) as Arc<dyn Runtime>
    }

    async fn restart(&mut self) -> Arc<dyn Runtime> {
        self.runtime = None;
        let next = Incus::open(self.config.clone()).await.expect("the next one opens");
        self.runtime = Some(Arc::new(next));
        self.runtime()
    }

    async fn settle(&self, id: ContainerId) {
        let runtime = self.runtime();
        until("the init sleeps", async || {
            runtime.stats(id).await.is_ok_and(|stats| stats.pids == INIT_PIDS)
        })
        .await;
    }

    fn image(&self) -> ImageName {
        ImageName::parse("image", "busybox/1").unwrap()
    }
}

impl Machine {
    /// What the n-th container has for sessions.
    pub(crate) fn place(&self, n: u8) -> PathBuf {
        self.config.dir.join("sessions").join(id(n).to_string())
    }

    /// The program in it.
    pub(crate) fn program(&self, n: u8) -> PathBuf {
        let mut entries = std::fs::read_dir(self.place(n)).unwrap();
        entries.next().expect("it is there").unwrap().path()
    }

    /// What a shell in the n-th container prints.
    pub(crate) async fn shell(&self, n: u8, script: &str) -> String {
        let output = self.runtime().exec(id(n), &Exec::new(["sh", "-c", script])).await.unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Makes another installation on the same Incus, with images of its own.
    pub(crate) async fn another(&self) -> Self {
        open(self.config.socket.clone().as_path(), &self.config.pool).await
    }

    /// Takes everything back from the host.
    pub(crate) async fn clean_up(mut self) {
        // A test that failed may still hold it.
        let runtime = match self.runtime.take().and_then(Arc::into_inner) {
            Some(runtime) => runtime,
            None => Incus::open(self.config.clone()).await.expect("it opens for cleaning"),
        };
        runtime.uninstall().await.expect("everything can be taken back");
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains(self.config.dir.to_str().unwrap()), "no mount stays");
        let bridge = Path::new("/sys/class/net").join(&self.config.network.bridge);
        assert!(!bridge.exists(), "no bridge stays");
    }
}

async fn open(socket: &Path, pool: &str) -> Machine {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = tempfile::Builder::new().prefix("gantry-").tempdir_in("/var/tmp").unwrap();
    let pid = std::process::id();
    let mut config = Config::new(Vec::new());
    config.socket = socket.to_owned();
    config.pool = pool.to_owned();
    config.kvm = true;
    config.project = format!("gantrytest{pid}-{next}");
    config.dir = dir.path().join("state");
    config.images.dir = dir.path().join("images");
    config.images.tarballs = dir.path().join("tarballs");
    let (high, low) = (pid.to_be_bytes()[2], pid.to_le_bytes()[0]);
    config.network = NetworkConfig {
        bridge: format!("gi{pid}_{next}"),
        // Not of the ranges that tests beside it use: a network within another's takes those addresses from it.
        subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, 96 + high % 16, low, next << 5), 27),
        host_ports: vec![OPEN_PORT],
        nameservers: vec![Ipv4Addr::new(192, 0, 2, 53).into()],
        ..NetworkConfig::default()
    };
    tarball(&config.images.tarballs.join("busybox/1.tar")).expect("the static busybox is there");
    let runtime = Incus::open(config.clone()).await;
    let runtime = runtime.unwrap_or_else(|error| panic!("{}", gantry_model::Chain(&error)));
    Machine { _dir: dir, config, runtime: Some(Arc::new(runtime)) }
}

/// Runs a test with a pool of directories.
pub(crate) async fn on_dir(test: impl AsyncFn(&mut Machine)) {
    run("gantry-dir", test).await;
}

/// Runs a test with a pool of clones.
pub(crate) async fn on_btrfs(test: impl AsyncFn(&mut Machine)) {
    run("gantry-btrfs", test).await;
}

/// Runs a test on a machine and takes everything back from the host, whatever happened.
async fn run(pool: &str, test: impl AsyncFn(&mut Machine)) {
    let Some(socket) = std::env::var_os(SOCKET) else {
        let why = format!("{SOCKET} names no Incus; run this by scripts/incus run");
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("\n*** NOT TESTED: {why} ***\n");
        return;
    };
    let mut machine = open(Path::new(&socket), pool).await;
    let result = AssertUnwindSafe(test(&mut machine)).catch_unwind().await;
    machine.clean_up().await;
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
