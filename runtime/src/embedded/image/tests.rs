use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use tempfile::TempDir;

use super::{
    source::{Archive, Part},
    *,
};
use crate::embedded::File;

/// A cache and a directory of tarballs of one test.
struct Place {
    cache: TempDir,
    tarballs: TempDir,
}

impl Place {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: unpacking an image needs root");
            return None;
        }
        Some(Self { cache: tempfile::tempdir().unwrap(), tarballs: tempfile::tempdir().unwrap() })
    }

    async fn open(&self, recipes: Vec<Recipe>) -> Images {
        let config = ImagesConfig {
            dir: self.cache.path().to_owned(),
            tarballs: self.tarballs.path().to_owned(),
            server: None,
            recipes,
            mapping: Mapping::default(),
        };
        Images::open(config).await.unwrap()
    }

    /// Lays a tarball of a file system with these files.
    fn lay(&self, name: &str, files: &[(&str, &[u8])]) {
        let path = self.tarballs.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        for (path, contents) in files {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o4755);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(contents.len() as u64);
            tar.append_data(&mut header, path, *contents).unwrap();
        }
        let plain = tar.into_inner().unwrap();
        let packed = match path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("zst") => zstd::encode_all(&*plain, 1).unwrap(),
            Some("xz") => {
                let options = lzma_rust2::XzOptions::with_preset(1);
                let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
                std::io::Write::write_all(&mut xz, &plain).unwrap();
                xz.finish().unwrap()
            }
            Some("gz") => {
                let level = flate2::Compression::fast();
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
                std::io::Write::write_all(&mut gzip, &plain).unwrap();
                gzip.finish().unwrap()
            }
            _ => plain,
        };
        fs::write(path, packed).unwrap();
    }

    /// What lies in a part of the cache.
    fn count(&self, part: &str) -> usize {
        fs::read_dir(self.cache.path().join(part)).unwrap().count()
    }
}

fn name(text: &str) -> ImageName {
    ImageName::parse("image", text).unwrap()
}

fn recipe(image: &str, kit: Kit) -> Recipe {
    Recipe {
        image: name(image),
        kit,
        suite: "trixie".to_owned(),
        packages: Vec::new(),
        files: vec![File {
            path: "/opt/gantry/made".to_owned(),
            mode: 0o750,
            contents: b"by a recipe\n".to_vec(),
        }],
        commands: vec!["# leave a trace\nprintf '%s' \"$PWD\" > /opt/gantry/where".to_owned()],
    }
}

