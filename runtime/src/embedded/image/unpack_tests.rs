use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use tar::{Builder, Header};

use super::*;

const SHIFTED: Mapping = Mapping { base: 1_000_000, size: 65_536 };

fn header(kind: EntryType, mode: u32, (uid, gid): (u64, u64), size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_size(size);
    header.set_mtime(1_700_000_000);
    header
}

fn file(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, owner: (u64, u64), contents: &[u8]) {
    let mut header = header(EntryType::Regular, mode, owner, contents.len() as u64);
    tar.append_data(&mut header, path, contents).unwrap();
}

fn symlink(tar: &mut Builder<Vec<u8>>, path: &str, to: &str) {
    let mut header = header(EntryType::Symlink, 0o777, (0, 0), 0);
    tar.append_link(&mut header, path, to).unwrap();
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not run: changing owners needs root");
    }
    root
}

#[test]
fn owners_are_shifted_and_setuid_bits_stay() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut tar = Builder::new(Vec::new());
    let mut root = header(EntryType::Directory, 0o755, (0, 0), 0);
    tar.append_data(&mut root, "./", io::empty()).unwrap();
    let mut home = header(EntryType::Directory, 0o2750, (1000, 50), 0);
    tar.append_data(&mut home, "home", io::empty()).unwrap();
    file(&mut tar, "home/.profile", 0o600, (1000, 1000), b"umask 077\n");
    file(&mut tar, "usr/bin/sudo", 0o4755, (0, 0), b"#!");
    symlink(&mut tar, "bin", "usr/bin");
    let mut link = header(EntryType::Link, 0o4755, (0, 0), 0);
    tar.append_link(&mut link, "usr/bin/sudoedit", "usr/bin/sudo").unwrap();

    let unpacked = unpack(&*tar.into_inner().unwrap(), dir.path(), SHIFTED).unwrap();
    assert_eq!(unpacked.entries, 5);
    for (path, want) in [
        ("", (0o40_755, 1_000_000, 1_000_000)),
        ("home", (0o42_750, 1_001_000, 1_000_050)),
        ("home/.profile", (0o100_600, 1_001_000, 1_001_000)),
        ("usr", (0o40_755, 1_000_000, 1_000_000)),
        ("usr/bin/sudo", (0o104_755, 1_000_000, 1_000_000)),
        ("bin", (0o120_777, 1_000_000, 1_000_000)),
    ] {
        let stat = dir.path().join(path).symlink_metadata().unwrap();
        assert_eq!((stat.mode(), stat.uid(), stat.gid()), want, "path {path:?}");
    }
    let (one, two) = (dir.path().join("usr/bin/sudo"), dir.path().join("usr/bin/sudoedit"));
    assert_eq!(one.metadata().unwrap().ino(), two.metadata().unwrap().ino());
    assert_eq!(dir.path().join("home").metadata().unwrap().mtime(), 1_700_000_000);
}

#[test]
fn no_link_leads_out_of_the_image() {
    if !is_root() {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut tar = Builder::new(Vec::new());
    symlink(&mut tar, "escape", outside.path().to_str().unwrap());
    symlink(&mut tar, "up", "../../../../../../../../tmp");
    file(&mut tar, "up/inside", 0o644, (0, 0), b"x");
    // The link's target does not exist inside of the image.
    file(&mut tar, "escape/file", 0o644, (0, 0), b"x");
    let bytes = tar.into_inner().unwrap();

    let refused = unpack(&*bytes, dir.path(), SHIFTED);
    assert!(refused.is_err() || outside.path().read_dir().unwrap().next().is_none());
    assert_eq!(outside.path().read_dir().unwrap().count(), 0);
    assert!(!Path::new("/tmp/inside").exists());
}

#[test]
fn paths_upwards_foreign_ids_and_torn_archives_are_refused() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut tar = Builder::new(Vec::new());
    let mut bad = header(EntryType::Regular, 0o644, (0, 0), 0);
    bad.as_mut_bytes()[..8].copy_from_slice(b"../../x\0");
    bad.set_cksum();
    tar.append(&bad, io::empty()).unwrap();
    let error = unpack(&*tar.into_inner().unwrap(), dir.path(), SHIFTED).unwrap_err();
    assert!(error.to_string().contains("leads upwards"), "{error}");

    let mut tar = Builder::new(Vec::new());
    file(&mut tar, "x", 0o644, (70_000, 0), b"");
    let error = unpack(&*tar.into_inner().unwrap(), dir.path(), SHIFTED).unwrap_err();
    assert!(error.to_string().contains("70000:0 is outside"), "{error}");

    let mut tar = Builder::new(Vec::new());
    file(&mut tar, "long", 0o644, (0, 0), &[7; 5000]);
    let bytes = tar.into_inner().unwrap();
    for cut in [0, 100, 512, 2000] {
        assert!(unpack(&bytes[..cut], dir.path(), SHIFTED).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut tar = Builder::new(Vec::new());
    symlink(&mut tar, "etc/mtab", "/proc/mounts");
    file(&mut tar, "etc/mtab", 0o644, (0, 0), b"second");
    file(&mut tar, "etc/mtab", 0o600, (0, 0), b"third");
    unpack(&*tar.into_inner().unwrap(), dir.path(), SHIFTED).unwrap();
    let path = dir.path().join("etc/mtab");
    assert_eq!(std::fs::read(&path).unwrap(), b"third");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_capability_counts_in_the_namespace_of_the_mapping() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // cap_net_raw+ep, as ping has it.
    let plain = [&[1, 0, 0, 2][..], &[0, 0x20, 0, 0], &[0; 12]].concat();
    let shifted = [&[1, 0, 0, 3][..], &plain[4..], &1_000_000_u32.to_le_bytes()].concat();
    let mut tar = Builder::new(Vec::new());
    let name = "SCHILY.xattr.security.capability";
    tar.append_pax_extensions([(name, plain.as_slice())]).unwrap();
    file(&mut tar, "usr/bin/ping", 0o755, (0, 0), b"ELF");
    unpack(&*tar.into_inner().unwrap(), dir.path(), SHIFTED).unwrap();
    let mut found = [0; 64];
    let path = dir.path().join("usr/bin/ping");
    let length = rustix::fs::getxattr(&path, CAPABILITY, &mut found).unwrap();
    assert_eq!(&found[..length], shifted);

    assert_eq!(namespaced(&shifted, Mapping { base: 0, size: 1 }).unwrap(), plain);
    for bad in [&[][..], &[1, 0, 0, 2], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]] {
        assert!(namespaced(bad, SHIFTED).is_err(), "{bad:?}");
    }
}
