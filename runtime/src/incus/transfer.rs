//! Archives of whole file systems, out and in.
//!
//! What is read as an archive is a private copy (`e-<number>`), whose files are read where Incus keeps
//! them. What comes in as an archive is handed over as an image, of which one container is made; then the image is
//! removed. Both may be left by a crash, and are removed by the next start.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gantry_model::{ContainerId, SnapshotId};
use http::Method;

use super::{
    client::Fault,
    halves::FILES_TIMEOUT,
    images::{FILES, METADATA},
    instance,
    lifecycle::{CHANGE_TIMEOUT, Inner},
    wire::{Image, Instance, Map, NewInstance, Origin},
};
use crate::{
    Archive, Error, Order, Result, SnapshotInfo, Source,
    archive::{
        Blocking, Kind, MOUNTED, Notes, Reader, Tree, Writer, forgetful, invalid, pack, pipe,
    },
    embedded::copies::Purpose,
    tree::open_dir,
};

/// Where notes are made, below the runtime's directory.
pub(super) const SCRATCH: &str = "archives";

/// How much of an archive is read at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// A property of images that are archives.
const ARCHIVE: &str = "gantry.archive";

/// A private copy. Removed when it is dropped.
struct Kept {
    inner: Arc<Inner>,
    name: String,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.inner.later(move |inner| {
            let name = name.clone();
            async move { inner.discard(&name).await }
        });
    }
}

/// An archive that Incus has as an image. Removed when it is dropped.
pub(super) struct Upload {
    inner: Arc<Inner>,
    fingerprint: String,
}

impl Drop for Upload {
    fn drop(&mut self) {
        let fingerprint = std::mem::take(&mut self.fingerprint);
        self.inner.later(move |inner| {
            let fingerprint = fingerprint.clone();
            async move { inner.remove_image(&fingerprint).await }
        });
    }
}

impl Inner {
    fn token(&self) -> u64 {
        (u64::from(std::process::id()) << 32) | self.tokens.fetch_add(1, Ordering::Relaxed)
    }

    async fn remove_image(&self, fingerprint: &str) -> Result<()> {
        let path = format!("/1.0/images/{fingerprint}");
        match self.client.change(Method::DELETE, &path, None::<&()>, CHANGE_TIMEOUT).await {
            Err(fault) if fault.is_missing() => Ok(()),
            other => other.map_err(|fault| fault.during("removing an archive")),
        }
    }

