//! What of a container is on or off.

use clap::Args;

/// Pairs of `--x` and `--no-x`; neither leaves the default (create) or the present value (update).
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each flag of the command line is a bool")]
pub(crate) struct Switches {
    /// Start it after the host has rebooted (the default).
    #[arg(long, overrides_with = "no_autostart")]
    pub(crate) autostart: bool,
    /// Leave it stopped after the host has rebooted.
    #[arg(long)]
    pub(crate) no_autostart: bool,
    /// Mount `/ramdisk` (the default).
    #[arg(long, overrides_with = "no_ramdisk")]
    pub(crate) ramdisk: bool,
    /// Do not mount `/ramdisk`.
    #[arg(long)]
    pub(crate) no_ramdisk: bool,
    /// Whether the stopped container shares `/ramdisk/project` with others of its project; only `container`
    /// for a new one.
    #[arg(long, value_name = "container|project")]
    pub(crate) ramdisk_scope: Option<String>,
    /// Turn AI features on (the default).
    #[arg(long, overrides_with = "no_ai")]
    pub(crate) ai: bool,
    /// Turn AI features off.
    #[arg(long)]
    pub(crate) no_ai: bool,
}

/// What can be set at creation only.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each flag of the command line is a bool")]
pub(crate) struct KitSwitches {
    /// Install the Kit services (the default).
    #[arg(long, overrides_with = "no_hoody_kit")]
    pub(crate) hoody_kit: bool,
    /// A plain system without Kit services and without URLs.
    #[arg(long)]
    pub(crate) no_hoody_kit: bool,
    /// Install the developer services (the default where the Kit is installed).
    #[arg(long, overrides_with = "no_dev_kit")]
    pub(crate) dev_kit: bool,
    /// Leave the developer services out.
    #[arg(long)]
    pub(crate) no_dev_kit: bool,
    /// Use the image cache (the default).
    #[arg(long, overrides_with = "no_cache")]
    pub(crate) cache: bool,
    /// Build the image anew.
    #[arg(long)]
    pub(crate) no_cache: bool,
}
