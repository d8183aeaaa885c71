//! What the operator may choose.

use std::path::PathBuf;

use reqwest::Url;

use super::{
    Recipe,
    image::{DIR_DEFAULT, ImagesConfig, Mapping, TARBALLS_DEFAULT},
};
use crate::network::{NetworkConfig, plain};

/// How the embedded runtime is set up on this host.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where containers are kept: records, file systems, the state of `runc`. The mapped root must
    /// be able to pass through every directory above it (mode bits `o+x`).
    pub dir: PathBuf,
    /// Where unpacked images are kept; the same condition as for `dir`.
    pub image_dir: PathBuf,
    /// Where the operator's tarballs are looked for; need not exist.
    pub tarballs: PathBuf,
    /// The simplestreams server that has images of other names, if there is one.
    pub image_server: Option<Url>,
    /// What images can be made.
    pub recipes: Vec<Recipe>,
    /// The OCI runtime, by name or by path; `crun` is possible.
    pub runc: PathBuf,
    /// The `nft` program, by name or by path.
    pub nft: PathBuf,
    /// The control group above those of the containers, a plain name.
    pub cgroup: String,
    /// How ids of containers map to those of the host.
    pub mapping: Mapping,
    /// How much memory the containers of one project may share, in bytes.
    pub project_ramdisk_bytes: u64,
    /// Whether containers whose orders want it get the host's `/dev/kvm`.
    pub kvm: bool,
    /// The container network.
    pub network: NetworkConfig,
}

impl Config {
    /// The usual places and names with these recipes.
    pub fn new(recipes: Vec<Recipe>) -> Self {
        Self {
            dir: "/var/lib/gantry/runtime".into(),
            image_dir: DIR_DEFAULT.into(),
            tarballs: TARBALLS_DEFAULT.into(),
            image_server: None,
            recipes,
            runc: "runc".into(),
            nft: "nft".into(),
            cgroup: "gantry".to_owned(),
            mapping: Mapping::default(),
            project_ramdisk_bytes: 512 << 20,
            kvm: false,
            network: NetworkConfig::default(),
        }
    }

    pub(super) fn images(&self) -> ImagesConfig {
        ImagesConfig {
            dir: self.image_dir.clone(),
            tarballs: self.tarballs.clone(),
            server: self.image_server.clone(),
            recipes: self.recipes.clone(),
            mapping: self.mapping,
        }
    }

    /// What is wrong with it, in sentences; empty when nothing is.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = self.network.faults();
        if !plain(&self.cgroup) {
            faults.push("the control group's name must be a letter and some of a-z0-9_".to_owned());
        }
        if !self.dir.is_absolute() || !self.image_dir.is_absolute() {
            faults.push("directories must be absolute paths".to_owned());
        }
        if self.mapping.base == 0 || self.mapping.size < 65_536 {
            faults.push("the id mapping must not start at 0 and must have 65536 ids".to_owned());
        }
        faults
    }
}