/// The causes of an error, joined.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn a_tarball_is_unpacked_once_in_any_packing() {
    let Some(place) = Place::new() else { return };
    let files: [(&str, &[u8]); 2] = [("bin/sh", b"ELF"), ("etc/os-release", b"ID=alpine\n")];
    for ending in ["tar", "tar.gz", "tar.xz", "tar.zst"] {
        place.lay(&format!("alpine/{}.{ending}", ending.len()), &files);
    }
    let images = place.open(Vec::new()).await;
    for release in ["3", "6", "6", "7"] {
        let image = name(&format!("alpine/{release}"));
        let first = images.ensure(&image, Kit::None, Freshness::Cached).await.unwrap();
        let stat = fs::metadata(first.path.join("bin/sh")).unwrap();
        assert_eq!((stat.uid(), stat.permissions().mode()), (1_000_000, 0o104_755));
        let again = images.ensure(&image, Kit::None, Freshness::Cached).await.unwrap();
        assert_eq!(again, first);
    }
    assert_eq!((place.count("builds"), place.count("work")), (3, 0));
    let offered = images.list().await.unwrap();
    assert_eq!(offered.len(), 3, "without a recipe there is no kit for them: {offered:?}");
    assert!(offered.iter().all(|info| info.cached && info.disk_bytes > Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_ask_at_once_get_one_build_across_processes_too() {
    let Some(place) = Place::new() else { return };
    place.lay("alpine/3.tar", &[("bin/sh", b"ELF")]);
    let image = name("alpine/3");
    // Two caches in one directory exclude each other by the lock file alone, as two processes do.
    let handles = [place.open(Vec::new()).await, place.open(Vec::new()).await];
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..40 {
        let (images, image) = (handles[number % 2].clone(), image.clone());
        asking.spawn(async move { images.ensure(&image, Kit::None, Freshness::Cached).await });
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    while let Some(rootfs) = asking.join_next().await {
        paths.push(rootfs.unwrap().unwrap().path);
    }
    paths.dedup();
    assert_eq!((paths.len(), place.count("builds")), (1, 1));
}

#[tokio::test]
async fn a_build_anew_leaves_the_old_one_to_those_who_use_it() {
    let Some(place) = Place::new() else { return };
    place.lay("alpine/3.tar", &[("bin/sh", b"ELF")]);
    let (images, image) = (place.open(Vec::new()).await, name("alpine/3"));
    let old = images.ensure(&image, Kit::None, Freshness::Cached).await.unwrap();
    let new = images.ensure(&image, Kit::None, Freshness::Rebuilt).await.unwrap();
    assert_eq!(old.key, new.key);
    assert!(old.path != new.path && old.path.join("bin/sh").exists());
    assert_eq!(images.ensure(&image, Kit::None, Freshness::Cached).await.unwrap(), new);

    assert_eq!(images.prune(std::slice::from_ref(&old.path)).await.unwrap(), 0);
    assert_eq!(images.prune(&[]).await.unwrap(), 1);
    assert!(!old.path.exists() && new.path.exists());

    // Without its tarball nothing leads to it any more.
    fs::remove_file(place.tarballs.path().join("alpine/3.tar")).unwrap();
    assert_eq!(images.prune(std::slice::from_ref(&new.path)).await.unwrap(), 0);
    assert_eq!(images.prune(&[]).await.unwrap(), 1);
    assert_eq!((place.count("builds"), place.count("current")), (0, 0));
}

#[tokio::test]
async fn another_tarball_makes_another_build() {
    let Some(place) = Place::new() else { return };
    let (images, image) = (place.open(Vec::new()).await, name("alpine/3"));
    place.lay("alpine/3.tar", &[("bin/sh", b"one")]);
    let one = images.ensure(&image, Kit::None, Freshness::Cached).await.unwrap();
    place.lay("alpine/3.tar", &[("bin/sh", b"another")]);
    let two = images.ensure(&image, Kit::None, Freshness::Cached).await.unwrap();
    assert_ne!(one.key, two.key);
    assert_eq!(fs::read(two.path.join("bin/sh")).unwrap(), b"another");
}

#[tokio::test]
async fn a_name_without_recipe_and_tarball_is_unknown() {
    let Some(place) = Place::new() else { return };
    let images = place.open(vec![recipe("debian/13", Kit::Base)]).await;
    for (image, kit) in [("debian/99", Kit::Base), ("debian/13", Kit::None)] {
        let error = images.ensure(&name(image), kit, Freshness::Cached).await.unwrap_err();
        assert!(matches!(error, Error::UnknownImage { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn the_kit_is_added_to_a_debian_only() {
    let Some(place) = Place::new() else { return };
    place.lay("alpine/3.tar", &[("etc/os-release", b"ID=alpine\nVERSION_ID=3\n")]);
    place.lay("debian/11.tar", &[("etc/os-release", b"ID=debian\nVERSION_CODENAME=bullseye\n")]);
    place.lay("empty/1.tar", &[("bin/sh", b"ELF")]);
    let images = place.open(vec![recipe("debian/13", Kit::Base)]).await;
    for (image, found) in [
        ("alpine/3", "this is alpine"),
        ("debian/11", "this is debian bullseye"),
        ("empty/1", "without os-release"),
    ] {
        let error = images.ensure(&name(image), Kit::Base, Freshness::Cached).await.unwrap_err();
        assert!(error.reason().contains("the Kit, which needs a Debian"), "{}", error.reason());
        assert!(chain(&error).contains(found), "{}", chain(&error));
    }
    assert_eq!(place.count("builds"), 0);
}

#[tokio::test]
async fn a_torn_tarball_leaves_nothing() {
    let Some(place) = Place::new() else { return };
    place.lay("alpine/3.tar.zst", &[("bin/sh", &vec![7; 100_000])]);
    let path = place.tarballs.path().join("alpine/3.tar.zst");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let images = place.open(Vec::new()).await;
    let error = images.ensure(&name("alpine/3"), Kit::None, Freshness::Cached).await.unwrap_err();
    assert_eq!(error.reason(), "the image alpine/3 could not be built while unpacking the image");
    assert!(error.is_retryable());
    assert_eq!((place.count("builds"), place.count("work")), (0, 0));
    // The next try starts afresh.
    fs::write(&path, &whole).unwrap();
    images.ensure(&name("alpine/3"), Kit::None, Freshness::Cached).await.unwrap();
    assert_eq!((place.count("builds"), place.count("work")), (1, 0));
}

#[tokio::test]
async fn a_disk_that_is_too_full_is_told_before_anything_is_built() {
    let Some(place) = Place::new() else { return };
    place.lay("alpine/3.tar", &[("bin/sh", b"ELF")]);
    let small = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(small.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("not run: no file system can be mounted here");
        return;
    }
    let config = ImagesConfig {
        dir: small.path().to_owned(),
        tarballs: place.tarballs.path().to_owned(),
        ..ImagesConfig::new(Vec::new())
    };
    let images = Images::open(config).await.unwrap();
    let outcome = images.ensure(&name("alpine/3"), Kit::None, Freshness::Cached).await;
    let left = fs::read_dir(small.path().join("work")).unwrap().count();
    let unmounted = std::process::Command::new("umount").arg(small.path()).status().unwrap();
    assert!(unmounted.success());
    let error = outcome.unwrap_err();
    assert!(error.reason().ends_with("while looking for disk space"), "{}", error.reason());
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_mirror_that_fails_leaves_a_log_and_nothing_else() {
    let Some(place) = Place::new() else { return };
    if !Path::new("/usr/bin/mmdebstrap").exists() {
        eprintln!("not run: mmdebstrap is not installed");
        return;
    }
    let empty = tempfile::tempdir().unwrap();
    let mut images = place.open(vec![recipe("debian/13", Kit::None)]).await;
    let archive = Archive { uri: format!("file:{}", empty.path().display()), part: Part::Release };
    Arc::get_mut(&mut images.inner).unwrap().sources.set_archives(vec![archive]);
    let error = images.ensure(&name("debian/13"), Kit::None, Freshness::Cached).await.unwrap_err();
    let reason = error.reason();
    assert!(reason.starts_with("the image debian/13 could not be built while"), "{reason}");
    assert!(!reason.contains("file:") && chain(&error).contains("mmdebstrap ended with"));
    assert_eq!((place.count("builds"), place.count("work"), place.count("logs")), (0, 0, 1));

    Arc::get_mut(&mut images.inner).unwrap().sources.set_archives(Vec::new());
    let error = images.ensure(&name("debian/13"), Kit::None, Freshness::Cached).await.unwrap_err();
    assert!(chain(&error).contains("not configured with the Debian archive"), "{}", chain(&error));
}
