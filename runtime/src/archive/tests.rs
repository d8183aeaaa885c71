use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::Path,
};

use rustix::fs::{CWD, Mode, OFlags};
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{embedded::image::Mapping, tree::open_dir};

const SHIFTED: Mapping = Mapping { base: 1_000_000, size: 65_536 };
const PLAIN: Mapping = Mapping { base: 0, size: u32::MAX };

/// Not in memory: holes are wanted.
fn place() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not run: changing owners needs root");
    }
    root
}

fn packed(root: &Path, mapping: Mapping, without: &[&str]) -> io::Result<Vec<u8>> {
    let notes = Notes::begin(&root.with_extension("notes"))?;
    let mut writer = Writer::new(Vec::new(), ".");
    let root = open_dir(CWD, root)?;
    pack(Tree { root, mapping, without, notes: &notes }, &mut writer)?;
    writer.finish()
}

fn unpacked(octets: &[u8], root: &Path, mapping: Mapping) -> io::Result<()> {
    unpack(&mut Reader::new(octets), root, mapping)
}

/// The heads of an archive, and what follows each.
fn heads(octets: &[u8]) -> io::Result<Vec<(Head, Vec<u8>)>> {
    let (mut reader, mut heads) = (Reader::new(octets), Vec::new());
    while let Some(head) = reader.next()? {
        let mut data = Vec::new();
        reader.read_to_end(&mut data)?;
        heads.push((head, data));
    }
    Ok(heads)
}

#[test]
fn what_is_written_is_read() {
    let mut named = Head::new(vec![b'n'; 300], Kind::Symlink(vec![b't'; 300]), 0o777);
    named.modified = (-1, 500_000_000);
    let mut owned = Head::new(b"a\n\xff%=b".to_vec(), Kind::Fifo, 0o6644);
    (owned.uid, owned.gid) = (1 << 21, u32::MAX - 1);
    owned.modified = (1 << 34, 7);
    owned.xattrs =
        vec![(b"user.a=b%3D".to_vec(), b"\0=\n".to_vec()), (CAPABILITY.to_vec(), vec![])];
    let ranges = vec![(4096, 3), (1 << 40, 2)];
    let sparse = Head::new("s", Kind::File { size: 1 << 41, ranges }, 0o600);
    let hole = Head::new("h", Kind::File { size: 9, ranges: Vec::new() }, 0);
    let want = vec![
        (Head::new("", Kind::Directory, 0o755), b"".to_vec()),
        (named, b"".to_vec()),
        (owned, b"".to_vec()),
        (sparse, b"three".to_vec()),
        (hole, b"".to_vec()),
        (Head::new("d/f", Kind::file(5), 0o600), b"plain".to_vec()),
        (Head::new("d/l", Kind::Link(b"d/f".to_vec()), 0o600), b"".to_vec()),
    ];
    let mut writer = Writer::new(Vec::new(), ".");
    for (head, data) in &want {
        writer.add(head, data.as_slice()).unwrap();
    }
    let octets = writer.finish().unwrap();
    assert_eq!(heads(&octets).unwrap(), want);
    for length in 0..octets.len() - 512 {
        let error = heads(&octets[..length]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length}: {error}");
    }
    let mut short = Writer::new(Vec::new(), ".");
    short.add(&Head::new("f", Kind::file(5), 0o600), &b"four"[..]).unwrap_err();
}

