//! A small image, built for real from the Debian archive that this machine's apt uses.

#![cfg(test)]

use std::{
    error::Error as _,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use gantry_model::container::ImageName;
use gantry_runtime::{
    Kit,
    embedded::{
        File, Recipe,
        image::{Freshness, Images, ImagesConfig},
    },
};

fn recipe() -> Recipe {
    Recipe {
        image: ImageName::parse("image", "debian/13").unwrap(),
        kit: Kit::None,
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

/// The names and times of apt's lists on this machine.
fn host_lists() -> Vec<(String, i64)> {
    let lists = fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    let mut lists: Vec<(String, i64)> = lists
        .map(|file| {
            let modified = file.metadata().unwrap().mtime();
            (file.file_name().to_string_lossy().into_owned(), modified)
        })
        .filter(|(name, _)| name.ends_with("Packages.lz4") || name.ends_with("_InRelease"))
        .collect();
    lists.sort();
    lists
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_debian_is_built_from_the_hosts_own_archive() {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_root || !Path::new("/usr/bin/mmdebstrap").exists() {
        eprintln!("\n*** NOT TESTED: building an image needs root and mmdebstrap ***\n");
        return;
    }
    let cache = tempfile::tempdir_in("/var/tmp").unwrap();
    let config = ImagesConfig { dir: cache.path().to_owned(), ..ImagesConfig::new(vec![recipe()]) };
    let images = Images::open(config).await.unwrap();
    let lists = host_lists();
    let mut progress = images.progress();
    let image = recipe().image;
    let build = images.ensure(&image, Kit::None, Freshness::Cached);
    let mut seen: Vec<(String, Option<f32>)> = Vec::new();
    let watch = async {
        while progress.changed().await.is_ok() {
            if let Some(now) = progress.borrow_and_update().clone() {
                seen.push((now.step, now.fraction));
            }
        }
    };
    let rootfs = tokio::select! {
        rootfs = tokio::time::timeout(Duration::from_mins(10), build) => match rootfs.unwrap() {
            Ok(rootfs) => rootfs,
            Err(error) => panic!("{error}: {:?}", error.source().map(ToString::to_string)),
        },
        () = watch => panic!("the progress ended before the build"),
    };
    let mut steps: Vec<&str> = seen.iter().map(|(step, _)| step.as_str()).collect();
    steps.dedup();
    for step in ["fetching packages", "installing packages", "setting up services"] {
        assert!(steps.contains(&step), "{steps:?}");
    }
    assert!(seen.iter().filter_map(|(_, fraction)| *fraction).is_sorted(), "{seen:?}");

    let root = &rootfs.path;
    assert_eq!(fs::read(root.join("opt/gantry/where")).unwrap(), b"/");
    let made = fs::metadata(root.join("opt/gantry/made")).unwrap();
    assert_eq!((made.uid(), made.permissions().mode() & 0o777), (1_000_000, 0o750));
    let passwd = fs::metadata(root.join("usr/bin/passwd")).unwrap();
    assert_eq!(passwd.permissions().mode() & 0o7777, 0o4755);
    let sources = fs::read_to_string(root.join("etc/apt/sources.list.d/debian.sources")).unwrap();
    assert!(sources.contains("Suites: trixie\n"));
    for gone in ["etc/hostname", "etc/apt/sources.list", "usr/share/man/man1"] {
        assert!(!root.join(gone).exists(), "{gone}");
    }
    assert_eq!(host_lists(), lists, "the host's apt is left alone");
    assert!(images.list().await.unwrap().iter().all(|info| info.cached));

    from_a_tarball(cache.path(), root).await;
}

/// The same file system as the operator's tarball, with a recipe added to it.
async fn from_a_tarball(dir: &Path, root: &Path) {
    let tarballs = dir.join("tarballs");
    fs::create_dir_all(tarballs.join("debian")).unwrap();
    let tarball = tarballs.join("debian/13.tar.gz");
    let packed = std::process::Command::new("tar")
        .args(["--owner=0", "--group=0", "--numeric-owner", "-czf"])
        .args([tarball.as_os_str(), "-C".as_ref(), root.as_os_str(), ".".as_ref()])
        .status()
        .unwrap();
    assert!(packed.success());

    let recipe = Recipe { kit: Kit::Base, packages: vec!["netbase".to_owned()], ..recipe() };
    let config = ImagesConfig {
        dir: dir.join("others"),
        tarballs,
        ..ImagesConfig::new(vec![recipe.clone()])
    };
    let lists = host_lists();
    let images = Images::open(config).await.unwrap();
    let rootfs = match images.ensure(&recipe.image, Kit::Base, Freshness::Cached).await {
        Ok(rootfs) => rootfs,
        Err(error) => panic!("{error}: {:?}", error.source().map(ToString::to_string)),
    };
    let services = fs::metadata(rootfs.path.join("etc/services")).unwrap();
    assert_eq!(services.uid(), 1_000_000, "the package is there, and shifted");
    assert_eq!(fs::read(rootfs.path.join("opt/gantry/where")).unwrap(), b"/");
    for gone in ["etc/apt/gantry-build.list", "usr/sbin/policy-rc.d", "dev/null", "proc/self"] {
        assert!(!rootfs.path.join(gone).exists(), "{gone}");
    }
    assert_eq!(host_lists(), lists, "the host's apt is left alone");

    // Without the Kit it is as it was.
    let plain = images.ensure(&recipe.image, Kit::None, Freshness::Cached).await.unwrap();
    assert!(!plain.path.join("etc/services").exists());
}
