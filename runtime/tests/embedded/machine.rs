//! A host for one test: its own directory, bridge, subnet and control group.

use std::{
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::FutureExt as _;
use gantry_model::{ContainerId, container::ImageName};
use gantry_runtime::{
    Error, Exec, Runtime,
    embedded::{Config, Embedded, NetworkConfig},
};
use ipnet::Ipv4Net;

use crate::{
    busybox::{INIT_PIDS, tarball},
    contract::{Host, id, until},
};

/// A port of the host that containers may reach.
pub(crate) const OPEN_PORT: u16 = 48_443;

/// A host with one runtime on it.
pub(crate) struct Machine {
    dir: tempfile::TempDir,
    /// How the runtime is set up.
    pub(crate) config: Config,
    runtime: Option<Arc<Embedded>>,
}

impl Host for Machine {
    fn runtime(&self) -> Arc<dyn Runtime> {
        self.embedded()
    }

    async fn restart(&mut self) -> Arc<dyn Runtime> {
        self.runtime = None;
        let next = Embedded::open(self.config.clone()).await.expect("the next one opens");
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
    /// The runtime, as what it is.
    pub(crate) fn embedded(&self) -> Arc<Embedded> {
        Arc::clone(self.runtime.as_ref().expect("it is open"))
    }

    /// What the n-th container has for sessions.
    pub(crate) fn place(&self, n: u8) -> PathBuf {
        self.home(n).join("session")
    }

    /// The program in it.
    pub(crate) fn program(&self, n: u8) -> PathBuf {
        let mut entries = std::fs::read_dir(self.place(n)).unwrap();
        entries.next().expect("it is there").unwrap().path()
    }

    /// The runtime's directory of a test's n-th container.
    pub(crate) fn home(&self, n: u8) -> PathBuf {
        self.config.dir.join("containers").join(id(n).to_string())
    }

    /// What a shell in the n-th container prints.
    pub(crate) async fn shell(&self, n: u8, script: &str) -> String {
        let output = self.runtime().exec(id(n), &Exec::new(["sh", "-c", script])).await.unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// A machine of its own for each test: directory, bridge, subnet, control group.
fn config(dir: &Path) -> Config {
    let pid = std::process::id();
    let (high, low) = (128 + u8::try_from(pid >> 8 & 127).unwrap(), pid.to_le_bytes()[0]);
    Config {
        dir: dir.join("state"),
        image_dir: dir.join("images"),
        tarballs: dir.join("tarballs"),
        cgroup: format!("gantrytest{pid}"),
        kvm: true,
        network: NetworkConfig {
            bridge: format!("gt{pid}"),
            subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, high, low, 0), 24),
            host_ports: vec![OPEN_PORT],
            nameservers: vec![Ipv4Addr::new(192, 0, 2, 53).into()],
            ..NetworkConfig::default()
        },
        ..Config::new(Vec::new())
    }
}

async fn machine() -> Option<Machine> {
    // Not the usual place: that may be memory, which overlayfs cannot always write to.
    let dir = tempfile::Builder::new().prefix("gantry-").tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = config(dir.path());
    let opened = match tarball(&config.tarballs.join("busybox/1.tar")) {
        Ok(()) => Embedded::open(config.clone()).await,
        Err(error) => Err(Error::Denied { missing: vec![format!("busybox ({error})")] }),
    };
    match opened {
        Ok(runtime) => Some(Machine { dir, config, runtime: Some(Arc::new(runtime)) }),
        Err(error @ Error::Denied { .. }) if std::env::var_os("CI").is_none() => {
            eprintln!("\n*** NOT TESTED: {error} ***\n");
            None
        }
        Err(error) => panic!("{}", gantry_model::Chain(&error)),
    }
}

/// Runs a test on a machine and takes everything back from the host, whatever happened.
pub(crate) async fn run(test: impl AsyncFn(&mut Machine)) {
    let Some(mut machine) = machine().await else { return };
    let result = AssertUnwindSafe(test(&mut machine)).catch_unwind().await;
    if let Err(panic) = result {
        clean_up(machine).await;
        std::panic::resume_unwind(panic);
    }
    clean_up(machine).await;
}

async fn clean_up(mut machine: Machine) {
    machine.runtime = None;
    let runtime = Embedded::open(machine.config.clone()).await.expect("it opens for cleaning");
    runtime.uninstall().await.expect("everything can be taken back");
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let ours = machine.dir.path().to_str().unwrap();
    assert!(!mounts.contains(ours), "no mount stays");
    let bridge = Path::new("/sys/class/net").join(&machine.config.network.bridge);
    assert!(!bridge.exists(), "no bridge stays");
    for dir in ["containers", "snapshots", "trash"] {
        assert!(std::fs::read_dir(machine.config.dir.join(dir)).unwrap().next().is_none(), "{dir}");
    }
    for controller in ["memory", "systemd", "unified", "."] {
        let group = Path::new("/sys/fs/cgroup").join(controller).join(&machine.config.cgroup);
        assert!(!group.exists(), "{} stays", group.display());
    }
}
