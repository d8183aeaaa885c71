//! Sessions in containers of Incus: a device brings in what they need, the rest is as everywhere.

use std::{fs, io, os::fd::OwnedFd, path::PathBuf, sync::atomic::Ordering};

use gantry_model::ContainerId;
use http::Method;

use super::{
    exec::Call,
    inside,
    instance::{self, SESSION},
    lifecycle::{CHANGE_TIMEOUT, Inner, blocking, path},
    wire::{Instance, NewDevices},
};
use crate::{
    Error, Exec, Result, State,
    embedded::guest::Owner,
    sessions::{self, Door, WHAT},
    shares::{Runner, inside::Process},
};

impl Inner {
    /// Starts the program for sessions, and returns its connection.
    pub(super) async fn session(&self, id: ContainerId) -> Result<OwnedFd> {
        if self.held.holds(id) {
            // It is held still for a copy.
            drop(self.locks.lock(id).await);
        }
        let (instance, pid) = tokio::try_join!(self.awake(id), self.pid(id))?;
        let pid = pid.ok_or(Error::NotRunning { id })?;
        if !instance::has_session(&instance) {
            self.plug_session(id).await?;
        }
        let root = blocking(WHAT, move || root(pid, id)).await?;
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        let door = Door::open(Runner { id, pid }, root, &self.place(id), token);
        let door = door.map_err(|error| Error::failed(WHAT, error))?;
        let command = Exec::new(self.program.command(&door));
        let begun = Call::begin_alone(&self.client, &instance, id, &command).await;
        let begun = begun.map_err(|error| sessions::not_begun(error, id))?;
        sessions::meet(&door, ended(&begun, id)).await
    }

    /// A container that runs.
    async fn awake(&self, id: ContainerId) -> Result<Instance> {
        let instance = self.instance(id).await?.ok_or(Error::NotFound { id })?;
        match instance::observed(&instance).ok_or(Error::NotFound { id })?.state {
            State::Running => Ok(instance),
            State::Paused => Err(Error::Paused { id }),
            State::Created | State::Stopped => Err(Error::NotRunning { id }),
        }
    }

    /// Gives a container that was started without it what sessions need.
    async fn plug_session(&self, id: ContainerId) -> Result<()> {
        let _busy = self.locks.lock(id).await;
        let place = self.furnish(id).await?;
        let devices = [(SESSION.to_owned(), instance::session(&place))].into();
        let (change, to) = (NewDevices { devices }, path(id));
        let plugged = self.client.change(Method::PATCH, &to, Some(&change), CHANGE_TIMEOUT);
        plugged.await.map_err(|fault| fault.during(WHAT))
    }

    /// Makes what sessions of a container need. None of it is being opened.
    pub(super) async fn furnish(&self, id: ContainerId) -> Result<PathBuf> {
        let (program, place) = (self.program.clone(), self.place(id));
        blocking("preparing sessions", move || program.furnish(&place).map(|()| place)).await
    }

    /// Removes it.
    pub(super) async fn unfurnish(&self, id: ContainerId) -> Result<()> {
        let place = self.place(id);
        blocking("removing what sessions need", move || match fs::remove_dir_all(place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })
        .await
    }

    fn place(&self, id: ContainerId) -> PathBuf {
        self.config.dir.join("sessions").join(id.to_string())
    }
}

/// Waits for the end of the program, which is an error.
async fn ended(begun: &Call, id: ContainerId) -> Error {
    match begun.wait().await {
        Ok(status) => Error::failed(WHAT, format!("the program ended at once: {status:?}")),
        // Incus looks for the program only after it has said that it runs it.
        Err(error) => sessions::not_begun(error, id),
    }
}

/// Who the root user of a container is on the host.
fn root(pid: u32, id: ContainerId) -> io::Result<Owner> {
    let process = Process::open(pid, id)?;
    let of_root = |name| inside::owner(&process.read(name)?);
    Ok(Owner { user: of_root("uid_map")?, group: of_root("gid_map")? })
}
