//! Snapshots, copies of containers, and what refills them.
//!
//! Snapshots of Incus die with their container, so ours are containers that never start, with no
//! link (`s-<id>`). A container is refilled by a whole new one (`n-<id>`) that takes its name once it
//! has all files; if that is cut off between the removal of the one and the renaming of the other,
//! the new one stands for the container, and [`Inner::settle`] completes it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry_model::{ContainerId, SnapshotId};
use http::Method;

use super::{
    client::{Fault, Written},
    halves::Copied,
    instance::{self, ADDRESS, BYTES, IDENTITY, MADE, STARTED},
    lifecycle::{CHANGE_TIMEOUT, Inner},
    wire::{Instance, Map, NewInstance, NewName, Origin, Patch, Usage},
};
use crate::{Error, Order, Result, SnapshotInfo, Source, State, embedded::copies::Purpose};

/// How often a container is thawed that is being killed, and how long is waited between.
const THAWS_MAX: u32 = 10;
const THAW_PAUSE: Duration = Duration::from_millis(200);

impl Inner {
    /// The name of what a source is.
    pub(super) async fn origin(&self, source: Source) -> Result<Instance> {
        let (name, missing) = match source {
            Source::Container(id) => {
                self.settle(id).await?;
                (instance::name(id), Error::NotFound { id })
            }
            Source::Snapshot(snapshot) => {
                (instance::snapshot_name(snapshot), Error::NoSnapshot { snapshot })
            }
        };
        let found = self.named(&name).await?;
        found.filter(instance::is_made).ok_or(missing)
    }

    /// Copies `from` to a new container `name`, which is not whole yet. A container that runs is
    /// frozen meanwhile. It takes as long as it takes, but whoever needs its container can have it given up.
    pub(super) async fn copy_of(
        self: &Arc<Self>,
        from: &Instance,
        (name, purpose): (&str, Purpose),
        (mut config, mut devices): (Map, BTreeMap<String, Map>),
        what: &'static str,
    ) -> Result<()> {
        let id = instance::id(&from.name);
        let runs = instance::observed(from).is_some_and(|seen| seen.state == State::Running);
        // What is not said is taken over from the source.
        for key in from.config.keys().filter(|key| !key.starts_with("volatile.")) {
            config.entry(key.clone()).or_default();
        }
        let none: Map = [("type".to_owned(), "none".to_owned())].into();
        for device in ["eth0", "ramdisk", "project-ramdisk", "kvm", "session", "shares"] {
            devices.entry(device.to_owned()).or_insert_with(|| none.clone());
        }
        let new = NewInstance {
            name,
            kind: "container",
            source: Origin {
                kind: "copy",
                fingerprint: None,
                source: Some(&from.name),
                instance_only: true,
            },
            profiles: [],
            config,
            devices,
        };
        let frozen = id.filter(|_| runs);
        let _held = frozen.map(|id| self.held.hold(id));
        if let Some(id) = frozen {
            self.set_paused(id, true).await?;
        }
        let under_way = self.copies.begin(id, purpose);
        let copied = self.make_copy(&new, &under_way).await;
        drop(under_way);
        if let Some(id) = frozen {
            self.thaw(id).await?;
        }
        match copied.map_err(|fault| fault.during(what))? {
            Copied::Whole => Ok(()),
            Copied::GivenUp => Err(Error::GivenUp { what }),
        }
    }

    /// Thaws what was copied. It may be killed right now, which is what the copy has given way to.
    async fn thaw(&self, id: ContainerId) -> Result<()> {
        let mut tries = THAWS_MAX;
        loop {
            tries -= 1;
            match self.set_paused(id, false).await {
                Ok(()) | Err(Error::NotRunning { .. } | Error::NotFound { .. }) => return Ok(()),
                Err(error) if tries == 0 => return Err(error),
                Err(error) => tracing::debug!(%id, %error, "it is thawed again"),
            }
            tokio::time::sleep(THAW_PAUSE).await;
        }
    }

