//! What arrives where an archive goes, told by a foreign `tar`; and what a hostile one reaches.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, symlink},
    },
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use gantry_runtime::{Archive, Order, Runtime, Source, State};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::{
    busybox,
    contract::{
        Host as _,
        archives::{archive, octets},
        order,
    },
    machine::Machine,
};

/// Version 2, effective, `cap_net_bind_service`.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// `user::rw-`, `user:1000:rw-`, `group::r--`, `mask::rw-`, `other::---`.
const LIST: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x06\0\xe8\x03\0\0\
    \x04\0\x04\0\xff\xff\xff\xff\x10\0\x06\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";

/// What the tree has below `/data`.
const NAMES: [&[u8]; 14] = [
    b"set",
    b"same",
    b"link",
    b"dangling",
    b"dir",
    b"dir/plain",
    b"listed",
    b"capable",
    b"sparse",
    b"hole",
    b"pipe",
    b"odd\n \xff=%name",
    b"early",
    b".",
];

fn long() -> String {
    [["l".repeat(200), "o".repeat(200), "n".repeat(200)].join("/"), "g".to_owned()].join("/")
}

/// A tree that starts, with everything that may get lost on the way.
fn make(dir: &Path) {
    let image = dir.join("image.tar");
    busybox::tarball(&image).unwrap();
    let root = dir.join("made");
    fs::create_dir(&root).unwrap();
    tar(&root, &["-xpf", "-"], &fs::read(image).unwrap());
    let data = root.join("data");
    for dir in [data.join("dir"), root.join("run/lock"), root.join("proc/self")] {
        fs::create_dir_all(dir).unwrap();
    }
    let own = |name: &str, mode: u32, user, group| {
        let path = data.join(name);
        std::os::unix::fs::lchown(&path, Some(user), Some(group)).unwrap();
        rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).unwrap();
    };
    fs::write(data.join("set"), "set-user-id").unwrap();
    own("set", 0o6751, 33, 44);
    fs::hard_link(data.join("set"), data.join("same")).unwrap();
    symlink("set", data.join("link")).unwrap();
    symlink("/etc/nowhere", data.join("dangling")).unwrap();
    std::os::unix::fs::lchown(data.join("dangling"), Some(7), Some(65_534)).unwrap();
    own("dir", 0o3770, 1000, 1000);
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(data.join(name), key, value, XattrFlags::empty()).unwrap();
    };
    for name in ["dir/plain", "listed", "capable", "early"] {
        fs::write(data.join(name), name).unwrap();
        own(name, 0o640, 0, 0);
    }
    set("dir", "system.posix_acl_default", LIST);
    set("dir", "user.note", b"of\0a=directory\n");
    set("listed", "system.posix_acl_access", LIST);
    set("capable", "security.capability", CAPABILITY);
    for (name, written) in [("sparse", &b"middle"[..]), ("hole", b"")] {
        let file = fs::File::create(data.join(name)).unwrap();
        file.set_len(64 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, written, 32 << 20).unwrap();
        own(name, 0o644, 0, 0);
    }
    let pipe = data.join("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
    own("pipe", 0o622, 2, 3);
    std::os::unix::net::UnixListener::bind(data.join("socket")).unwrap();
    fs::write(data.join(OsStr::from_bytes(b"odd\n \xff=%name")), "odd").unwrap();
    fs::create_dir_all(data.join(Path::new(&long()).parent().unwrap())).unwrap();
    fs::write(data.join(long()), "long").unwrap();
    let time = |name: &str, tv_sec, tv_nsec| {
        let time = Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: time, last_modification: time };
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, data.join(name), &times, nofollow).unwrap();
    };
    time("early", -2, 250_000_000);
    for name in ["set", "link", "sparse", "dir"] {
        time(name, 1_700_000_000, 123_456_789);
    }
}

/// Runs Debian's `tar` in a directory, with attributes and numbers.
fn tar(dir: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "--sparse", "-C"])
        .arg(dir)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap_or(()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "tar {arguments:?}: {}", output.status);
    output.stdout
}

/// Everything that can be told of the tree below `/data`.
fn told(root: &Path) -> String {
    let mut told = String::new();
    let names = NAMES.iter().copied().map(<[u8]>::to_vec).chain([long().into_bytes()]);
    for name in names {
        let path = root.join("data").join(OsStr::from_bytes(&name));
        let stat = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut keys = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, &mut *keys).unwrap();
        let keys = keys[..length].split(|octet| *octet == 0).filter(|key| !key.is_empty());
        let mut attributes: Vec<_> = keys
            .map(|key| {
                let mut value = vec![0; 4096];
                let length = rustix::fs::lgetxattr(&path, key, &mut *value).unwrap();
                (String::from_utf8_lossy(key).into_owned(), value[..length].to_vec())
            })
            .collect();
        attributes.sort();
        let kind = FileType::from_raw_mode(stat.st_mode);
        let contents = kind.is_file().then(|| fs::read(&path).unwrap());
        let contents =
            contents.map(|octets| octets.into_iter().filter(|octet| *octet != 0).collect());
        let contents: Vec<u8> = contents.unwrap_or_default();
        writeln!(
            told,
            "{} {:o} {}:{} size {} links {} time {}.{} holes {} {attributes:?} {:?} {:?}",
            name.escape_ascii(),
            stat.st_mode,
            stat.st_uid,
            stat.st_gid,
            if kind.is_dir() { 0 } else { stat.st_size },
            if kind.is_dir() { 0 } else { stat.st_nlink },
            stat.st_mtime,
            stat.st_mtime_nsec,
            kind.is_file() && stat.st_blocks * 512 + (1 << 20) < stat.st_size,
            fs::read_link(&path).ok(),
            String::from_utf8_lossy(&contents),
        )
        .unwrap();
    }
    told
}

