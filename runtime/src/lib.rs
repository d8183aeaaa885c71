//! The port to container runtimes: what the control plane asks of one, and two that answer.
//!
//! [`Runtime`] is the seam. Behind it stand [`fake`], a world in memory with the behaviour of a real
//! runtime (its containers have addresses that tests can listen on), and [`embedded`], which drives
//! `runc` directly and needs no daemon. One contract suite holds both to the same promises.
//!
//! A runtime never decides what should run and never reads the store. It is told with idempotent
//! `ensure_*` calls, which a caller may repeat after a crash of either side, and it is asked with
//! [`Runtime::list`], which is the truth; [`Runtime::exits`] is only a hint to look again.

mod archive;
mod bequest;
pub mod embedded;
mod error;
pub mod fake;
mod hostname;
pub mod incus;
mod kvm;
mod locks;
mod network;
mod pool;
mod project_ramdisks;
mod sessions;
mod shares;
mod tree;
mod types;

use std::{collections::BTreeMap, os::fd::OwnedFd, time::Duration};

use async_trait::async_trait;
use gantry_model::{ContainerId, ShareId, SnapshotId, container::ImageName};
use tokio::sync::broadcast;

pub use archive::Archive;
pub use bequest::Bequest;
pub use error::{BoxError, Error};
pub use kvm::Kvm;
pub use network::NetworkConfig;
pub use types::{
    Attached, Enforced, Exec, ExecOutput, ExecUser, ExitStatus, Firewall, ImageInfo, Kit, Limits,
    Network, Observed, Order, Outbound, Proxy, PtyControl, PtyIo, PtySize, RamdiskUse, Running,
    Share, ShareFault, SharedUse, SnapshotInfo, Source, State, Stats, Way,
};

