//! Makes a Debian file system with `mmdebstrap`, which writes it to its standard output as a tar
//! stream.

use std::path::Path;

use tokio::process::Command;

use super::{
    script::{APT_OPTIONS, DPKG_OPTIONS, KEYRING, Script, source_lines},
    source::Archive,
};
use crate::embedded::Recipe;

/// The call that makes the file system. It runs in mount and process namespaces of its own: what it
/// mounts and what packages start goes away with it, however it ends.
pub(super) fn command(
    work: &Path,
    recipe: &Recipe,
    archives: &[Archive],
    script: &Script,
    proxies: &[String],
) -> Command {
    let mut command = contained("mmdebstrap", work);
    command.args(["--mode=root", "--variant=minbase", "--format=tar", "--verbose"]);
    // The script of the recipe does it: the tool would run the host's apt for it.
    command.arg("--skip=cleanup/apt/lists,cleanup/apt/cache");
    if !recipe.packages.is_empty() {
        command.arg(format!("--include={}", recipe.packages.join(" ")));
    }
    for option in APT_OPTIONS.iter().copied().chain(proxies.iter().map(String::as_str)) {
        command.arg(format!("--aptopt={option}"));
    }
    for option in DPKG_OPTIONS {
        command.arg(format!("--dpkgopt={option}"));
    }
    if Path::new(KEYRING).exists() {
        command.arg(format!("--keyring={KEYRING}"));
    }
    // A hook that is the path of a program gets the root as its argument.
    command.arg(format!("--setup-hook={}", script.pinning.display()));
    command.arg(format!("--customize-hook={}", script.program.display()));
    command.arg(&recipe.suite).arg("-");
    command.args(source_lines(recipe, archives));
    command
}

/// A call of `program` in namespaces of its own, with its temporary files in `work`.
pub(super) fn contained(program: &str, work: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(program);
    command.env("TMPDIR", work).env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
    command.env_remove("APT_CONFIG");
    command
}
