//! What the operator may choose.

use std::path::PathBuf;

use crate::{
    NetworkConfig,
    embedded::{Recipe, image::ImagesConfig},
    network::plain,
};

/// How Incus is used on this host.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where Incus listens.
    pub socket: PathBuf,
    /// The project that containers and images live in; made when missing. One installation each.
    pub project: String,
    /// The storage pool that file systems live in; must exist.
    pub pool: String,
    /// Where ramdisks are mounted, and whose name marks the project as this installation's.
    pub dir: PathBuf,
    /// The `nft` program, by name or by path.
    pub nft: PathBuf,
    /// Where images come from: the same ones as those of the embedded runtime, from one cache.
    pub images: ImagesConfig,
    /// How much memory the containers of one project may share, in bytes.
    pub project_ramdisk_bytes: u64,
    /// Whether containers whose orders want it get the host's `/dev/kvm`.
    pub kvm: bool,
    /// The container network. Its bridge is ours, not one that Incus manages.
    pub network: NetworkConfig,
}

impl Config {
    /// The usual places and names with these recipes.
    pub fn new(recipes: Vec<Recipe>) -> Self {
        Self {
            socket: "/var/lib/incus/unix.socket".into(),
            project: "gantry".to_owned(),
            pool: "default".to_owned(),
            dir: "/var/lib/gantry/runtime".into(),
            nft: "nft".into(),
            images: ImagesConfig::new(recipes),
            project_ramdisk_bytes: 512 << 20,
            kvm: false,
            network: NetworkConfig::default(),
        }
    }

    /// What is wrong with it, in sentences; empty when nothing is.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = self.network.faults();
        for (what, name) in [("project", &self.project), ("storage pool", &self.pool)] {
            // What Incus takes, and what needs no escapes in paths.
            if !plain(&name.replace('-', "_")) || name.len() > 63 {
                faults.push(format!("the {what}'s name must be a letter and some of a-z0-9-"));
            }
        }
        if !self.dir.is_absolute() || !self.images.dir.is_absolute() {
            faults.push("directories must be absolute paths".to_owned());
        }
        faults
    }
}
