//! The image that tests start containers from: one program and an init of a few lines.

use std::path::Path;

/// How many processes the init is, once it has begun to sleep.
pub(crate) const INIT_PIDS: u64 = 2;

/// An init that ends when it is asked to, unless `STUBBORN` is set.
const INIT: &str =
    "#!/bin/sh\n[ $STUBBORN ] || trap 'exit 0' TERM\nwhile :; do sleep 1000 & wait $!; done\n";

/// A program that `busybox` may lack.
const PRINTENV: &str = "#!/bin/sh\neval \"echo \\\"\\$$1\\\"\"\n";

/// What the tests use of `busybox`.
const APPLETS: &[&str] = &[
    "arping", "cat", "chmod", "dd", "echo", "env", "false", "find", "grep", "head", "hostname",
    "httpd", "id", "kill", "ln", "mkdir", "mknod", "ip", "ls", "mount", "nc", "ps", "seq", "stat",
    "test", "touch", "umount", "unshare", "ping", "pwd", "readlink", "rm", "sh", "sleep", "stty",
    "tee", "true", "uname", "wget",
];

/// A root file system of one program.
pub(crate) fn tarball(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap())?;
    let mut tar = tar::Builder::new(std::fs::File::create(path)?);
    let mut header = tar::Header::new_ustar();
    let mut add = |name: &str, mode: u32, kind: tar::EntryType, bytes: &[u8]| {
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        if kind == tar::EntryType::Symlink {
            header.set_size(0);
            tar.append_link(&mut header, name, String::from_utf8_lossy(bytes).as_ref())
        } else {
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes)
        }
    };
    for dir in ["bin", "sbin", "etc", "proc", "sys", "dev", "run", "root", "ramdisk"] {
        add(dir, 0o755, tar::EntryType::Directory, b"")?;
    }
    add("tmp", 0o1777, tar::EntryType::Directory, b"")?;
    add("bin/busybox", 0o755, tar::EntryType::Regular, &std::fs::read("/bin/busybox")?)?;
    for applet in APPLETS {
        add(&format!("bin/{applet}"), 0o777, tar::EntryType::Symlink, b"busybox")?;
    }
    add("sbin/init", 0o755, tar::EntryType::Regular, INIT.as_bytes())?;
    add("bin/printenv", 0o755, tar::EntryType::Regular, PRINTENV.as_bytes())?;
    add("etc/passwd", 0o644, tar::EntryType::Regular, b"root:x:0:0::/root:/bin/sh\n")?;
    tar.into_inner().map(drop)
}
