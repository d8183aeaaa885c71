//! Sessions in containers of this runtime.

use std::{io, os::fd::OwnedFd};

use gantry_model::ContainerId;

use super::{
    disk::{Home, Run},
    exec::{self, Streams},
    guest::Owner,
    lifecycle::Inner,
};
use crate::{
    Error, Exec, Result,
    sessions::{self, Door, WHAT},
    shares::Runner,
};

impl Inner {
    /// Starts the program for sessions, and returns its connection.
    pub(super) async fn session(&self, id: ContainerId) -> Result<OwnedFd> {
        let (home, run) = self.awake(id).await?;
        let (runner, base) = (Runner { id, pid: run.init.pid }, self.config.mapping.base);
        let root = Owner { user: base, group: base };
        let door = Door::open(runner, root, &home.session(), self.token());
        let door = door.map_err(|error| {
            let is_missing = error.kind() == io::ErrorKind::NotFound;
            if is_missing { Error::NoPlace { id } } else { Error::failed(WHAT, error) }
        })?;
        let command = Exec::new(self.program.command(&door));
        let target = (id, &home, &run);
        let call = exec::Call::new(&self.runc, target, &command, Streams::None, self.token())?;
        let begun = exec::leave(call, &self.tasks).await;
        let begun = begun.map_err(|error| sessions::not_begun(error, id))?;
        let socket = sessions::meet(&door, begun.ended()).await?;
        begun.let_go();
        Ok(socket)
    }

    /// The start of a container that runs. One that is held still for a copy is waited for.
    async fn awake(&self, id: ContainerId) -> Result<(Home, Run)> {
        if self.held.holds(id) {
            drop(self.locks.lock(id).await);
        }
        let found = self.alive(id)?;
        if self.cgroups.is_frozen(id) { Err(Error::Paused { id }) } else { Ok(found) }
    }
}
