//! Carries out a plan: lock, make, unpack, check, publish.

use std::{
    error::Error as StdError,
    fmt,
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::Command,
    sync::{Semaphore, watch},
};

use super::{
    Freshness, Mapping,
    cache::{Cache, KeyLock, Marker, Work},
    debian,
    flight::Outcome,
    log::Log,
    script::{self, COMMAND_MARK, Script},
    source::{Archive, Packing, Part, Plan, Source},
    streams::{Fault, Remote, Streams},
    tarball::{self, Release},
    unpack::{Unpacked, unpack},
};
use crate::{
    BoxError,
    embedded::{Progress, Recipe},
};

/// How many builds run at a time; each keeps a processor busy.
const BUILDS_MAX: usize = 2;

/// How long the programs of one build may run.
const PROGRAMS_TIME_MAX: Duration = Duration::from_mins(30);

/// What the disk must be able to take before a build starts, in bytes.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// The longest line of a program's output that is looked at, in bytes.
const LINE_BYTES_MAX: u64 = 1 << 16;

/// Why an image could not be made. Shared by all who wait for it.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    step: &'static str,
    cause: Arc<Cause>,
}

/// The cause, for the operator: it names programs and paths.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("{doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{program} ended with {status}; its output is in {}, the end of it:\n{tail}", log.display())]
    Program { program: &'static str, status: ExitStatus, log: PathBuf, tail: String },
    #[error("{program} was still at work after {} s", PROGRAMS_TIME_MAX.as_secs())]
    TooLong { program: &'static str },
    #[error("the disk can take {free} bytes only, {FREE_BYTES_MIN} are needed")]
    NoSpace { free: u64 },
    #[error("the host's apt is not configured with the Debian archive")]
    NoArchive,
    #[error("the Kit needs the release of Debian that it was made for, and this is {found}")]
    NotForTheKit { found: String },
    #[error("the image server did not give it")]
    ImageServer {
        #[source]
        source: Fault,
    },
    #[error("the build did not come to its end")]
    Lost {
        #[source]
        source: Option<BoxError>,
    },
}

impl Failure {
    /// What was being done, in words that the owner of a container may read.
    pub(super) fn step(&self) -> &'static str {
        self.step
    }

    /// A build whose task ended before it did.
    pub(super) fn lost() -> Self {
        Self::new("building it", Cause::Lost { source: None })
    }

    fn lost_by(source: impl Into<BoxError>) -> Self {
        Self::new("building it", Cause::Lost { source: Some(source.into()) })
    }

    /// An image server that did not give what was asked of it.
    pub(super) fn image_server(step: &'static str, source: Fault) -> Self {
        Self::new(step, Cause::ImageServer { source })
    }

    /// A tarball that the Kit cannot be added to.
    pub(super) fn not_for_the_kit(release: Option<&Release>) -> Self {
        let found = match release {
            None => "a file system without os-release".to_owned(),
            Some(Release { id, codename, .. }) if codename.is_empty() => id.clone(),
            Some(Release { id, codename, .. }) => format!("{id} {codename}"),
        };
        Self::new("adding the Kit, which needs a Debian", Cause::NotForTheKit { found })
    }

    fn new(step: &'static str, cause: Cause) -> Self {
        Self { step, cause: Arc::new(cause) }
    }

    fn io(step: &'static str, doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::new(step, Cause::Io { doing, source })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.source()
    }
}

/// Makes images. A cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Builder {
    cache: Cache,
    mapping: Mapping,
    /// How the host's apt reaches its archive, beside the sources.
    apt_options: Arc<[String]>,
    streams: Option<Arc<Streams>>,
    progress: watch::Sender<Option<Progress>>,
    slots: Arc<Semaphore>,
}

/// One build under way.
struct Build<'b> {
    builder: &'b Builder,
    plan: &'b Plan,
    work: &'b Work,
    log: Log,
    at: Stage,
    /// How much of the whole was done at most; packages come in rounds, progress does not go back.
    reached: f32,
}

/// A step of a build, and how much of the whole is done when it begins.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stage {
    step: &'static str,
    fraction: f32,
}

const STARTING: Stage = Stage { step: "preparing the build", fraction: 0.0 };
const READING: Stage = Stage { step: "reading the package lists", fraction: 0.02 };
const FETCHING: Stage = Stage { step: "fetching packages", fraction: 0.08 };
const DOWNLOADING: Stage = Stage { step: "downloading the image", fraction: 0.02 };
const INSTALLING: Stage = Stage { step: "installing packages", fraction: 0.25 };
const CONFIGURING: Stage = Stage { step: "setting up services", fraction: 0.8 };
const UNPACKING: Stage = Stage { step: "unpacking the image", fraction: 0.85 };
const WRITING: Stage = Stage { step: "writing the image to disk", fraction: 0.97 };