#[test]
fn what_is_no_archive_is_refused() {
    let block = |kind: u8, size: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::new(kind));
        header.as_old_mut().size[..size.len()].copy_from_slice(size);
        header.as_old_mut().name[0] = b'f';
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let pax = |text: &str| {
        let mut octets = block(b'x', format!("{:011o}", text.len()).as_bytes());
        octets.extend_from_slice(text.as_bytes());
        octets.resize(octets.len().next_multiple_of(512), 0);
        octets.extend(block(b'0', b"00000002000"));
        octets.extend([0; 2048]);
        octets
    };
    let mut spoiled = block(b'0', b"00000000000");
    spoiled[0] = b'g';
    for (octets, want) in [
        (spoiled, "checksum"),
        (block(b'x', b"77777777777"), "too long"),
        (block(b'L', b"00000000000"), "not known"),
        (pax("8 size=1\n"), "malformed"),
        (pax("11 path=a/b"), "malformed"),
        (pax("99999 path=a/b\n"), "malformed"),
        (pax("10 size=x\n"), "no number"),
        (pax("13 path=a/../\n"), "malformed"),
        (pax("13 path=../b\n"), "leads upwards"),
        (pax("11 path=/b\n"), "absolute"),
        (pax("26 GNU.sparse.realsize=2000\n"), "malformed"),
        (pax("28 GNU.sparse.realsize=2000\n"), "malformed"),
        (vec![0; 4 << 20], "goes on"),
    ] {
        let error = heads(&octets).unwrap_err();
        assert!(error.to_string().contains(want), "{want}: {error}");
    }
    // Ranges that lie behind each other, behind the end, or in another number than there are data.
    for map in
        ["2\n5\n1\n0\n1\n", "1\n1999\n2\n", "1\n0\n3\n", "99999999\n", "1\n18446744073709551616\n"]
    {
        let mut octets = pax("28 GNU.sparse.realsize=2000\n");
        octets[..512].copy_from_slice(&block(b'x', b"00000000034"));
        octets[1536..1536 + map.len()].copy_from_slice(map.as_bytes());
        let error = heads(&octets).unwrap_err();
        assert!(error.kind() == io::ErrorKind::InvalidData, "{map:?}: {error}");
    }
}

#[test]
fn owners_and_access_lists_are_shifted_on_the_way_in_and_back_on_the_way_out() {
    if !is_root() {
        return;
    }
    let dir = place();
    let (made, there) = (dir.path().join("made"), dir.path().join("there"));
    fs::create_dir_all(made.join("dir")).unwrap();
    fs::create_dir_all(made.join("run/lock")).unwrap();
    fs::write(made.join("dir/file"), "file").unwrap();
    std::os::unix::fs::chown(made.join("dir/file"), Some(1000), Some(65_535)).unwrap();
    fs::set_permissions(made.join("dir/file"), fs::Permissions::from_mode(0o6755)).unwrap();
    let list = |user: u32| {
        let entry =
            |kind: u8, mode: u8, id: u32| [&[kind, 0, mode, 0][..], &id.to_le_bytes()].concat();
        let nobody = u32::MAX;
        let entries =
            [(1, 6, nobody), (2, 6, user), (4, 4, nobody), (16, 6, nobody), (32, 0, nobody)];
        let entries = entries.map(|(kind, mode, id)| entry(kind, mode, id)).concat();
        [&2_u32.to_le_bytes()[..], &entries].concat()
    };
    let flags = rustix::fs::XattrFlags::empty();
    for name in [ACCESS, DEFAULT] {
        rustix::fs::lsetxattr(made.join("dir"), name, &list(33), flags).unwrap();
    }
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    rustix::fs::lsetxattr(made.join("dir/file"), CAPABILITY, capability, flags).unwrap();
    let octets = packed(&made, PLAIN, &["run"]).unwrap();
    unpacked(&octets, &there, SHIFTED).unwrap();
    let file = there.join("dir/file").metadata().unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode()), (1_001_000, 1_065_535, 0o106_755));
    let attribute = |path: &str, name: &[u8]| {
        let mut value = vec![0; 256];
        let length = rustix::fs::lgetxattr(there.join(path), name, &mut *value).ok()?;
        Some(value[..length].to_vec())
    };
    assert_eq!(attribute("dir", ACCESS), Some(list(1_000_033)));
    assert_eq!(attribute("dir", DEFAULT), Some(list(1_000_033)));
    assert_eq!(attribute("dir/file", ACCESS), None, "nothing is handed down");
    let three = [&[1, 0, 0, 3][..], &capability[4..], &1_000_000_u32.to_le_bytes()].concat();
    assert_eq!(attribute("dir/file", CAPABILITY), Some(three));
    assert!(there.join("run").is_dir() && !there.join("run/lock").exists());
    assert_eq!(heads(&packed(&there, SHIFTED, &[]).unwrap()).unwrap(), heads(&octets).unwrap());
    let outside = Mapping { base: 1_000_001, ..SHIFTED };
    let error = packed(&there, outside, &[]).unwrap_err();
    assert!(error.to_string().contains("not the container's"), "{error}");
    let few = Mapping { size: 65_535, ..SHIFTED };
    let error = unpacked(&octets, &dir.path().join("few"), few).unwrap_err();
    assert!(error.to_string().contains("dir/file: its owner 1000:65535 is outside"), "{error}");
}

const DEPTH: usize = 1_500;

