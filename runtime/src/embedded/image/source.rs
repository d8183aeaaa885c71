//! Which source an image name leads to: a tarball of the operator's, a recipe and the Debian archive
//! that the host's own apt uses, or a file of an image server.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use gantry_model::container::ImageName;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::{
    ImagesConfig, Mapping,
    build::Failure,
    cache,
    streams::{Remote, Streams},
    tarball::Release,
};
use crate::{Error, Kit, Result, embedded::Recipe};

/// The endings of tarballs, and how each is packed.
const ENDINGS: [(&str, Packing); 5] = [
    ("tar", Packing::Plain),
    ("tar.gz", Packing::Gzip),
    ("tgz", Packing::Gzip),
    ("tar.xz", Packing::Xz),
    ("tar.zst", Packing::Zstd),
];

/// How a tarball is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// Not at all.
    Plain,
    /// With gzip.
    Gzip,
    /// With xz.
    Xz,
    /// With Zstandard.
    Zstd,
}

/// One line of an apt configuration that leads to a part of the Debian archive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Archive {
    /// Where it is, as the host's apt knows it.
    pub(super) uri: String,
    /// Which part of a release it holds.
    pub(super) part: Part,
}

/// A part of a release in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Part {
    /// The release itself.
    Release,
    /// Its updates between point releases.
    Updates,
    /// Its security updates.
    Security,
}

impl Part {
    /// The suite of this part of the release `codename`.
    pub(super) fn suite(self, codename: &str) -> String {
        match self {
            Self::Release => codename.to_owned(),
            Self::Updates => format!("{codename}-updates"),
            Self::Security => format!("{codename}-security"),
        }
    }
}

/// Where the file system of an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Made with `mmdebstrap` by a recipe.
    Debian {
        /// How.
        recipe: Recipe,
        /// From where.
        archives: Vec<Archive>,
    },
    /// Unpacked from a tarball, a recipe applied to it when one is given.
    Tarball {
        /// The file.
        path: PathBuf,
        /// How it is packed.
        packing: Packing,
        /// SHA-256 of the file.
        digest: String,
        /// What to add.
        recipe: Option<Recipe>,
        /// Where packages come from.
        archives: Vec<Archive>,
    },
    /// Fetched from the image server, then like a tarball.
    Remote {
        /// The file.
        file: Remote,
        /// What to add.
        recipe: Option<Recipe>,
        /// Where packages come from.
        archives: Vec<Archive>,
    },
}

/// How one image is made on this host: all that its cache key depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The name.
    pub(super) image: ImageName,
    /// The services in it.
    pub(super) kit: Kit,
    /// What it is made from.
    pub(super) source: Source,
    /// Whose ids its owners get.
    pub(super) mapping: Mapping,
}

impl Plan {
    /// What the image is made from, in 64 hexadecimal digits. Every part is written with its length,
    /// so that no two plans read the same.
    pub(super) fn key(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(&cache::FORMAT.to_le_bytes());
        part(&self.mapping.base.to_le_bytes());
        part(&self.mapping.size.to_le_bytes());
        let (recipe, archives) = match &self.source {
            Source::Debian { recipe, archives } => (Some(recipe), archives),
            Source::Tarball { digest, recipe, archives, .. }
            | Source::Remote { file: Remote { sha256: digest, .. }, recipe, archives } => {
                part(digest.as_bytes());
                (recipe.as_ref(), archives)
            }
        };
        if let Some(recipe) = recipe {
            part(recipe.suite.as_bytes());
            for text in recipe.packages.iter().chain(&recipe.commands) {
                part(text.as_bytes());
            }
            for file in &recipe.files {
                part(file.path.as_bytes());
                part(&file.mode.to_le_bytes());
                part(&file.contents);
            }
            for archive in archives {
                part(archive.uri.as_bytes());
                part(archive.part.suite(&recipe.suite).as_bytes());
            }
        }
        hex::encode(hash.finalize())
    }

    /// The image and its kit as one name, for logs.
    pub(super) fn title(&self) -> String {
        let kit = match self.kit {
            Kit::None => "plain",
            Kit::Base => "kit",
            Kit::Dev => "dev",
        };
        format!("{}-{kit}", self.image.as_str())
    }
}

/// The sources of this host.
#[derive(Debug)]
pub(super) struct Sources {
    recipes: Vec<Recipe>,
    tarballs: PathBuf,
    mapping: Mapping,
    archives: Vec<Archive>,
    streams: Option<Arc<Streams>>,
    /// Digests of tarballs by what changes when the file does.
    digests: Digests,
}

/// Path, length, time of change and inode of a file, to its digest.
type Digests = Arc<Mutex<HashMap<(PathBuf, u64, i64, u64), String>>>;

impl Sources {
    /// Where the operator's tarballs are.
    pub(super) fn tarballs(&self) -> &Path {
        &self.tarballs
    }