    /// Makes a container whole.
    pub(super) async fn finish(&self, name: &str, keys: &[(&str, &str)]) -> Result<(), Fault> {
        let made = [(MADE, "true")];
        let keys = keys.iter().chain(&made);
        let config = keys.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let path = format!("/1.0/instances/{name}");
        self.client.change(Method::PATCH, &path, Some(&Patch { config }), CHANGE_TIMEOUT).await
    }

    /// Makes a snapshot, unless there is one.
    pub(super) async fn snapshot(
        self: &Arc<Self>,
        id: ContainerId,
        snapshot: SnapshotId,
    ) -> Result<SnapshotInfo> {
        const WHAT: &str = "making the snapshot";
        let name = instance::snapshot_name(snapshot);
        match self.named(&name).await? {
            Some(kept) if instance::is_made(&kept) => {
                return Ok(SnapshotInfo { id: snapshot, bytes: instance::bytes(&kept) });
            }
            Some(_) => {
                self.wait_for_half(&name, WHAT).await?;
                self.discard(&name).await?;
            }
            None => {}
        }
        let from = self.origin(Source::Container(id)).await?;
        let made_with = (Map::new(), instance::root_only(&self.config.pool));
        self.copy_of(&from, (&name, Purpose::Snapshot), made_with, WHAT).await?;
        self.finish_snapshot(snapshot, WHAT).await
    }

    /// Makes a snapshot whole that has all files.
    pub(super) async fn finish_snapshot(
        &self,
        snapshot: SnapshotId,
        what: &'static str,
    ) -> Result<SnapshotInfo> {
        let name = instance::snapshot_name(snapshot);
        let failed = |fault: Fault| fault.during(what);
        let usage: Usage =
            self.client.get(&format!("/1.0/instances/{name}/state")).await.map_err(failed)?;
        let root = usage.disk.as_ref().and_then(|disks| disks.get("root"));
        let bytes = root.map_or(0, |root| u64::try_from(root.usage).unwrap_or(0));
        self.finish(&name, &[(BYTES, &bytes.to_string())]).await.map_err(failed)?;
        Ok(SnapshotInfo { id: snapshot, bytes })
    }