/// The container of a test that comes from `archive`, started, and exported again.
async fn pass(runtime: &Arc<dyn Runtime>, order: &Order, archive: Archive) -> Vec<u8> {
    runtime.ensure_imported(order, archive).await.unwrap();
    runtime.ensure_running(order).await.unwrap();
    let octets = octets(runtime.export(Source::Container(order.id)).await.unwrap()).await;
    let state = runtime.observe(order.id).await.unwrap().unwrap().state;
    assert_eq!(state, State::Running, "it runs on");
    octets
}

fn place() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("gantry-").tempdir_in("/var/tmp").unwrap()
}

/// Through each of these runtimes, one after the other; then `tar` unpacks what comes out.
pub(crate) async fn all_arrives(stops: &[(Arc<dyn Runtime>, Order)]) {
    let dir = place();
    make(dir.path());
    let mut octets = tar(&dir.path().join("made"), &["--format=posix", "-cf", "-", "."], b"");
    for (stop, (runtime, order)) in stops.iter().enumerate() {
        octets = pass(runtime, order, archive(&octets)).await;
        assert!(octets.len() < 16 << 20, "holes are not sent: {}", octets.len());
        let back = dir.path().join(format!("back-{stop}"));
        fs::create_dir(&back).unwrap();
        tar(&back, &["-xpf", "-"], &octets);
        assert_eq!(told(&dir.path().join("made")), told(&back), "after stop {stop}");
        for gone in ["data/socket", "proc/self", "run/lock"] {
            assert!(!back.join(gone).exists(), "{gone}");
        }
    }
}

pub(crate) async fn what_is_in_an_archive_arrives(machine: &mut Machine) {
    let runtime = machine.runtime();
    let stops = [1, 2].map(|n| (Arc::clone(&runtime), order(machine, n)));
    all_arrives(&stops).await;
    let script = "stat -c '%a %u:%g' /data/set /data/dir; readlink /data/dangling; cat /data/link";
    let seen = machine.shell(2, script).await;
    assert_eq!(seen, "6751 33:44\n3770 1000:1000\n/etc/nowhere\nset-user-id");
}

/// An archive with these entries after the root.
fn hostile(entries: &[(tar::EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let root = [(tar::EntryType::Directory, "./", "")];
    for (kind, name, target) in root.iter().chain(entries) {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        // As they are: the library would refuse some.
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        if matches!(kind, tar::EntryType::Char | tar::EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        builder.append(&header, std::io::empty()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) async fn a_hostile_archive_reaches_nothing(machine: &mut Machine) {
    use tar::EntryType::{Block, Char, Directory, Link, Regular, Symlink};
    let outside = place();
    let out = outside.path().to_str().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let (secret, up) = (secret.to_str().unwrap(), format!("../../../../../../../..{out}/up"));
    let above = format!("../../../../../../../..{out}");
    let (absolute, through) = (format!("{out}/absolute"), "link/through");
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    for (what, entries) in [
        ("through a link", vec![(Symlink, "link", out), (Regular, through, "")]),
        ("through a link upwards", vec![(Symlink, "link", above.as_str()), (Regular, through, "")]),
        ("a directory through a link", vec![(Symlink, "link", out), (Directory, through, "")]),
        (
            "a link in the way",
            vec![(Symlink, "link", out), (Directory, "link", ""), (Regular, through, "")],
        ),
        ("upwards", vec![(Regular, up.as_str(), "")]),
        ("absolute", vec![(Regular, absolute.as_str(), "")]),
        ("another name of an absolute one", vec![(Link, "name", secret)]),
        ("another name of one above", vec![(Link, "name", "../../../../etc/passwd")]),
        (
            "another name through a link",
            vec![(Symlink, "link", out), (Link, "name", "link/secret")],
        ),
        ("no directory", vec![(Regular, "none/file", "")]),
        ("a kind that nobody knows", vec![(tar::EntryType::new(b'Z'), "file", "")]),
    ] {
        let refused = runtime.ensure_imported(&order, archive(&hostile(&entries))).await;
        assert_eq!(runtime.observe(order.id).await.unwrap().is_some(), refused.is_ok(), "{what}");
        runtime.ensure_deleted(order.id).await.unwrap();
        let left: Vec<_> = fs::read_dir(outside.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{what}: {left:?}");
        assert_eq!(fs::metadata(secret).map(|found| found.nlink()).unwrap(), 1, "{what}");
        // Of these, some runtimes make directories where they should be.
        let harmless = ["a link in the way", "no directory"];
        assert!(refused.is_err() || harmless.contains(&what), "{what}");
    }
    // Devices are left out, whoever they are for.
    let dir = place();
    make(dir.path());
    let devices = [(Char, "null"), (Block, "disk")].map(|(kind, name)| (kind, name, ""));
    let mut octets = tar(&dir.path().join("made"), &["--format=posix", "-cf", "-", "."], b"");
    let end = octets.iter().rposition(|octet| *octet != 0).unwrap() + 1;
    octets.truncate(end.next_multiple_of(512));
    octets.extend(hostile(&devices).split_off(512));
    runtime.ensure_imported(&order, archive(&octets)).await.unwrap();
    runtime.ensure_running(&order).await.unwrap();
    let seen = machine.shell(1, "ls -d /null /disk /data 2>/dev/null").await;
    assert_eq!(seen, "/data");
}