    /// Reads the host's apt configuration. Fails where no request can be made to the image server, as
    /// without any certificates.
    pub(super) async fn open(config: &ImagesConfig) -> Result<Self> {
        let streams = config.server.as_ref().map(|server| Streams::open(server, &config.dir));
        let streams = streams
            .transpose()
            .map_err(|fault| Error::failed("setting up requests to the image server", fault))?;
        // Tarballs as they are need none, and asking takes most of a second.
        let known = if config.recipes.is_empty() { Ok(Vec::new()) } else { host_archives().await };
        let archives = known.unwrap_or_else(|error| {
            tracing::warn!(%error, "no Debian archive is known: images come from tarballs only");
            Vec::new()
        });
        Ok(Self {
            recipes: config.recipes.clone(),
            tarballs: config.tarballs.clone(),
            mapping: config.mapping,
            archives,
            streams: streams.map(Arc::new),
            digests: Digests::default(),
        })
    }

    /// The image server, if there is one.
    pub(super) fn streams(&self) -> Option<Arc<Streams>> {
        self.streams.clone()
    }

    /// Takes these for the archives of the host.
    #[cfg(test)]
    pub(super) fn set_archives(&mut self, archives: Vec<Archive>) {
        self.archives = archives;
    }

    /// How the image is made. A tarball goes before the archive, because the operator put it there; the
    /// image server is asked last, because it is the farthest.
    pub(super) async fn plan(&self, image: &ImageName, kit: Kit) -> Result<Plan> {
        let recipe = self.recipes.iter().find(|recipe| recipe.image == *image && recipe.kit == kit);
        let tarball = self.tarball(image).await?;
        let source = match (tarball, recipe) {
            (Some((path, packing, digest)), recipe) => {
                let recipe = match kit {
                    // As it is.
                    Kit::None => None,
                    Kit::Base | Kit::Dev => Some(match recipe {
                        Some(recipe) => recipe.clone(),
                        None => self.recipe_for(image, kit, &path, packing).await?,
                    }),
                };
                let archives = self.archives.clone();
                Source::Tarball { path, packing, digest, recipe, archives }
            }
            (None, Some(recipe)) => {
                Source::Debian { recipe: recipe.clone(), archives: self.archives.clone() }
            }
            (None, None) => self.remote(image, kit).await?,
        };
        Ok(Plan { image: image.clone(), kit, source, mapping: self.mapping })
    }

    /// Every image and kit that may be asked for.
    pub(super) async fn offered(&self) -> Vec<(ImageName, Kit)> {
        let mut offered: BTreeSet<(ImageName, Kit)> =
            self.recipes.iter().map(|recipe| (recipe.image.clone(), recipe.kit)).collect();
        let dir = self.tarballs.clone();
        let found = tokio::task::spawn_blocking(move || tarball_names(&dir)).await;
        for name in found.unwrap_or_default() {
            offered.insert((name.clone(), Kit::None));
            offered.insert((name, Kit::Base));
        }
        if let Some(streams) = &self.streams {
            let found = streams.offered().await.unwrap_or_else(|fault| {
                tracing::warn!(
                    error = &fault as &dyn std::error::Error,
                    "the image server's images are not offered"
                );
                Vec::new()
            });
            for (name, remote) in found {
                if self.recipe_of_release(Kit::Base, &remote).is_some() {
                    offered.insert((name.clone(), Kit::Base));
                }
                offered.insert((name, Kit::None));
            }
        }
        offered.into_iter().collect()
    }

    /// The file of the image server that an image is made from.
    async fn remote(&self, image: &ImageName, kit: Kit) -> Result<Source> {
        let name = || image.as_str().to_owned();
        let failed = |failure: Failure| Error::ImageBuild {
            name: name(),
            step: failure.step().to_owned(),
            source: Box::new(failure),
        };
        let found = match &self.streams {
            Some(streams) => streams.find(image).await,
            None => Ok(None),
        };
        let found = found.map_err(|fault| {
            failed(Failure::image_server("asking the image server for it", fault))
        })?;
        let file = found.ok_or_else(|| Error::UnknownImage { name: name() })?;
        let recipe = match kit {
            Kit::None => None,
            Kit::Base | Kit::Dev => {
                let recipe = self.recipe_of_release(kit, &file).cloned();
                let (id, codename) = (file.os.clone(), file.release.clone());
                let not = || failed(Failure::not_for_the_kit(Some(&Release { id, codename })));
                Some(recipe.ok_or_else(not)?)
            }
        };
        Ok(Source::Remote { file, recipe, archives: self.archives.clone() })
    }

    /// The recipe for the release of Debian that a file of the image server is of.
    fn recipe_of_release(&self, kit: Kit, file: &Remote) -> Option<&Recipe> {
        let fits = |recipe: &&Recipe| recipe.kit == kit && recipe.suite == file.release;
        self.recipes.iter().find(fits).filter(|_| file.os == "debian")
    }

