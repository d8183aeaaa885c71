//! Where things lie when nobody says so.

use std::path::PathBuf;

/// The state directory of `gantry dev`: the system's for root, the user's own otherwise.
pub(crate) fn default_state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/gantry-dev");
    }
    base_dir("XDG_STATE_HOME", ".local/state").join("gantry")
}

/// The directory of the credentials file.
pub(crate) fn user_config_dir() -> PathBuf {
    base_dir("XDG_CONFIG_HOME", ".config").join("gantry")
}

fn base_dir(variable: &str, below_home: &str) -> PathBuf {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set(variable)
        .or_else(|| set("HOME").map(|home| home.join(below_home)))
        .unwrap_or_else(|| PathBuf::from("/").join(below_home))
}