    /// Removes what interrupted calls have left.
    pub(super) async fn remove_unfinished(&self) -> Result<()> {
        const WHAT: &str = "removing what interrupted calls have left";
        for left in self.instances().await?.iter().filter(|left| instance::is_export(&left.name)) {
            tracing::info!(name = left.name, "removing what was read as an archive");
            self.discard(&left.name).await?;
        }
        let images: Vec<Image> = self
            .client
            .get("/1.0/images?recursion=1")
            .await
            .map_err(|fault: Fault| fault.during(WHAT))?;
        for left in images.iter().filter(|image| image.properties.contains_key(ARCHIVE)) {
            tracing::info!(image = left.fingerprint, "removing an archive");
            self.remove_image(&left.fingerprint).await?;
        }
        let scratch = self.config.dir.join(SCRATCH);
        match std::fs::remove_dir_all(scratch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::failed(WHAT, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Where Incus keeps the files of a container that does not run.
    fn files(&self, name: &str) -> io::Result<PathBuf> {
        let socket = self.config.socket.canonicalize()?;
        let dir = socket.parent().unwrap_or(&socket);
        let whole = format!("{}_{name}", self.config.project);
        Ok(dir
            .join("storage-pools")
            .join(&self.config.pool)
            .join("containers")
            .join(whole)
            .join("rootfs"))
    }

    /// The whole file system of a source.
    pub(super) async fn export(self: &Arc<Self>, source: Source) -> Result<Archive> {
        const WHAT: &str = "keeping the files for an archive";
        let from = self.origin(source).await?;
        let kept = Kept { inner: Arc::clone(self), name: instance::export_name(self.token()) };
        let made_with = (Map::new(), instance::root_only(&self.config.pool));
        self.copy_of(&from, (&kept.name, Purpose::Archive), made_with, WHAT).await?;
        let copy = self.named(&kept.name).await?;
        let copy = copy.ok_or_else(|| Error::failed(WHAT, "it vanished as soon as it was made"))?;
        let mapping = instance::on_disk(&copy).map_err(|text| Error::failed(WHAT, text))?;
        let files = self.files(&kept.name).map_err(|error| Error::failed(WHAT, error))?;
        let root = open_dir(rustix::fs::CWD, &files).map_err(|error| {
            let text = format!(
                "the files are not at {}, where storage of the kinds dir and btrfs has them: {error}",
                files.display()
            );
            Error::failed(WHAT, text)
        })?;
        let notes = self.config.dir.join(SCRATCH);
        let (mut sink, archive) = pipe(self.shutdown.clone());
        self.tasks.spawn_blocking(move || {
            let write = || {
                let notes = Notes::begin(&notes)?;
                let mut writer = Writer::new(&mut sink, ".");
                pack(Tree { root, mapping, without: MOUNTED, notes: &notes }, &mut writer)?;
                writer.finish().map(drop)
            };
            let written = write();
            drop(kept);
            sink.end(written);
        });
        Ok(archive)
    }

    /// Hands an archive over. What does not come to its end, or is none, is not kept, nor what nobody
    /// waits for.
    pub(super) async fn upload(
        self: &Arc<Self>,
        what: &'static str,
        archive: Archive,
    ) -> Result<Upload> {
        let unwanted = self.shutdown.child_token();
        let _wanted = unwanted.clone().drop_guard();
        let inner = Arc::clone(self);
        let work = async move {
            let token = inner.token();
            // With the number, so that the same archive twice is two images.
            let metadata = format!(
                "architecture: {}\ncreation_date: 1\nproperties:\n  {ARCHIVE}: \"{token:x}\"\n",
                std::env::consts::ARCH,
            );
            let input = Blocking::new(archive, move || unwanted.is_cancelled());
            let (mut sink, image) = pipe(inner.shutdown.clone());
            let packing = inner.tasks.spawn_blocking(move || {
                let written = repack(input, &mut sink, &metadata);
                let told = match &written {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                };
                sink.end(told);
                written
            });
            let properties = format!("{ARCHIVE}={token:x}");
            let sent = inner.client.import(&properties, image, FILES_TIMEOUT).await;
            let upload = sent.map(|fingerprint| Upload { inner, fingerprint });
            let packed = packing.await.map_err(|error| Error::failed(what, error))?;
            match (packed, upload) {
                (Ok(()), upload) => upload.map_err(|fault| fault.during(what)),
                // It is Incus that would not take it.
                (Err(error), Err(fault)) if error.kind() == io::ErrorKind::BrokenPipe => {
                    Err(fault.during(what))
                }
                (Err(error), _) => Err(Error::failed(what, error)),
            }
        };
        self.detached(work).await
    }

    /// Makes a container of an archive.
    async fn make_of(
        &self,
        image: &Upload,
        name: &str,
        (config, devices): (Map, BTreeMap<String, Map>),
    ) -> Result<(), Fault> {
        let source = Origin::image(&image.fingerprint);
        let new = NewInstance { name, kind: "container", source, profiles: [], config, devices };
        self.client.change(Method::POST, "/1.0/instances", Some(&new), FILES_TIMEOUT).await
    }

    /// Makes a container of an archive, unless there is one.
    pub(super) async fn import(self: &Arc<Self>, order: &Order, image: &Upload) -> Result<()> {
        const WHAT: &str = "importing the container";
        let name = instance::name(order.id);
        self.settle(order.id).await?;
        match self.named(&name).await? {
            Some(there) if instance::is_made(&there) => return Ok(()),
            Some(_) => self.delete(order.id).await?,
            None => {}
        }
        let address = self.network.take(order.id).await?;
        let bridge = &self.config.network.bridge;
        let mounted = instance::Mounted::default();
        let devices = instance::devices(&self.config.pool, bridge, address, mounted);
        let made = async {
            self.make_of(image, &name, (instance::fixed(address), devices)).await?;
            self.finish(&name, &[]).await
        };
        let made = made.await.map_err(|fault| fault.during(WHAT));
        if made.is_err() && self.named(&name).await?.is_none() {
            self.network.release(order.id).await?;
        }
        made
    }

    /// Replaces a container's files by those of an archive.
    pub(super) async fn refill_from(
        self: &Arc<Self>,
        id: ContainerId,
        image: &Upload,
    ) -> Result<()> {
        const WHAT: &str = "replacing the container's files";
        let old: Instance = self.origin(Source::Container(id)).await?;
        let (fresh, config, devices) = self.prepare_refill(id, &old, WHAT).await?;
        let made = self.make_of(image, &fresh, (config, devices)).await;
        made.map_err(|fault| fault.during(WHAT))?;
        // It runs until its new files are all there.
        self.stop(id, Duration::ZERO).await?;
        self.finish_refill(id, &old, WHAT).await
    }

    /// A snapshot, if there is one.
    pub(super) async fn kept(&self, snapshot: SnapshotId) -> Result<Option<SnapshotInfo>> {
        let found = self.named(&instance::snapshot_name(snapshot)).await?;
        let kept = found.filter(instance::is_made);
        Ok(kept.map(|kept| SnapshotInfo { id: snapshot, bytes: instance::bytes(&kept) }))
    }

    /// Makes a snapshot of an archive, unless there is one.
    pub(super) async fn import_snapshot(
        &self,
        snapshot: SnapshotId,
        image: &Upload,
    ) -> Result<SnapshotInfo> {
        const WHAT: &str = "importing the snapshot";
        if let Some(kept) = self.kept(snapshot).await? {
            return Ok(kept);
        }
        let name = instance::snapshot_name(snapshot);
        self.discard(&name).await?;
        let devices = instance::root_only(&self.config.pool);
        let made = self.make_of(image, &name, (Map::new(), devices)).await;
        made.map_err(|fault| fault.during(WHAT))?;
        self.finish_snapshot(snapshot, WHAT).await
    }
}

/// Makes an image of an archive: a machine that does not know which one it was.
fn repack(input: impl io::Read, output: impl io::Write, metadata: &str) -> io::Result<()> {
    let mut reader = Reader::new(io::BufReader::with_capacity(PIECE_BYTES, input));
    let mut writer = Writer::new(output, FILES);
    writer.add_beside(METADATA, metadata.as_bytes())?;
    // One root, which is a directory: a link in its place would lead whoever unpacks the image, or opens
    // files of what was made of it, out of it.
    let mut is_first = true;
    while let Some(mut head) = reader.next()? {
        if head.path.is_empty() != is_first || (is_first && head.kind != Kind::Directory) {
            return Err(invalid("its first entry must be the root directory, and no other"));
        }
        is_first = false;
        forgetful(&mut head);
        writer.add(&head, &mut reader)?;
    }
    if is_first {
        return Err(invalid("it is empty"));
    }
    writer.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Head;

    fn repacked(heads: &[Head]) -> io::Result<Vec<u8>> {
        let mut writer = Writer::new(Vec::new(), ".");
        for head in heads {
            let Kind::File { size, .. } = head.kind else {
                writer.add(head, io::empty())?;
                continue;
            };
            writer.add(head, io::Read::take(io::repeat(b'x'), size))?;
        }
        let mut output = Vec::new();
        repack(writer.finish()?.as_slice(), &mut output, "about: it\n").map(|()| output)
    }

    #[test]
    fn an_image_has_one_root_which_is_a_directory() {
        let root = || Head::new("", Kind::Directory, 0o755);
        let file = || Head::new("file", Kind::file(1), 0o644);
        let link = || Head::new("", Kind::Symlink(b"/".to_vec()), 0o777);
        for (what, heads, want) in [
            ("nothing", vec![], "empty"),
            ("no root", vec![file()], "first entry"),
            ("a root that comes late", vec![file(), root()], "first entry"),
            ("a link as root", vec![link()], "first entry"),
            ("a file as root", vec![Head::new("", Kind::file(1), 0o644)], "first entry"),
            ("another name as root", vec![Head::new("", Kind::Link(b"a".to_vec()), 0)], "first"),
            ("two roots", vec![root(), root()], "no other"),
            ("a link in place of the root", vec![root(), file(), link()], "no other"),
        ] {
            let error = repacked(&heads).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}");
            assert!(error.to_string().contains(want), "{what}: {error}");
        }
    }

    #[test]
    fn an_image_says_what_it_is_and_forgets_which_machine_it_was() {
        let octets = repacked(&[
            Head::new("", Kind::Directory, 0o755),
            Head::new("etc", Kind::Directory, 0o755),
            Head::new("etc/machine-id", Kind::file(33), 0o444),
            Head::new("etc/same", Kind::Link(b"etc/machine-id".to_vec()), 0o444),
            Head::new("last", Kind::file(7), 0o600),
        ]);
        let octets = octets.unwrap();
        let mut image = tar::Archive::new(octets.as_slice());
        let told = image.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            io::Read::read_to_string(&mut entry, &mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        });
        let want = [
            (METADATA, "about: it\n"),
            ("rootfs/", ""),
            ("rootfs/etc/", ""),
            ("rootfs/etc/machine-id", ""),
            ("rootfs/etc/same", ""),
            ("rootfs/last", "xxxxxxx"),
        ];
        assert!(told.eq(want.map(|(name, text)| (name.to_owned(), text.to_owned()))));
        let mut image = tar::Archive::new(octets.as_slice());
        let links = image.entries().unwrap().map(|entry| {
            entry.unwrap().link_name().unwrap().map(|target| target.display().to_string())
        });
        let links: Vec<_> = links.flatten().collect();
        assert_eq!(links, ["rootfs/etc/machine-id"]);
    }
}
