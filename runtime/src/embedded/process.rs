//! Processes of containers, told apart from later ones with the same number.

use std::{fs, io, os::fd::OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::{Interest, unix::AsyncFd};

use super::readiness::register;

/// The init of a container. Its number alone does not name it: numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Init {
    /// Its number on the host.
    pub(super) pid: u32,
    /// When it started, in clock ticks since the host booted.
    pub(super) start: u64,
}

impl Init {
    /// The process that has this number now; `None` when there is none, or it has ended.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        start_time(&stat).map(|start| Self { pid, start })
    }

    /// Whether it still runs (or is frozen).
    pub(super) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// A handle on it that stays true when it ends; `None` when it has ended. Only within tokio.
    pub(super) fn open(self) -> io::Result<Option<Handle>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Looked at after the handle is held: the number cannot have changed hands between.
        if !self.is_alive() {
            return Ok(None);
        }
        Ok(Some(Handle(register(pidfd, Interest::READABLE)?)))
    }

    /// Its name as the kernel shows it, at most 15 octets.
    pub(super) fn name(self) -> String {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        name.trim_end().to_owned()
    }

    /// The path of one of its namespaces on the host.
    pub(super) fn namespace(self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.pid)
    }

    /// Whether a process of the host is in the same pid namespace.
    pub(super) fn contains(self, pid: u32) -> bool {
        let link = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        matches!((link(self.pid), link(pid)), (Some(ours), Some(its)) if ours == its)
    }
}

/// A process, whatever becomes of its number.
#[derive(Debug)]
pub(super) struct Handle(AsyncFd<OwnedFd>);

impl Handle {
    /// Kills it; nothing happens when it has ended.
    pub(super) fn kill(&self) {
        if let Err(error) = pidfd_send_signal(self.0.get_ref(), Signal::KILL) {
            tracing::debug!(%error, "killed a process that had ended");
        }
    }

    /// Waits for its end. Cancel-safe.
    pub(super) async fn ended(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }
}

/// The 22nd field of `/proc/<pid>/stat`; `None` for one that has ended but was not waited for.
/// The second field, the name in parentheses, may hold anything.
fn start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_its_number_and_its_start() {
        let me = Init::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!Init { start: me.start + 1, ..me }.is_alive(), "another one with the number");
        assert!(me.open().unwrap().is_some());
        assert!(Init { start: 1, ..me }.open().unwrap().is_none());
    }

    #[test]
    fn names_cannot_confuse_the_start_time() {
        let tail = "0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 100";
        let stat = |state: &str| format!("42 (ev) il) {state} {tail}");
        assert_eq!(start_time(&stat("S")), Some(4711));
        assert_eq!(start_time(&stat("Z")), None);
        assert_eq!(start_time("42 (short) S"), None);
    }
}
