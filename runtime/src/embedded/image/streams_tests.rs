//! Images of a simplestreams server: Python makes its tree with `tar`, and serves it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::*;

/// Makes a tree as image servers have it, and serves it. Argument: the directory.
const SERVER: &str = r#"
import functools, hashlib, http.server, json, os, platform, sys, tarfile, io
os.chdir(sys.argv[1])
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]

def file(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tarfile.open(path, "w:xz") as tar:
        info = tarfile.TarInfo("./bin/sh")
        info.mode, info.size = 0o4755, len(text)
        tar.addfile(info, io.BytesIO(text))
    data = open(path, "rb").read()
    return {"ftype": "root.tar.xz", "path": path, "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest()}

def product(os_, release, aliases, arch=ARCH, **versions):
    return {"aliases": aliases, "arch": arch, "os": os_, "release": release, "variant": "default",
            "release_title": release, "requirements": {},
            "versions": {name[1:]: {"items": items} for name, items in versions.items()}}

meta = {"ftype": "incus.tar.xz", "path": "images/m", "size": 1, "sha256": "0" * 64}
wrong = file("images/wrong/rootfs.tar.xz", b"wrong") | {"sha256": "0" * 64}
away = file("images/away/rootfs.tar.xz", b"away") | {"path": "http://127.77.1.9/rootfs.tar.xz"}
products = {
    "alpine:3.20:" + ARCH + ":default": product("Alpine", "3.20", "alpine/3.20/default,alpine/3.20",
        _20260101={"root.tar.xz": file("images/old/rootfs.tar.xz", b"old"), "incus.tar.xz": meta},
        _20260202={"root.tar.xz": file("images/new/rootfs.tar.xz", b"new"), "incus.tar.xz": meta},
        _20260303={"disk-kvm.img": meta | {"ftype": "disk-kvm.img"}}),
    "alpine:3.20:other:default": product("Alpine", "3.20", "alpine/other,alpine/3.20", "other",
        _20260202={"root.tar.xz": file("images/other/rootfs.tar.xz", b"other")}),
    "debian:trixie:" + ARCH + ":default": product("Debian", "trixie", "debian/trixie, debian/13",
        _20260202={"root.tar.xz": file("images/debian/rootfs.tar.xz", b"debian")}),
    "squash:1:" + ARCH + ":default": product("Squash", "1", "squash/1",
        _20260202={"root.squashfs": meta | {"ftype": "squashfs"}}),
    "wrong:1:" + ARCH + ":default": product("Wrong", "1", "wrong/1", _1={"root.tar.xz": wrong}),
    "away:1:" + ARCH + ":default": product("Away", "1", "away/1", _1={"root.tar.xz": away}),
}
os.makedirs("streams/v1", exist_ok=True)
json.dump({"format": "index:1.0", "index": {
    "images": {"datatype": "image-downloads", "path": "streams/v1/images.json", "products": list(products)},
    "ids": {"datatype": "image-ids", "path": "streams/v1/missing.json", "products": []},
}}, open("streams/v1/index.json", "w"))
json.dump({"content_id": "images", "datatype": "image-downloads", "format": "products:1.0",
           "products": products}, open("streams/v1/images.json", "w"))

class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        open("asked", "a").write(self.path + "\n")

server = http.server.ThreadingHTTPServer(("127.77.1.8", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// An image server and a cache.
struct Place {
    tree: TempDir,
    cache: TempDir,
    server: Child,
    port: u16,
}

impl Place {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: unpacking an image needs root");
            return None;
        }
        let (tree, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut server = Command::new("/usr/bin/python3")
            .args(["-c", SERVER])
            .arg(tree.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap();
        Some(Self { tree, cache, server, port })
    }

    async fn open(&self, recipes: Vec<Recipe>) -> Images {
        self.open_in(self.cache.path(), recipes).await
    }

    async fn open_in(&self, dir: &Path, recipes: Vec<Recipe>) -> Images {
        let mut config = ImagesConfig::new(recipes);
        config.dir = dir.to_owned();
        config.tarballs = dir.join("none");
        let server = format!("http://127.77.1.8:{}", self.port);
        config.server = Some(Url::parse(&server).unwrap());
        Images::open(config).await.unwrap()
    }

    /// How often files that end so were asked for.
    fn asked(&self, ending: &str) -> usize {
        let asked = fs::read_to_string(self.tree.path().join("asked")).unwrap_or_default();
        asked.lines().filter(|line| line.ends_with(ending)).count()
    }

    fn stop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// What lies in the parts of the cache where images are made and kept.
    fn counts(&self) -> (usize, usize) {
        let count = |part| fs::read_dir(self.cache.path().join(part)).unwrap().count();
        (count("builds"), count("work"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

fn name(text: &str) -> ImageName {
    ImageName::parse("image", text).unwrap()
}

#[tokio::test]
async fn the_newest_version_is_fetched_once() {
    let Some(place) = Place::new() else { return };
    let images = place.open(Vec::new()).await;
    let first = images.ensure(&name("alpine/3.20"), Kit::None, Freshness::Cached).await.unwrap();
    let program = first.path.join("bin/sh");
    assert_eq!(fs::read(&program).unwrap(), b"new");
    let stat = fs::metadata(&program).unwrap();
    assert_eq!((stat.uid(), stat.permissions().mode()), (1_000_000, 0o104_755));
    // Both names are the same file, and so are all later containers.
    for image in ["alpine/3.20", "debian/13", "debian/trixie"] {
        images.ensure(&name(image), Kit::None, Freshness::Cached).await.unwrap();
    }
    assert_eq!((place.asked("/new/rootfs.tar.xz"), place.asked("/debian/rootfs.tar.xz")), (1, 1));
    assert_eq!(place.asked("/images.json"), 1);
    assert_eq!(place.counts(), (2, 0));
    assert!(!first.path.parent().unwrap().join("download").exists());

    let offered = images.list().await.unwrap();
    let names: Vec<&str> = offered.iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["alpine/3.20", "debian/13", "debian/trixie", "wrong/1"]);
    assert!(offered.iter().all(|info| info.kit == Kit::None));
    assert_eq!(images.prune(&[]).await.unwrap(), 0);
}

#[tokio::test]
async fn the_kit_comes_to_the_release_that_it_was_made_for() {
    let Some(place) = Place::new() else { return };
    let recipe = Recipe {
        image: name("debian/of-our-own"),
        kit: Kit::Base,
        suite: "trixie".to_owned(),
        packages: Vec::new(),
        files: Vec::new(),
        commands: Vec::new(),
    };
    let images = place.open(vec![recipe]).await;
    let offered = images.list().await.unwrap();
    let with_kit: Vec<&str> = offered
        .iter()
        .filter(|info| info.kit == Kit::Base)
        .map(|info| info.name.as_str())
        .collect();
    assert_eq!(with_kit, ["debian/13", "debian/of-our-own", "debian/trixie"]);
    let error =
        images.ensure(&name("alpine/3.20"), Kit::Base, Freshness::Cached).await.unwrap_err();
    assert!(error.reason().contains("the Kit, which needs a Debian"), "{}", error.reason());
    assert_eq!(place.asked(".xz"), 0);
}

#[tokio::test]
async fn what_was_known_stays_known_without_the_server() {
    let Some(mut place) = Place::new() else { return };
    let image = name("alpine/3.20");
    let before = place.open(Vec::new()).await;
    let built = before.ensure(&image, Kit::None, Freshness::Cached).await.unwrap();
    place.stop();

    let after = place.open(Vec::new()).await;
    assert_eq!(after.ensure(&image, Kit::None, Freshness::Cached).await.unwrap(), built);
    let error = after.ensure(&name("debian/13"), Kit::None, Freshness::Cached).await.unwrap_err();
    assert!(error.reason().ends_with("while downloading the image"), "{}", error.reason());
    assert!(error.is_retryable());

    // Where nothing was ever known, an image may be the server's: that is no unknown one.
    let empty = tempfile::tempdir().unwrap();
    let strange = place.open_in(empty.path(), Vec::new()).await;
    let error = strange.ensure(&image, Kit::None, Freshness::Cached).await.unwrap_err();
    assert!(error.reason().ends_with("while asking the image server for it"), "{}", error.reason());
    assert!(strange.list().await.unwrap().is_empty());
    assert_eq!(place.counts(), (1, 0));
}

#[tokio::test]
async fn a_file_that_is_not_the_one_is_refused() {
    let Some(place) = Place::new() else { return };
    let images = place.open(Vec::new()).await;
    for (image, says) in [
        ("wrong/1", Some("downloading the image")),
        ("squash/1", None),
        // It lies on another server.
        ("away/1", None),
    ] {
        let error = images.ensure(&name(image), Kit::None, Freshness::Cached).await.unwrap_err();
        match says {
            Some(step) => assert!(error.reason().ends_with(step), "{}", error.reason()),
            None => assert!(matches!(error, Error::UnknownImage { .. }), "{error:?}"),
        }
    }
    assert_eq!((place.counts(), place.asked("/wrong/rootfs.tar.xz")), ((0, 0), 1));
}