impl Builder {
    /// A builder for this cache.
    pub(super) fn new(
        cache: Cache,
        mapping: Mapping,
        apt_options: Vec<String>,
        streams: Option<Arc<Streams>>,
        progress: watch::Sender<Option<Progress>>,
    ) -> Self {
        let (apt_options, slots) = (apt_options.into(), Arc::new(Semaphore::new(BUILDS_MAX)));
        Self { cache, mapping, apt_options, streams, progress, slots }
    }

    /// Makes the image of the plan, or takes the one that another process made meanwhile. Whatever
    /// goes wrong, nothing half-built remains.
    pub(super) async fn build(&self, plan: Plan, freshness: Freshness) -> Outcome {
        let step = STARTING.step;
        let _slot = self.slots.acquire().await.map_err(Failure::lost_by)?;
        let key = plan.key();
        let lock =
            self.cache.lock(&key).await.map_err(Failure::io(step, "waiting for the build lock"))?;
        if freshness == Freshness::Cached
            && let Ok(Some(rootfs)) = self.cache.current(&key).await
        {
            return Ok(rootfs);
        }
        let free = self.cache.free_bytes().map_err(Failure::io(step, "asking for free space"))?;
        if free < FREE_BYTES_MIN {
            return Err(Failure::new("looking for disk space", Cause::NoSpace { free }));
        }
        let work =
            self.cache.begin(&key, &lock).map_err(Failure::io(step, "making a directory"))?;
        let log = Log::create(self.cache.log_path(&plan.title()))
            .await
            .map_err(Failure::io(step, "making the log"))?;
        tracing::info!(image = %plan.title(), key, log = %log.path().display(), "building an image");
        let mut build =
            Build { builder: self, plan: &plan, work: &work, log, at: STARTING, reached: 0.0 };
        let made = build.run().await;
        build.log.flush().await;
        self.progress.send_replace(None);
        let outcome = self.finish(&plan, made, work, lock).await;
        match &outcome {
            Ok(rootfs) => {
                tracing::info!(image = %plan.title(), path = %rootfs.path.display(), "image built");
            }
            Err(failure) => {
                tracing::error!(image = %plan.title(), step = failure.step, cause = %failure,
                    "the image could not be built");
            }
        }
        outcome
    }

    /// Publishes what was made, or removes it. The lock is kept until that is done.
    async fn finish(
        &self,
        plan: &Plan,
        made: Result<Unpacked, Failure>,
        work: Work,
        lock: KeyLock,
    ) -> Outcome {
        let cache = self.cache.clone();
        let names = (plan.key(), plan.title());
        let mapping = self.mapping;
        let finished = tokio::task::spawn_blocking(move || match made {
            Ok(unpacked) => cache
                .publish(&work, &Marker::new(names, &unpacked, mapping), &lock)
                .map_err(Failure::io(WRITING.step, "publishing the build")),
            Err(failure) => {
                drop(work);
                drop(lock);
                Err(failure)
            }
        });
        finished.await.unwrap_or_else(|error| Err(Failure::lost_by(error)))
    }
}

