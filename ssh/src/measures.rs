//! How much a client may say of what it asks for: all of that is held before anything is known of its use.

use gantry_session::protocol::{Process, Run, Size, Target};

/// Variables that a client may set, and how long all of them may be.
const ENV_MAX: usize = 256;
const ENV_LEN_MAX: usize = 16 << 10;
/// The longest login name, name of a kind of terminal, and name of a signal.
pub(crate) const NAME_LEN_MAX: usize = 256;
/// The longest host name, and the longest path of a socket: what DNS and the kernel take.
const HOST_LEN_MAX: usize = 255;
const PATH_LEN_MAX: usize = 107;

/// How much is said of a process.
pub(crate) fn len_of(process: &Process) -> usize {
    let line = match &process.run {
        Run::Command(line) => line.len(),
        Run::Shell | Run::Program { .. } | Run::Sftp => 0,
    };
    let variables = process.env.iter().map(|(name, value)| name.len() + value.len());
    line + variables.sum::<usize>()
}

/// Whether there can be such an address at all.
pub(crate) fn is_sound(target: &Target) -> bool {
    match target {
        Target::Tcp(host, _) => host.len() <= HOST_LEN_MAX,
        Target::Unix(path) => path.len() <= PATH_LEN_MAX,
    }
}

/// A port as the protocol has it.
pub(crate) fn port(number: u32) -> Option<u16> {
    u16::try_from(number).ok()
}

/// A terminal's size; what cannot be is the largest.
pub(crate) fn size(columns: u32, rows: u32, width: u32, height: u32) -> Size {
    let of = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    Size { columns: of(columns), rows: of(rows), width: of(width), height: of(height) }
}

/// Whether a client may set a variable beside those that it has set.
pub(crate) fn may_set(set: &[(Vec<u8>, Vec<u8>)], name: &str, value: &str) -> bool {
    let len: usize = set.iter().map(|(name, value)| name.len() + value.len()).sum();
    is_welcome(name)
        && set.len() < ENV_MAX
        && len + name.len() + value.len() <= ENV_LEN_MAX
        && !value.contains('\0')
}

/// Whether a client may set a variable: what sshd of Debian accepts, and what terminals say of themselves.
fn is_welcome(name: &str) -> bool {
    name == "LANG"
        || name == "COLORTERM"
        || name.starts_with("LC_")
        || name.starts_with("TERM_PROGRAM")
}
