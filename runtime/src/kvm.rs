//! Hardware virtualisation: whether the host's `/dev/kvm` is offered to containers, and what it is.

use std::{
    fmt, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
};

use crate::{Error, Result};

/// Where the host and its containers have the device.
pub(crate) const DEVICE: &str = "/dev/kvm";

/// Who may open it in a container: everybody there, as it is on hosts that follow systemd. A
/// container's root may change that.
pub(crate) const MODE: u32 = 0o666;

/// Whether containers may have the host's `/dev/kvm`. The text is for owners, and says who can do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kvm {
    /// They may.
    Offered,
    /// The operator does not want it.
    Off,
    /// The operator does, but the host has none.
    Missing,
}

impl fmt::Display for Kvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offered => "this server offers kvm",
            Self::Off => {
                "this server does not offer kvm to containers; its operator can, with \
                 runtime.kvm = true"
            }
            Self::Missing => {
                "this server has no /dev/kvm to offer; its operator has to load the kernel's kvm \
                 module, or to allow nested virtualisation where the server is a virtual machine"
            }
        })
    }
}

impl Kvm {
    /// What holds on this host now; `wanted` says whether the operator wants it.
    pub(crate) fn of_host(wanted: bool) -> Self {
        match (wanted, number()) {
            (false, _) => Self::Off,
            (true, Ok(_)) => Self::Offered,
            (true, Err(error)) => {
                tracing::debug!(%error, "{DEVICE} cannot be used");
                Self::Missing
            }
        }
    }

    /// Refuses a start that wants what is not offered.
    pub(crate) fn check(self, is_ordered: bool) -> Result<()> {
        if is_ordered && self != Self::Offered { Err(Error::NoKvm(self)) } else { Ok(()) }
    }
}

/// The number of the device.
pub(crate) fn number() -> io::Result<u64> {
    let found = std::fs::metadata(DEVICE)?;
    if found.file_type().is_char_device() {
        Ok(found.rdev())
    } else {
        Err(io::Error::other("it is no device"))
    }
}
