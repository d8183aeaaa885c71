//! A disk that is soon full.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

/// A small file system in memory, unmounted at the end.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of 4 MiB there; `None` where mounting is not allowed, which is said.
    pub(crate) fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "gantry-store-test"])
            .arg(at)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            assert!(std::env::var_os("CI").is_none(), "mounting a tmpfs is not allowed here");
            eprintln!("\n*** NOT TESTED: mounting a tmpfs is not allowed here ***\n");
        }
        mounted.then(|| Self(at.to_owned()))
    }
}

/// Takes all room that is left on the small disk there, for as long as the file is there; gives the file.
pub(crate) fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("filled");
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    // It has 1024 pages at most.
    for _ in 0..=1024 {
        match file.write_all(&[1; 4096]) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                return path;
            }
        }
    }
    panic!("a small disk takes more than it has");
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.unwrap().success() || std::thread::panicking());
    }
}