impl Build<'_> {
    async fn run(&mut self) -> Result<Unpacked, Failure> {
        let plan = self.plan;
        match &plan.source {
            Source::Debian { recipe, archives } => {
                let script = self.script(recipe, archives)?;
                let options = &self.builder.apt_options;
                let command = debian::command(self.work.path(), recipe, archives, &script, options);
                self.unpack_output("mmdebstrap", command).await
            }
            Source::Tarball { path, packing, recipe, archives, .. } => {
                self.tarball(path, *packing, recipe.as_ref(), archives).await
            }
            Source::Remote { file, recipe, archives } => {
                let path = self.download(file).await?;
                let made = self.tarball(&path, Packing::Xz, recipe.as_ref(), archives).await?;
                let removed = tokio::fs::remove_file(&path).await;
                removed.map_err(Failure::io(WRITING.step, "removing the download"))?;
                Ok(made)
            }
        }
    }

    /// Unpacks a tarball as it is, or with a recipe applied to it.
    async fn tarball(
        &mut self,
        path: &Path,
        packing: Packing,
        recipe: Option<&Recipe>,
        archives: &[Archive],
    ) -> Result<Unpacked, Failure> {
        let Some(recipe) = recipe else {
            return self.unpack_tarball(path, packing, "rootfs", self.builder.mapping).await;
        };
        self.check(path, packing, recipe).await?;
        let script = self.script(recipe, archives)?;
        let options = &self.builder.apt_options;
        let text = tarball::install_text(recipe, archives, &script, options);
        let install = self.work.path().join("install");
        fs::write(&install, text).map_err(Failure::io(self.at.step, "writing a script"))?;
        let stage = Mapping { base: 0, size: u32::MAX };
        self.unpack_tarball(path, packing, "stage", stage).await?;
        let mut command = debian::contained("sh", self.work.path());
        command.arg(install).arg(self.work.path().join("stage"));
        let unpacked = self.unpack_output("apt-get", command).await?;
        self.remove("stage").await?;
        Ok(unpacked)
    }

    /// Fetches a file of the image server.
    async fn download(&mut self, file: &Remote) -> Result<PathBuf, Failure> {
        self.enter(DOWNLOADING, &file.url);
        let path = self.work.path().join("download");
        let span = UNPACKING.fraction - DOWNLOADING.fraction;
        let Some(streams) = self.builder.streams.clone() else { return Err(Failure::lost()) };
        let show = |share| self.show(DOWNLOADING.fraction + share * span, &file.url);
        let downloaded = streams.download(file, &path, show).await;
        downloaded.map_err(|fault| Failure::image_server(DOWNLOADING.step, fault))?;
        Ok(path)
    }

    fn script(&self, recipe: &Recipe, archives: &[Archive]) -> Result<Script, Failure> {
        if archives.iter().all(|archive| archive.part != Part::Release) {
            return Err(Failure::new("looking for the Debian archive", Cause::NoArchive));
        }
        script::write(self.work.path(), recipe, archives)
            .map_err(Failure::io(self.at.step, "writing the recipe out"))
    }

    /// Refuses a tarball that is not of the release that the recipe is for.
    async fn check(&self, path: &Path, packing: Packing, recipe: &Recipe) -> Result<(), Failure> {
        let path = path.to_owned();
        let release = tokio::task::spawn_blocking(move || tarball::release_of(&path, packing))
            .await
            .map_err(Failure::lost_by)?
            .map_err(Failure::io(UNPACKING.step, "reading the tarball"))?;
        match release {
            Some(release) if release.id == "debian" && release.codename == recipe.suite => Ok(()),
            release => Err(Failure::not_for_the_kit(release.as_ref())),
        }
    }

    async fn unpack_tarball(
        &mut self,
        path: &Path,
        packing: Packing,
        name: &str,
        mapping: Mapping,
    ) -> Result<Unpacked, Failure> {
        self.enter(UNPACKING, &path.display().to_string());
        let target = self.directory(name)?;
        let path = path.to_owned();
        let unpacking = move || unpack(tarball::open(&path, packing)?, &target, mapping);
        tokio::task::spawn_blocking(unpacking)
            .await
            .map_err(Failure::lost_by)?
            .map_err(Failure::io(UNPACKING.step, "unpacking the tarball"))
    }

    /// Runs a program that writes a tar stream, and unpacks the stream while it comes.
    async fn unpack_output(
        &mut self,
        program: &'static str,
        mut command: Command,
    ) -> Result<Unpacked, Failure> {
        self.enter(STARTING, program);
        let (target, mapping) = (self.directory("rootfs")?, self.builder.mapping);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawning = Failure::io(STARTING.step, "starting unshare");
        let mut child = command.kill_on_drop(true).spawn().map_err(&spawning)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Failure::lost());
        };
        let stdout = stdout.into_owned_fd().map_err(&spawning)?;
        let unpacking =
            tokio::task::spawn_blocking(move || unpack(File::from(stdout), &target, mapping));
        let status = tokio::time::timeout(PROGRAMS_TIME_MAX, async {
            self.follow(stderr).await;
            child.wait().await
        })
        .await;
        let Ok(status) = status else {
            // With it goes everything in its process namespace.
            child.kill().await.map_err(Failure::io(self.at.step, "stopping a program"))?;
            return Err(Failure::new(self.at.step, Cause::TooLong { program }));
        };
        let status = status.map_err(Failure::io(self.at.step, "waiting for a program"))?;
        let unpacked = unpacking.await.map_err(Failure::lost_by)?;
        match unpacked {
            Ok(unpacked) if status.success() => Ok(unpacked),
            // The cause of the program's end, then, and not its consequence.
            Err(error) if status.success() || is_ours(&error) => {
                Err(Failure::io(UNPACKING.step, "unpacking the image")(error))
            }
            Ok(_) | Err(_) => {
                let (log, tail) = (self.log.path().to_owned(), self.log.tail());
                let cause = Cause::Program { program, status, log, tail };
                Err(Failure::new(self.at.step, cause))
            }
        }
    }

    /// Reads a program's messages to their end.
    async fn follow(&mut self, output: impl AsyncRead + Unpin) {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        let mut packages = Packages::default();
        loop {
            line.clear();
            let read = (&mut output).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
            match read {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "a program's output cannot be read further");
                    return;
                }
            }
            let text = String::from_utf8_lossy(&line);
            self.log.line(&text).await;
            let text = text.trim();
            if let Some(stage) = stage(text) {
                packages.enter(stage);
                self.enter(stage, text);
            } else if let Some(fraction) = packages.count(text) {
                self.show(fraction, text);
            }
        }
    }

    /// Begins a step.
    fn enter(&mut self, stage: Stage, message: &str) {
        if self.at != stage {
            tracing::info!(image = %self.plan.title(), step = stage.step, "building an image");
        }
        self.at = stage;
        self.show(stage.fraction, message);
    }

    fn show(&mut self, fraction: f32, message: &str) {
        self.reached = self.reached.max(fraction);
        self.builder.progress.send_replace(Some(Progress {
            image: self.plan.image.clone(),
            step: self.at.step.to_owned(),
            fraction: Some(self.reached),
            message: message.to_owned(),
        }));
    }

    fn directory(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.work.path().join(name);
        let made = fs::create_dir(&path);
        made.map_err(Failure::io(self.at.step, "making a directory"))?;
        Ok(path)
    }

    async fn remove(&self, name: &str) -> Result<(), Failure> {
        tokio::fs::remove_dir_all(self.work.path().join(name))
            .await
            .map_err(Failure::io(WRITING.step, "removing a directory"))
    }
}

