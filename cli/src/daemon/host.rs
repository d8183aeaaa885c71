//! Limits of the host that are made for one desktop and too small for a hundred containers.
//!
//! All containers are the same user to the kernel, and an init such as systemd takes a few of each.
//! Where they run out, the next container's init ends at once. Limits are raised, never lowered.

use std::{fs, path::Path};

/// What is raised, below `/proc/sys`, and to what. The kernel charges for what is used, not for
/// the limit.
const LIMITS: [(&str, u64); 3] = [
    ("fs/inotify/max_user_instances", 65_536),
    ("kernel/keys/maxkeys", 20_000),
    ("kernel/keys/maxbytes", 2_000_000),
];

/// Raises what is too small. Where that is not allowed, it is said, and fewer containers fit.
pub(super) fn raise_limits() {
    for (name, wanted) in LIMITS {
        raise(&Path::new("/proc/sys").join(name), name, wanted);
    }
}

fn raise(path: &Path, name: &str, wanted: u64) {
    let Some(present) = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok())
    else {
        return;
    };
    if wanted <= present {
        return;
    }
    match fs::write(path, wanted.to_string()) {
        Ok(()) => tracing::info!("raised the host's limit {name} from {present} to {wanted}"),
        Err(error) => tracing::warn!(
            %error,
            "the host's limit {name} is {present}; many containers need {wanted}"
        ),
    }
}

/// What the machine has, with the disk that `dir` lies on, if containers lie there.
pub(super) fn machine(dir: Option<&Path>) -> gantry_api::Machine {
    let cores = std::thread::available_parallelism().ok();
    let memory = fs::read_to_string("/proc/meminfo").ok();
    let disk = dir.and_then(|dir| rustix::fs::statvfs(dir).ok());
    gantry_api::Machine {
        cpu_cores: cores.and_then(|cores| u32::try_from(cores.get()).ok()),
        memory_bytes: memory.as_deref().and_then(memory_bytes),
        disk_bytes: disk.and_then(|disk| disk.f_blocks.checked_mul(disk.f_frsize)),
        disk: dir.map(Path::to_path_buf),
    }
}

/// The whole memory, as `/proc/meminfo` tells it.
fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_processors_memory_and_a_disk() {
        let meminfo = "MemFree:  5 kB\nMemTotal:       32793028 kB\nMemAvailable: 1 kB\n";
        assert_eq!(memory_bytes(meminfo), Some(32_793_028 * 1024));
        assert_eq!(memory_bytes("MemFree: 5 kB\n"), None);
        let machine = machine(Some(Path::new("/")));
        assert!(machine.cpu_cores.is_some_and(|cores| cores > 0));
        assert!(machine.memory_bytes > Some(1 << 20) && machine.disk_bytes > Some(1 << 20));
        assert_eq!(super::machine(None).disk_bytes, None);
    }

    #[test]
    fn a_limit_is_raised_and_never_lowered() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (present, after) in [("128\n", "500"), ("500\n", "500\n"), ("9000\n", "9000\n")] {
            fs::write(file.path(), present).unwrap();
            raise(file.path(), "a/limit", 500);
            assert_eq!(fs::read_to_string(file.path()).unwrap(), after, "from {present:?}");
        }
    }
}