/// The result of a call to a runtime.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the control plane asks of a container runtime; nothing that only one backend has.
///
/// Every `ensure_*` call is idempotent and converges from any state that a crash may have left,
/// including half-made containers. Calls for one container exclude each other; calls for different
/// containers run at the same time. Dropping a returned future early is allowed: the effect may
/// then be partial, and the next call completes or removes it.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// What a process needs that is to go on with these containers while this one lives. Whoever asks
    /// has stopped to change them.
    fn bequest(&self) -> Result<Bequest> {
        Ok(Bequest::default())
    }

    /// Whether files of containers are being copied, which goes on when nobody waits for it any more.
    fn is_copying(&self) -> bool {
        false
    }

    /// Another process has these containers now; what runs in them by this one goes on.
    fn retire(&self) {}

    /// Makes the container's file system and whatever else it needs before its init can start.
    /// The image is resolved and, the first time, built, which takes from seconds to minutes.
    async fn ensure_created(&self, order: &Order) -> Result<()>;

    /// Starts the init if it does not run, creating the container first where that is missing, and
    /// returns once the address is set up (services inside may need longer). A paused container is
    /// resumed. The order's environment, limits, firewall rules, outbound
    /// network and hostname take effect at each start.
    async fn ensure_running(&self, order: &Order) -> Result<Running>;

    /// Asks the init to end, and kills everything in the container when `grace` is over; zero kills
    /// at once. A container that does not run, or does not exist, is left as it is.
    async fn ensure_stopped(&self, id: ContainerId, grace: Duration) -> Result<()>;

    /// Freezes every process of a running container. [`Error::NotRunning`] when it is stopped.
    async fn ensure_paused(&self, id: ContainerId) -> Result<()>;

    /// Thaws a paused container. [`Error::NotRunning`] when it is stopped.
    async fn ensure_resumed(&self, id: ContainerId) -> Result<()>;

    /// Makes these the container's variables: every command and login that begins from now on has them.
    /// Processes that run already keep theirs. Nothing happens to a container that does not run or does
    /// not exist: its next start has the variables of its order.
    async fn ensure_environment(
        &self,
        id: ContainerId,
        env: &BTreeMap<String, String>,
    ) -> Result<()>;

    /// Makes this the name that the container sees as its own, from now on until its next start, which has
    /// the name of its order. Nothing happens to a container that does not run or does not exist.
    async fn ensure_hostname(&self, id: ContainerId, hostname: &str) -> Result<()>;

    /// Makes these the container's firewall rules, unless it has newer ones: the first enabled one that
    /// fits a connection, new or not, decides. Waits for no other call. Nothing happens to a container
    /// that does not exist; its order has the rules that are in force before its first process runs.
    async fn ensure_firewall(&self, id: ContainerId, firewall: &Firewall) -> Result<()>;

    /// Makes this the container's outbound network, unless it has a newer one: in one step, and of
    /// connections that exist, too. Waits for no other call. Nothing happens to a container that does
    /// not exist; that of its order is in force before its first process runs.
    async fn ensure_outbound(&self, id: ContainerId, outbound: &Outbound) -> Result<()>;

    /// What is in force of a container's outbound network, as far as this process knows.
    async fn outbound(&self, id: ContainerId) -> Result<Option<Enforced>>;

    /// Makes these, and no others, the directories of other containers that a container sees below
    /// `/hoody/shares`, and tells which could not be there and why. A share that is there as wanted stays
    /// as it is, with what is open in it; one whose directory is another one by now is made anew. Files that
    /// are open in a share that goes stay open. Nothing happens to a container that does not run: it
    /// starts without shares. A share is gone as soon as its source stops.
    async fn ensure_shares(
        &self,
        id: ContainerId,
        shares: &[Share],
    ) -> Result<Vec<(ShareId, ShareFault)>>;

    /// Kills and removes the container with everything that belongs to it: file system, ramdisk,
    /// address. Succeeds when there is nothing to remove.
    async fn ensure_deleted(&self, id: ContainerId) -> Result<()>;

    /// Creates the container as [`Runtime::ensure_created`] does, but with the file system that
    /// `source` has at this moment: of the order, image, kit and `cache` are not read. The copy is a
    /// machine of its own, with another address and another machine id. A container that exists is
    /// left as it is, wherever its files are from; one that was seen to exist has all its files.
    ///
    /// A source that runs goes on running, but is frozen while its files are copied.
    /// [`Error::NotFound`] or [`Error::NoSnapshot`] when there is no such source;
    /// [`Error::GivenUp`] when source or copy are needed for something that goes before it.
    async fn ensure_copied(&self, order: &Order, source: Source) -> Result<()>;

    /// Replaces the whole file system of a container by what `source` has at this moment, and leaves
    /// the container stopped (whatever ran in it was killed) under its address: a restoration, if the
    /// source is a snapshot of its own, and otherwise a refresh of a copy from where it was copied.
    /// The ramdisk is not touched. Until this succeeds, the files are the old ones or the new ones,
    /// never a mixture. Called again, it does the same again: what the container has written since is lost.
    ///
    /// Of the source holds what [`Runtime::ensure_copied`] says. It must have been made from the same
    /// image as the container, unless one of them came here in an archive. A container is not refilled from
    /// itself: nothing happens then.
    async fn ensure_refilled(&self, id: ContainerId, source: Source) -> Result<()>;

    /// Keeps the file system (not memory, not the ramdisk) that the container has at this moment
    /// under the name `snapshot`, which belongs to nobody: it outlives the container. If there is
    /// such a snapshot already, it stays as it is, whatever it was made from, and the container need
    /// not exist any more. A running container is frozen while its files are copied.
    async fn ensure_snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<SnapshotInfo>;

    /// The whole file system that `source` has at this moment, for another runtime. It is kept beside until
    /// the archive has been read or dropped, so that the container may change meanwhile; a source that
    /// runs goes on running, but is frozen while it is kept. Deleting the source ends nothing.
    ///
    /// Of the source holds what [`Runtime::ensure_copied`] says.
    async fn export(&self, source: Source) -> Result<Archive>;

    /// Creates the container as [`Runtime::ensure_copied`] does, but with the files of an archive: a machine
    /// of its own, which knows no machine id, whole or not at all. A container that exists is left as it is,
    /// and the archive is dropped.
    ///
    /// An archive that breaks off, or is none, is [`Error::Failed`]; it was used up, as by every call that
    /// takes one, so that another try takes another archive. [`Error::GivenUp`] when the container is stopped
    /// or deleted meanwhile.
    async fn ensure_imported(&self, order: &Order, archive: Archive) -> Result<()>;

    /// Replaces the whole file system of a container by that of an archive, as [`Runtime::ensure_refilled`]
    /// does, whatever image either was made from. It runs on while the archive is read, and is stopped when all of
    /// it is there: after a failure, it is as it was. It knows no machine id afterwards.
    async fn ensure_refilled_from(&self, id: ContainerId, archive: Archive) -> Result<()>;

    /// Keeps the files of an archive under the name `snapshot`, as [`Runtime::ensure_snapshot`] does. If there
    /// is such a snapshot already, it stays as it is, and the archive is dropped. What is filled from it knows
    /// no machine id.
    async fn ensure_snapshot_imported(
        &self,
        snapshot: SnapshotId,
        archive: Archive,
    ) -> Result<SnapshotInfo>;

    /// Removes a snapshot. Succeeds when there is nothing to remove. Copies made from it stay.
    async fn ensure_snapshot_deleted(&self, snapshot: SnapshotId) -> Result<()>;

    /// Every snapshot that this runtime keeps, complete ones only.
    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>>;

    /// Every container that this runtime holds for us, including those that no record asks for.
    async fn list(&self) -> Result<Vec<Observed>>;

    /// One container as it is now; `None` when the runtime does not hold it.
    async fn observe(&self, id: ContainerId) -> Result<Option<Observed>>;

    /// Runs a command inside a running container, in all of its namespaces, and waits for its end.
    /// The command is killed when its time is over ([`Error::Timeout`]) or this future is dropped.
    async fn exec(&self, id: ContainerId, command: &Exec) -> Result<ExecOutput>;

    /// Runs a command inside a running container on a new pseudo-terminal. `stdin`, `timeout` and
    /// `output_max` of the command are not used; dropping the [`Attached`] hangs the terminal up.
    async fn attach(&self, id: ContainerId, command: &Exec, size: PtySize) -> Result<Attached>;

    /// Starts the program for sessions (`gantry-session`) inside a running container, as its root user and with
    /// its variables, and returns the connection to it: a `SOCK_SEQPACKET` socket on which it speaks
    /// first. Each call starts one of its own. It ends when the connection does, so that none outlives this
    /// process; that it has ended, with the container or alone, is the end of the connection. It is a process
    /// of the container, with no more rights than that: all that it says may be a lie.
    ///
    /// [`Error::NotRunning`], [`Error::Paused`], or [`Error::NoPlace`] for a container that has to be started
    /// anew for it; [`Error::Timeout`] after ten seconds. Dropped early, it leaves nothing behind.
    async fn session(&self, id: ContainerId) -> Result<OwnedFd>;

    /// What the container has used since its init started.
    async fn stats(&self, id: ContainerId) -> Result<Stats>;

    /// The images offered here and whether each is ready for use without a build.
    async fn images(&self) -> Result<Vec<ImageInfo>>;

    /// The operator's icon of an image, a PNG of at most 256 KiB, if there is one.
    async fn icon(&self, image: &ImageName) -> Result<Option<Vec<u8>>>;

    /// Whether containers may have the host's `/dev/kvm`.
    fn kvm(&self) -> Kvm;

    /// Names this boot of the host: containers that ran under another one do not run any more.
    fn boot_id(&self) -> &str;

    /// Tells the ids of containers whose init has ended, for whatever reason. A hint: messages may be
    /// lost when the receiver lags, and [`Runtime::list`] is the truth.
    fn exits(&self) -> broadcast::Receiver<ContainerId>;
}
