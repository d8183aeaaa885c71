//! Files that come from elsewhere: from a container or a snapshot of the same server, which its runtime
//! does by itself, or of another, whose runtime gives an archive of them.

use std::{sync::Arc, time::Duration};

use gantry_model::SnapshotId;
use gantry_runtime::{Runtime, SnapshotInfo, Source};
use gantry_store::{Container, FillSource, SnapshotOrigin};

use super::{
    decide::Finding,
    pass::{Pass, Trouble},
};

/// How many times as long as other calls a copy of files may take.
const FILLING_CALLS: u32 = 240;

/// Who has what files are taken from.
enum Place<'s> {
    /// This server.
    Here,
    /// Another that this process runs.
    There(&'s Arc<dyn Runtime>),
    /// One that it does not run.
    Away,
    /// Nobody any more.
    Nowhere,
}

impl Pass<'_> {
    /// Makes a container that does not exist yet with the files of its source.
    pub(super) async fn copy(
        &self,
        container: &Container,
        from: FillSource,
    ) -> Result<Result<(), Trouble>, gantry_store::Error> {
        let order = self.order(container).await?;
        let (seq, timeout) = (container.wish_seq, self.filling_timeout());
        let (runtime, from, place) = (&self.shared.runtime, source(from), self.place(from).await?);
        Ok(match place {
            Place::Here => self.call(seq, timeout, runtime.ensure_copied(&order, from)).await,
            Place::There(other) => {
                let carry =
                    async { runtime.ensure_imported(&order, other.export(from).await?).await };
                self.call(seq, timeout, carry).await
            }
            Place::Away => Err(Trouble::SourceAway),
            Place::Nowhere => Err(Trouble::SourceGone),
        })
    }

    /// Replaces the files of a container that does not run, and records that this is done.
    pub(super) async fn refill(
        &self,
        container: &Container,
        from: FillSource,
    ) -> Result<Result<(), Trouble>, gantry_store::Error> {
        let (seq, timeout) = (container.wish_seq, self.filling_timeout());
        let (runtime, from, place) = (&self.shared.runtime, source(from), self.place(from).await?);
        let filled = match place {
            Place::Here => self.call(seq, timeout, runtime.ensure_refilled(self.id, from)).await,
            Place::There(other) => {
                let carry = async {
                    runtime.ensure_refilled_from(self.id, other.export(from).await?).await
                };
                self.call(seq, timeout, carry).await
            }
            Place::Away => Err(Trouble::SourceAway),
            Place::Nowhere => Err(Trouble::SourceGone),
        };
        if let Err(trouble) = filled {
            return Ok(Err(trouble));
        }
        let status = Finding::Filled.apply(container, &self.look(None));
        self.write(container, Finding::Filled.cause(), status).await?;
        Ok(Ok(()))
    }

    /// Fetches the data of a snapshot from where it has its origin.
    pub(super) async fn fetch_snapshot(
        &self,
        seq: u64,
        data: SnapshotId,
        origin: SnapshotOrigin,
    ) -> Result<SnapshotInfo, Trouble> {
        let servers = &self.shared.servers;
        let Some(server) = origin.server else {
            return Err(Trouble::SourceGone);
        };
        let Some(other) = servers.runtime(server) else { return Err(Trouble::SourceAway) };
        let from = Source::Snapshot(origin.data);
        let carry = async {
            let archive = other.export(from).await?;
            self.shared.runtime.ensure_snapshot_imported(data, archive).await
        };
        self.call(seq, self.filling_timeout(), carry).await
    }

    /// How long files may be copied.
    pub(super) fn filling_timeout(&self) -> Duration {
        self.shared.config.call_timeout * FILLING_CALLS
    }

    /// Whether another server has these files.
    pub(super) async fn comes_from_another(
        &self,
        from: FillSource,
    ) -> Result<bool, gantry_store::Error> {
        Ok(matches!(self.place(from).await?, Place::There(_)))
    }

    async fn place(&self, from: FillSource) -> Result<Place<'_>, gantry_store::Error> {
        let server = match self.shared.store.server_of_source(from).await? {
            None => return Ok(Place::Nowhere),
            Some(server) if server == self.shared.server => return Ok(Place::Here),
            Some(server) => server,
        };
        Ok(self.shared.servers.runtime(server).map_or(Place::Away, Place::There))
    }
}

/// Where the runtime takes files from.
fn source(from: FillSource) -> Source {
    match from {
        FillSource::Container(id) => Source::Container(id),
        FillSource::Snapshot(id) => Source::Snapshot(id),
    }
}