#[test]
fn a_tree_of_any_depth_and_width_passes() {
    if !is_root() {
        return;
    }
    let dir = place();
    let (made, there) = (dir.path().join("made"), dir.path().join("there"));
    fs::create_dir(&made).unwrap();
    for at in 0..2_000 {
        symlink("nowhere", made.join(format!("link-{at}"))).unwrap();
    }
    fs::write(made.join("one"), "").unwrap();
    for at in 0..500 {
        fs::hard_link(made.join("one"), made.join(format!("name-{at}"))).unwrap();
    }
    let mut below = open_dir(CWD, &made).unwrap();
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&below, "deep", Mode::RWXU).unwrap();
        below = open_dir(&below, "deep").unwrap();
    }
    let create = OFlags::WRONLY | OFlags::CREATE;
    rustix::fs::openat(&below, "end", create, Mode::RUSR).unwrap();
    unpacked(&packed(&made, PLAIN, &[]).unwrap(), &there, PLAIN).unwrap();
    assert_eq!(fs::read_dir(&there).unwrap().count(), 2_502);
    assert_eq!(there.join("name-7").metadata().unwrap().nlink(), 501);
    let mut below: OwnedFd = open_dir(CWD, &there).unwrap();
    for _ in 0..DEPTH {
        below = open_dir(&below, "deep").unwrap();
    }
    rustix::fs::statat(&below, "end", rustix::fs::AtFlags::empty()).unwrap();
    // What cannot be named by a path is not removed by one.
    for tree in [&made, &there] {
        let status = std::process::Command::new("rm").arg("-rf").arg(tree).status().unwrap();
        assert!(status.success());
    }
}