    /// The tarball of an image, if the operator has laid one, with its digest.
    async fn tarball(&self, image: &ImageName) -> Result<Option<(PathBuf, Packing, String)>> {
        let (os, release) = image.parts();
        let dir = self.tarballs.join(os);
        let candidates =
            ENDINGS.map(|(ending, packing)| (dir.join(format!("{release}.{ending}")), packing));
        let digests = Arc::clone(&self.digests);
        cache::blocking("reading the image tarball", move || {
            for (path, packing) in candidates {
                match File::open(&path) {
                    Ok(file) => {
                        let digest = digest(&path, file, &digests)?;
                        return Ok(Some((path, packing, digest)));
                    }
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) if error.kind() == ErrorKind::NotADirectory => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(None)
        })
        .await
    }

    /// The recipe for a tarball that has none of its own: that of the same release of Debian.
    async fn recipe_for(
        &self,
        image: &ImageName,
        kit: Kit,
        path: &Path,
        packing: Packing,
    ) -> Result<Recipe> {
        let path = path.to_owned();
        let release = cache::blocking("reading the image tarball", move || {
            super::tarball::release_of(&path, packing)
        })
        .await?;
        let suite = release.as_ref().map(|release| release.codename.as_str());
        let recipe = self
            .recipes
            .iter()
            .find(|recipe| recipe.kit == kit && Some(recipe.suite.as_str()) == suite);
        recipe.cloned().ok_or_else(|| {
            let failure = Failure::not_for_the_kit(release.as_ref());
            Error::ImageBuild {
                name: image.as_str().to_owned(),
                step: failure.step().to_owned(),
                source: Box::new(failure),
            }
        })
    }
}

/// The digest of a file, remembered while the file stays as it is.
fn digest(path: &Path, mut file: File, digests: &Digests) -> io::Result<String> {
    let stat = file.metadata()?;
    let state = (path.to_owned(), stat.len(), stat.ctime_nsec() ^ stat.ctime(), stat.ino());
    let known = digests.lock().unwrap_or_else(PoisonError::into_inner).get(&state).cloned();
    if let Some(digest) = known {
        return Ok(digest);
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = io::Read::read(&mut file, &mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        hash.update(read);
    }
    let digest = hex::encode(hash.finalize());
    let mut digests = digests.lock().unwrap_or_else(PoisonError::into_inner);
    // One state per path: the one that is true now.
    digests.retain(|(known, ..), _| known != path);
    digests.insert(state, digest.clone());
    Ok(digest)
}

/// The names that the tarballs in `dir` stand for.
fn tarball_names(dir: &Path) -> Vec<ImageName> {
    let children = |dir: &Path| fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut names = Vec::new();
    for os in children(dir) {
        for file in children(&os.path()) {
            let (os, file) = (os.file_name(), file.file_name());
            let (Some(os), Some(file)) = (os.to_str(), file.to_str()) else { continue };
            let release =
                ENDINGS.iter().find_map(|(ending, _)| file.strip_suffix(ending)?.strip_suffix('.'));
            let Some(release) = release else { continue };
            if let Ok(name) = ImageName::parse("image", &format!("{os}/{release}")) {
                names.push(name);
            }
        }
    }
    names
}

/// The parts of the Debian archive that the host's apt is configured with.
async fn host_archives() -> io::Result<Vec<Archive>> {
    // What has been fetched says of itself whose it is.
    let fetched = index_targets(&[]).await?;
    if fetched.iter().any(|archive| archive.part == Part::Release) {
        return Ok(fetched);
    }
    // Before the first `apt-get update` there is only what the configuration says.
    index_targets(&["--no-release-info"]).await
}

async fn index_targets(options: &[&str]) -> io::Result<Vec<Archive>> {
    const FORMAT: &str = "$(REPO_URI)\t$(RELEASE)\t$(CODENAME)\t$(COMPONENT)\t$(ORIGIN)";
    let output = Command::new("apt-get")
        .arg("indextargets")
        .args(options)
        .args(["--format", FORMAT, "Created-By: Packages"])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        return Err(io::Error::other(format!("apt-get indextargets ended with {}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(archives(&text, |list| fs::read_to_string(list).ok()))
}

/// How the host's apt gets at its archive: proxies and what it makes of certificates.
pub(super) async fn host_apt_options() -> Vec<String> {
    let output = Command::new("apt-config")
        .arg("dump")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let Ok(output) = output else { return Vec::new() };
    let wanted = ["Acquire::http::", "Acquire::https::", "Acquire::Check-Valid-Until"];
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
        .map(|line| line.trim_end_matches(';').to_owned())
        .filter(|line| !line.ends_with("\"\""))
        .collect()
}

/// Picks the Debian archive out of apt's index targets; `read` gives the text of a mirror list.
fn archives(targets: &str, read: impl Fn(&Path) -> Option<String>) -> Vec<Archive> {
    let mut found = BTreeSet::new();
    for line in targets.lines() {
        let mut fields = line.split('\t');
        let mut field = || fields.next().unwrap_or_default();
        let (uri, release, codename, component, origin) =
            (field(), field(), field(), field(), field());
        // A field that apt does not know stays as its own name, as before the first update.
        let known = |text: &str| !text.is_empty() && !text.starts_with("$(");
        let name = if known(codename) { codename } else { release };
        let debian = if known(origin) {
            origin == "Debian"
        } else {
            uri.contains("debian") && is_debian(name)
        };
        // A release may be named with a directory, as in `bookworm/updates`.
        let part = match name.rsplit_once(['-', '/']) {
            None => Part::Release,
            Some((_, "updates")) => Part::Updates,
            Some((_, "security")) => Part::Security,
            Some(_) => continue,
        };
        if debian
            && component == "main"
            && let Some(uri) = plain_uri(uri, &read)
        {
            found.insert(Archive { uri, part });
        }
    }
    // Two mirrors of one part serve the same: the first will do.
    let mut archives: Vec<Archive> = Vec::new();
    for archive in found {
        if archives.iter().all(|other| other.part != archive.part) {
            archives.push(archive);
        }
    }
    archives.sort_by_key(|archive| archive.part);
    archives
}

/// Whether a release is one of Debian's, told by its name alone.
fn is_debian(release: &str) -> bool {
    let name = release.split(['-', '/']).next().unwrap_or_default();
    let names = ["bookworm", "trixie", "forky", "oldstable", "stable", "testing"];
    names.contains(&name)
}

/// The address itself where apt has a file that lists mirrors, as cloud images do.
fn plain_uri(uri: &str, read: impl Fn(&Path) -> Option<String>) -> Option<String> {
    if let Some(list) = uri.strip_prefix("mirror+file:") {
        let path = Path::new("/").join(list.trim_matches('/'));
        let text = read(&path)?;
        let first = text
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with("http://") || line.starts_with("https://"))?;
        return Some(first.split_whitespace().next()?.to_owned());
    }
    let scheme = uri.split_once(':').map(|(scheme, _)| scheme)?;
    matches!(scheme, "http" | "https" | "file" | "copy").then(|| uri.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(uri: &str, part: Part) -> Archive {
        Archive { uri: uri.to_owned(), part }
    }

    #[test]
    fn the_debian_archive_is_found_in_the_hosts_own_configuration() {
        let targets = "\
http://mirror.test/debian/\tbookworm\tbookworm\tmain\tDebian
http://mirror.test/debian/\tbookworm\tbookworm\tnon-free\tDebian
http://mirror.test/debian/\tbookworm-updates\tbookworm-updates\tmain\tDebian
http://mirror.test/debian/\tbookworm-backports\tbookworm-backports\tmain\tDebian Backports
http://mirror.test/security/\tstable-security\tbookworm-security\tmain\tDebian
https://node.test/\tnodistro\tnodistro\tmain\tSomebody
";
        assert_eq!(
            archives(targets, |_| None),
            [
                archive("http://mirror.test/debian/", Part::Release),
                archive("http://mirror.test/debian/", Part::Updates),
                archive("http://mirror.test/security/", Part::Security),
            ]
        );
    }

    #[test]
    fn before_the_first_update_the_name_of_the_release_tells() {
        for (release, want) in [
            ("bookworm", Some(Part::Release)),
            ("trixie-security", Some(Part::Security)),
            ("trixie-backports", None),
            ("noble", None),
            ("stable", Some(Part::Release)),
        ] {
            let line = format!("http://m.test/debian/\t{release}\t$(CODENAME)\tmain\t$(ORIGIN)\n");
            let got: Vec<Part> = archives(&line, |_| None).iter().map(|found| found.part).collect();
            assert_eq!(got.first().copied(), want, "release {release}");
        }
    }

    #[test]
    fn a_mirror_list_is_followed_and_other_transports_are_not() {
        let read = |path: &Path| {
            (path == Path::new("/etc/apt/mirrors/debian.list"))
                .then(|| "# chosen\nhttps://near.test/debian\tpriority:1\n".to_owned())
        };
        for (uri, want) in [
            ("mirror+file:/etc/apt/mirrors/debian.list/", Some("https://near.test/debian")),
            ("mirror+file:/elsewhere/", None),
            ("cdrom:[Debian]/", None),
            ("file:/srv/mirror/", Some("file:/srv/mirror/")),
        ] {
            assert_eq!(plain_uri(uri, read).as_deref(), want, "uri {uri}");
        }
    }
}