    /// Every snapshot.
    pub(super) async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let all = self.instances().await?;
        let kept = all.iter().filter(|instance| instance::is_made(instance)).filter_map(|kept| {
            let id = instance::snapshot(&kept.name)?;
            Some(SnapshotInfo { id, bytes: instance::bytes(kept) })
        });
        Ok(kept.collect())
    }

    /// Removes a snapshot, whole or not.
    pub(super) async fn delete_snapshot(&self, snapshot: SnapshotId) -> Result<()> {
        self.discard(&instance::snapshot_name(snapshot)).await
    }

    /// Makes a container of another's files, unless there is one.
    pub(super) async fn copy(self: &Arc<Self>, order: &Order, source: Source) -> Result<()> {
        const WHAT: &str = "copying the container";
        let name = instance::name(order.id);
        self.settle(order.id).await?;
        match self.named(&name).await? {
            Some(there) if instance::is_made(&there) => return Ok(()),
            Some(_) => {
                self.wait_for_half(&name, WHAT).await?;
                self.delete(order.id).await?;
            }
            None => {}
        }
        let from = self.origin(source).await?;
        let address = self.network.take(order.id).await?;
        let made = async {
            let bridge = &self.config.network.bridge;
            let devices =
                instance::devices(&self.config.pool, bridge, address, instance::Mounted::default());
            let purpose = Purpose::Container(order.id);
            let made_with = (instance::fixed(address), devices);
            self.copy_of(&from, (&name, purpose), made_with, WHAT).await?;
            let finished = async {
                self.forget_identity(&name).await?;
                self.finish(&name, &[]).await
            };
            finished.await.map_err(|fault| fault.during(WHAT))
        };
        let made = made.await;
        if made.is_err() && self.named(&name).await?.is_none() {
            self.network.release(order.id).await?;
        }
        made
    }

    /// Two machines must not have one id; systemd makes a new one where there is none.
    async fn forget_identity(&self, name: &str) -> Result<(), Fault> {
        let path = "/etc/machine-id";
        if self.client.read_file(name, path).await?.is_some() {
            self.client.write_file(name, path, Written::File(b"")).await?;
        }
        Ok(())
    }

    /// Replaces a container's files.
    pub(super) async fn refill(self: &Arc<Self>, id: ContainerId, source: Source) -> Result<()> {
        const WHAT: &str = "replacing the container's files";
        let old = self.origin(Source::Container(id)).await?;
        let from = self.origin(source).await?;
        self.stop(id, Duration::ZERO).await?;
        let (fresh, config, devices) = self.prepare_refill(id, &old, WHAT).await?;
        let purpose = Purpose::Container(id);
        self.copy_of(&from, (&fresh, purpose), (config, devices), WHAT).await?;
        self.finish_refill(id, &old, WHAT).await
    }

    /// What the container is to be like that takes a stopped one's place: its name, keys and devices.
    pub(super) async fn prepare_refill(
        &self,
        id: ContainerId,
        old: &Instance,
        what: &'static str,
    ) -> Result<(String, Map, BTreeMap<String, Map>)> {
        let fresh = instance::fresh_name(id);
        self.wait_for_half(&fresh, what).await?;
        self.discard(&fresh).await?;
        let address = instance::address(old)
            .ok_or_else(|| Error::failed(what, "the key of its address is gone"))?;
        let kept = |key: &&String| !key.starts_with("volatile.") && !key.starts_with("image.");
        let kept = old.config.keys().filter(kept);
        let mut config: Map =
            kept.filter_map(|key| Some((key.clone(), old.config.get(key)?.clone()))).collect();
        // What is written into it is written anew.
        for key in [MADE, IDENTITY] {
            config.insert(key.to_owned(), String::new());
        }
        config.insert(ADDRESS.to_owned(), address.to_string());
        config.insert(STARTED.to_owned(), "true".to_owned());
        let bridge = &self.config.network.bridge;
        let devices =
            instance::devices(&self.config.pool, bridge, address, instance::Mounted::default());
        Ok((fresh, config, devices))
    }

    /// Has the container that has all files take the other's place.
    pub(super) async fn finish_refill(
        &self,
        id: ContainerId,
        old: &Instance,
        what: &'static str,
    ) -> Result<()> {
        let finished = self.finish(&instance::fresh_name(id), &[]).await;
        finished.map_err(|fault| fault.during(what))?;
        self.discard(&old.name).await?;
        self.settle(id).await
    }

    /// Completes a refill that was cut off when the old files were gone.
    pub(super) async fn settle(&self, id: ContainerId) -> Result<()> {
        let name = instance::name(id);
        if self.named(&name).await?.is_some() {
            return Ok(());
        }
        let fresh = instance::fresh_name(id);
        if !self.named(&fresh).await?.as_ref().is_some_and(instance::is_made) {
            return Ok(());
        }
        let path = format!("/1.0/instances/{fresh}");
        let renamed = NewName { name: &name };
        let renamed = self.client.change(Method::POST, &path, Some(&renamed), CHANGE_TIMEOUT).await;
        renamed.map_err(|fault| fault.during("replacing the container's files"))
    }

    /// Removes something that does not run, if it is there.
    pub(super) async fn discard(&self, name: &str) -> Result<()> {
        let path = format!("/1.0/instances/{name}");
        match self.client.change(Method::DELETE, &path, None::<&()>, CHANGE_TIMEOUT).await {
            Err(fault) if fault.is_missing() => Ok(()),
            other => other.map_err(|fault| fault.during("removing files")),
        }
    }
}
