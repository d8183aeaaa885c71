//! The commands for firewall rules.

use clap::{Args, Subcommand, ValueEnum};
use gantry_model::ContainerId;

#[derive(Debug, Subcommand)]
pub(crate) enum FirewallCommand {
    /// List the rules of a container, in the order in which they are tried.
    List {
        /// The container.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
    },
    /// Add a rule after those of its direction. The first that fits a connection decides.
    Add {
        #[command(flatten)]
        place: Place,
        /// What becomes of a connection that fits.
        #[arg(long, value_enum)]
        action: Action,
        /// What it is about.
        #[arg(long, value_enum)]
        protocol: Protocol,
        /// What you say of it.
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        parts: Parts,
        /// Add it switched off.
        #[arg(long)]
        disabled: bool,
    },
    /// Switch the rules that have all of the given parts on.
    Enable {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        filter: Filter,
    },
    /// Switch the rules that have all of the given parts off.
    Disable {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        filter: Filter,
    },
    /// Remove the first rule that has all of the given parts, or with --all every one.
    Remove {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        filter: Filter,
        /// One that is switched off.
        #[arg(long)]
        disabled: bool,
        /// Every one; without any part, all rules of the direction.
        #[arg(long)]
        all: bool,
    },
    /// Remove every rule: the container is open.
    Reset {
        /// The container.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
    },
}

/// Whose rules are meant, and which.
#[derive(Args, Debug)]
pub(crate) struct Place {
    /// Connections to the container, or from it.
    #[arg(value_enum)]
    pub(crate) direction: Direction,
    /// The container.
    #[arg(short, long, value_name = "ID")]
    pub(crate) container: ContainerId,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Direction {
    /// To the container.
    Ingress,
    /// From the container.
    Egress,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Action {
    /// It passes.
    Allow,
    /// It is refused, and its sender is told.
    Reject,
    /// It is refused without a word.
    Drop,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp4,
}

/// What a rule is about.
#[derive(Args, Debug)]
pub(crate) struct Parts {
    /// Ports as 80, 80-90 or 80,443; needed for tcp and udp.
    #[arg(long, value_name = "PORTS")]
    pub(crate) destination_port: Option<String>,
    /// Ports as 80, 80-90 or 80,443; any if left out.
    #[arg(long, value_name = "PORTS")]
    pub(crate) source_port: Option<String>,
    /// Of ingress: IPv4 addresses, networks and ranges, separated by commas; any if left out.
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) source: Option<String>,
    /// Of egress: IPv4 addresses, networks and ranges, separated by commas; any if left out.
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) destination: Option<String>,
    /// 0 to 255; any if left out.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) icmp_type: Option<u8>,
    /// 0 to 255; any if left out.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) icmp_code: Option<u8>,
}

/// What rules must have, as the list shows it.
#[derive(Args, Debug)]
pub(crate) struct Filter {
    /// What becomes of a connection that fits.
    #[arg(long, value_enum)]
    pub(crate) action: Option<Action>,
    /// What it is about.
    #[arg(long, value_enum)]
    pub(crate) protocol: Option<Protocol>,
    /// What is said of it.
    #[arg(long)]
    pub(crate) description: Option<String>,
    #[command(flatten)]
    pub(crate) parts: Parts,
}

/// The word that the API has for a choice.
pub(crate) fn word(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
