//! Mounts of a container on the host: the overlay that is its root, its ramdisk, and its device nodes.

use std::{
    ffi::CString,
    io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, StatxAttributes, StatxFlags},
    mount::{MountFlags, UnmountFlags},
};

use super::disk::Home;
use crate::kvm;

/// Mounts the root file system, unless it is mounted.
pub(super) fn mount_root(home: &Home, lower: &Path) -> io::Result<()> {
    if is_mounted(&home.rootfs())? {
        return Ok(());
    }
    let mut options = Vec::new();
    for (key, path) in
        [("lowerdir=", lower), (",upperdir=", &home.upper()), (",workdir=", &home.work())]
    {
        options.extend_from_slice(key.as_bytes());
        // What separates options and layers is escaped in paths.
        for octet in path.as_os_str().as_bytes() {
            if matches!(octet, b'\\' | b':' | b',') {
                options.push(b'\\');
            }
            options.push(*octet);
        }
    }
    let options = CString::new(options)?;
    let flags = MountFlags::NODEV;
    rustix::mount::mount("gantry", home.rootfs(), "overlay", flags, options.as_c_str())?;
    Ok(())
}

/// Mounts the ramdisk, unless it is mounted: it outlives stops and starts. At most half of the
/// container's memory, in whose account its contents are; 512 MiB without a limit. It belongs to the
/// host's user `root`.
pub(crate) fn mount_ramdisk(point: &Path, memory_bytes: u64, root: u32) -> io::Result<()> {
    let size = if memory_bytes == 0 { 512 << 20 } else { (memory_bytes / 2).max(1 << 20) };
    mount_memory(point, size, root)
}

/// Mounts so much memory as a file system, unless it is mounted. It belongs to the host's user `root`, and
/// all may write to it.
pub(crate) fn mount_memory(point: &Path, size: u64, root: u32) -> io::Result<()> {
    if is_mounted(point)? {
        return Ok(());
    }
    let options = CString::new(format!("mode=1777,size={size},uid={root},gid={root}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("gantry-ramdisk", point, "tmpfs", flags, options.as_c_str())?;
    Ok(())
}

/// Makes a node of the character device `number` for the host's user `root`, on a file system of its
/// own: those of containers and their homes need not allow devices, and what a container does to the
/// node (it is its root's) ends with the start that it was made for.
pub(super) fn mount_device(
    point: &Path,
    name: &str,
    number: u64,
    root: u32,
) -> io::Result<PathBuf> {
    unmount(point)?;
    std::fs::create_dir_all(point)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = c"mode=0755,size=64k,nr_inodes=8";
    rustix::mount::mount("gantry-devices", point, "tmpfs", flags, options)?;
    let node = point.join(name);
    let mode = Mode::from_raw_mode(kvm::MODE);
    rustix::fs::mknodat(CWD, &node, FileType::CharacterDevice, mode, number)?;
    // The process's mask took part in that.
    std::fs::set_permissions(&node, std::fs::Permissions::from_mode(kvm::MODE))?;
    std::os::unix::fs::chown(&node, Some(root), Some(root))?;
    Ok(node)
}

/// Unmounts whatever is mounted there, however often.
pub(crate) fn unmount(point: &Path) -> io::Result<()> {
    // A bound, because a mount that never goes away must not hold us up for ever.
    for _ in 0..8 {
        match is_mounted(point) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Ok(false) => return Ok(()),
            other => other?,
        };
        rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Err(io::Error::other("it is mounted again and again"))
}

/// Whether something is mounted exactly there.
pub(crate) fn is_mounted(point: &Path) -> io::Result<bool> {
    let stat = rustix::fs::statx(CWD, point, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