#[test]
fn a_file_of_many_holes_keeps_the_first_ones() {
    let dir = place();
    let (made, there) = (dir.path().join("made"), dir.path().join("there"));
    fs::create_dir(&made).unwrap();
    let file = File::create(made.join("holes")).unwrap();
    let count = RANGES_MAX as u64 + 10;
    for at in 0..count {
        file.write_all_at(b"x", at * 8192).unwrap();
    }
    // Not on the disk, holes are looked for among all that waits to be written.
    file.sync_all().unwrap();
    let octets = packed(&made, PLAIN, &[]).unwrap();
    let (head, _) = heads(&octets).unwrap().pop().unwrap();
    let Kind::File { size, ranges } = head.kind else { panic!("{:?}", head.kind) };
    assert_eq!((size, ranges.len()), ((count - 1) * 8192 + 1, RANGES_MAX));
    if is_root() {
        unpacked(&octets, &there, PLAIN).unwrap();
        let (one, two) = (made.join("holes"), there.join("holes"));
        assert!(fs::read(one).unwrap() == fs::read(two).unwrap(), "the contents are the same");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_archive_that_nobody_ends_does_not_end() {
    for (ends, want) in [(true, Ok(3)), (false, Err(io::ErrorKind::UnexpectedEof))] {
        let (mut sink, mut archive) = pipe(CancellationToken::new());
        let written = tokio::task::spawn_blocking(move || {
            io::Write::write_all(&mut sink, b"abc").unwrap();
            io::Write::flush(&mut sink).unwrap();
            if ends {
                sink.end(Ok(()));
            }
        });
        let read = archive.read_to_end(&mut Vec::new()).await;
        written.await.unwrap();
        assert_eq!(read.map_err(|error| error.kind()), want);
    }
    // Nobody is waited for, neither in a stream without end nor at one that stands still.
    let shutdown = CancellationToken::new();
    let (mut sink, unread) = pipe(shutdown.clone());
    let writing = tokio::task::spawn_blocking(move || io::copy(&mut io::repeat(0), &mut sink));
    shutdown.cancel();
    assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    drop(unread);
    let (stuck, _open) = tokio::io::duplex(64);
    let unwanted = shutdown.clone();
    let mut input = Blocking::new(Archive::new(stuck), move || unwanted.is_cancelled());
    let reading = tokio::task::spawn_blocking(move || input.read(&mut [0; 8]));
    assert!(reading.await.unwrap().is_err());
}

/// Does something on a thread that time does not wait for.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || drop(done.send(work())));
    result.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_stands_still_is_given_up() {
    let begun = tokio::time::Instant::now();
    let (mut stuck, there) = tokio::io::duplex(64);
    tokio::io::AsyncWriteExt::write_all(&mut stuck, b"abc").await.unwrap();
    let mut input = Blocking::new(Archive::new(there), || false);
    let read = aside(move || {
        input.read_exact(&mut [0; 3])?;
        input.read(&mut [0; 8])
    });
    let error = read.await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().starts_with("nothing has come of it for 60 s"), "{error}");
    assert!(begun.elapsed() >= stream::IDLE, "not before");
    drop(stuck);

    let begun = tokio::time::Instant::now();
    let (mut sink, mut unread) = pipe(CancellationToken::new());
    let written = aside(move || {
        let written = io::copy(&mut io::repeat(0), &mut sink).map(drop);
        let kind = written.as_ref().unwrap_err().kind();
        sink.end(written);
        kind
    });
    let reading = async {
        tokio::time::sleep(10 * stream::IDLE).await;
        unread.read_exact(&mut [0]).await.unwrap();
    };
    let (written, ()) = tokio::join!(written, reading);
    assert_eq!(written, io::ErrorKind::TimedOut);
    assert!(begun.elapsed() >= 11 * stream::IDLE, "who has not begun to read is waited for");
    // Who comes back later does not take for whole what is there.
    unread.read_to_end(&mut Vec::new()).await.unwrap_err();
}

#[test]
fn a_machine_id_that_is_another_name_of_a_file_is_forgotten() {
    let heads = [
        Head::new("", Kind::Directory, 0o755),
        Head::new("etc", Kind::Directory, 0o755),
        Head::new("etc/first", Kind::file(3), 0o444),
        Head::new("etc/machine-id", Kind::Link(b"etc/first".to_vec()), 0o444),
        Head::new("etc/other", Kind::Link(b"etc/first".to_vec()), 0o444),
        Head::new("etc/same", Kind::Link(b"etc/machine-id".to_vec()), 0o444),
    ];
    let mut writer = Writer::new(Vec::new(), ".");
    for head in &heads {
        let data: &[u8] = if matches!(head.kind, Kind::File { .. }) { b"id\n" } else { b"" };
        writer.add(head, data).unwrap();
    }
    let octets = writer.finish().unwrap();
    let (mut reader, mut told) = (Reader::new(octets.as_slice()), Vec::new());
    while let Some(mut head) = reader.next().unwrap() {
        forgetful(&mut head);
        told.push(head.kind);
    }
    let mut want = heads.map(|head| head.kind);
    want[3] = Kind::file(0);
    assert_eq!(told, want);
    if !is_root() {
        return;
    }
    let dir = place();
    let there = dir.path().join("there");
    unpacked(&octets, &there, SHIFTED).unwrap();
    let read = |name: &str| fs::read_to_string(there.join("etc").join(name)).unwrap();
    assert_eq!(["first", "machine-id", "other", "same"].map(read), ["id\n", "", "id\n", ""]);
    let id = there.join("etc/machine-id").metadata().unwrap();
    assert_eq!((id.mode(), id.uid()), (0o100_444, 1_000_000));
}

#[test]
fn who_makes_notes_in_one_place_at_once_does_not_disturb_the_others() {
    let dir = place();
    let notes = dir.path().join("notes");
    let trees = ["one", "two"].map(|name| {
        let tree = dir.path().join(name);
        fs::create_dir(&tree).unwrap();
        for at in 0..300 {
            fs::write(tree.join(format!("{at}-first")), name).unwrap();
            fs::hard_link(tree.join(format!("{at}-first")), tree.join(format!("{at}-same")))
                .unwrap();
        }
        tree
    });
    // Both are there before either begins.
    let (both, notes) = (&std::sync::Barrier::new(2), &notes);
    std::thread::scope(|scope| {
        for tree in &trees {
            scope.spawn(move || {
                let notes = Notes::begin(notes).unwrap();
                both.wait();
                let mut writer = Writer::new(Vec::new(), ".");
                let root = open_dir(CWD, tree).unwrap();
                pack(Tree { root, mapping: PLAIN, without: &[], notes: &notes }, &mut writer)
                    .unwrap();
                let heads = heads(&writer.finish().unwrap()).unwrap();
                let count = |is_it: fn(&Kind) -> bool| {
                    heads.iter().filter(|(head, _)| is_it(&head.kind)).count()
                };
                assert_eq!(count(|kind| matches!(kind, Kind::File { .. })), 300);
                assert_eq!(count(|kind| matches!(kind, Kind::Link(_))), 300);
            });
        }
    });
    assert_eq!(fs::read_dir(notes).unwrap().count(), 0, "nothing is left");
}