/// Whether unpacking failed by itself, and not because the stream ended early.
fn is_ours(error: &io::Error) -> bool {
    let kinds = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::InvalidData];
    kinds.contains(&error.kind())
}

/// The step that a line of output begins.
fn stage(line: &str) -> Option<Stage> {
    if let Some(message) = line.strip_prefix("I: ") {
        let beginnings = [
            ("running apt-get update", READING),
            ("downloading packages", FETCHING),
            ("extracting archives", INSTALLING),
            ("installing remaining packages", INSTALLING),
            ("creating tarball", UNPACKING),
        ];
        let found = beginnings.iter().find(|(beginning, _)| message.starts_with(beginning));
        return found.map(|(_, stage)| *stage);
    }
    line.starts_with(COMMAND_MARK).then_some(CONFIGURING)
}

/// Counts packages while they are installed.
#[derive(Debug, Default)]
struct Packages {
    total: u16,
    done: u16,
    installing: bool,
}

impl Packages {
    fn enter(&mut self, stage: Stage) {
        self.installing = stage == INSTALLING;
    }

    /// How much of the whole is done after this line, if it says something about that. Every package
    /// is unpacked and set up.
    fn count(&mut self, line: &str) -> Option<f32> {
        if let Some((_, counts)) = line.split_once(" upgraded, ") {
            let count: u16 = counts.split(' ').next()?.parse().ok()?;
            self.total = self.total.saturating_add(count);
        }
        let one = line.starts_with("Unpacking ") || line.starts_with("Setting up ");
        self.done = self.done.saturating_add(u16::from(one));
        if !one || !self.installing || self.total == 0 {
            return None;
        }
        let share = (f32::from(self.done) / (2.0 * f32::from(self.total))).min(1.0);
        Some(INSTALLING.fraction + share * (CONFIGURING.fraction - INSTALLING.fraction))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_follows_what_the_programs_say() {
        let mut packages = Packages::default();
        packages.enter(stage("I: installing remaining packages inside the chroot...").unwrap());
        assert_eq!(packages.count("0 upgraded, 4 newly installed, 0 to remove."), None);
        let fractions: Vec<f32> = ["Unpacking a (1) ...", "Setting up a (1) ..."]
            .into_iter()
            .filter_map(|line| packages.count(line))
            .collect();
        assert!(fractions.is_sorted() && fractions.iter().all(|f| (0.25..0.8).contains(f)));
        assert_eq!(stage("gantry: command useradd user"), Some(CONFIGURING));
        assert_eq!(stage("I: automatically chosen mode: root"), None);
    }
}
