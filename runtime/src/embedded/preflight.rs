//! Whether this process and this host have what containers need, told in one error.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustix::thread::CapabilitySet;

use super::Config;
use crate::{Error, Result};

/// Where programs are looked for when the configuration gives a bare name.
const PROGRAM_DIRS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What `runc` and we cannot do without.
const CAPABILITIES: [(CapabilitySet, &str); 11] = [
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "CAP_FOWNER"),
    (CapabilitySet::KILL, "CAP_KILL"),
    (CapabilitySet::MKNOD, "CAP_MKNOD"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
];

/// The programs that were found.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) runc: PathBuf,
    pub(super) nft: PathBuf,
    pub(super) rm: PathBuf,
}

/// Looks at everything and reports all that is missing, or where the programs are.
pub(super) fn check(config: &Config) -> Result<Programs> {
    let mut missing = config.faults();
    match rustix::thread::capabilities(None) {
        Ok(sets) => missing.extend(lacking(sets.effective).map(str::to_owned)),
        Err(error) => missing.push(format!("the list of capabilities ({error})")),
    }
    let mut program = |name: &Path| {
        find(name).unwrap_or_else(|| {
            missing.push(format!("the program {}", name.display()));
            name.to_owned()
        })
    };
    let programs = Programs {
        runc: program(&config.runc),
        nft: program(&config.nft),
        rm: program(Path::new("rm")),
    };
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.split_whitespace().next_back() == Some("overlay")) {
        tracing::debug!("overlayfs is not registered yet; the first mount will load it");
    }
    missing.extend([&config.dir, &config.image_dir].into_iter().filter_map(|dir| closed(dir)));
    if missing.is_empty() { Ok(programs) } else { Err(Error::Denied { missing }) }
}

/// The names of the capabilities that are needed and not among those `held`.
fn lacking(held: CapabilitySet) -> impl Iterator<Item = &'static str> {
    CAPABILITIES
        .iter()
        .filter(move |(capability, _)| !held.contains(*capability))
        .map(|(_, name)| *name)
}

/// The path of an executable file of this name.
pub(crate) fn find(name: &Path) -> Option<PathBuf> {
    let executable = |path: &Path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.components().count() > 1 {
        return executable(name).then(|| name.to_owned());
    }
    PROGRAM_DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| executable(path))
}

/// The first existing directory on the way to `dir` that the mapped root may not pass through.
fn closed(dir: &Path) -> Option<String> {
    let above = dir.parent()?;
    let blocker = above
        .ancestors()
        .find(|dir| dir.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 == 0))?;
    Some(format!("passage for others (o+x) through {}", blocker.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_that_is_missing_is_named() {
        assert_eq!(lacking(CapabilitySet::all()).next(), None);
        let some = CapabilitySet::all() - CapabilitySet::NET_ADMIN - CapabilitySet::SYS_ADMIN;
        assert_eq!(lacking(some).collect::<Vec<_>>(), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        assert_eq!(lacking(CapabilitySet::empty()).count(), CAPABILITIES.len());
    }

    #[test]
    fn a_host_that_lacks_things_is_told_all_of_them_at_once() {
        let mut config = Config::new(Vec::new());
        config.runc = "no-such-runc".into();
        config.nft = "/nowhere/nft".into();
        config.network.bridge = "Not-A-Bridge".to_owned();
        let Err(Error::Denied { missing }) = check(&config) else { panic!("it must refuse") };
        let text = missing.join("; ");
        for want in ["no-such-runc", "/nowhere/nft", "bridge"] {
            assert!(text.contains(want), "{want} in {text}");
        }
    }
}
