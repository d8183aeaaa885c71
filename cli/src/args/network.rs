//! The commands for outbound networks.

use clap::{Args, Subcommand, ValueEnum};
use gantry_model::ContainerId;

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Show how what a container begins leaves the host.
    Get {
        /// The container.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
    },
    /// Configure it and switch it on.
    Set(NetworkSet),
    /// Take the configuration away: the container goes the host's way.
    Clear {
        /// The container.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
    },
    /// Switch it on.
    Start {
        /// The container.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
    },
    /// Switch it off: the container goes the host's way.
    Stop {
        /// The container.
        #[arg(short, long, value_name = "ID")]
        container: ContainerId,
    },
}

#[derive(Args, Debug)]
pub(crate) struct NetworkSet {
    /// The container.
    #[arg(short, long, value_name = "ID")]
    pub(crate) container: ContainerId,
    /// Let nothing leave, or what the proxy speaks.
    #[arg(long = "type", value_enum)]
    pub(crate) kind: NetworkType,
    /// The proxy as `socks5://user:password@host:port`; better in the variable than on the command line,
    /// where others can read it. Credentials stay if the rest of the URL does and it has none.
    #[arg(long, env = "GANTRY_PROXY_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// What to say of the proxy; an empty text for nothing.
    #[arg(long)]
    pub(crate) country: Option<String>,
    /// What to say of the proxy; an empty text for nothing.
    #[arg(long)]
    pub(crate) city: Option<String>,
    /// What to say of the proxy; an empty text for nothing.
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// What to say of it; an empty text for nothing.
    #[arg(long)]
    pub(crate) comment: Option<String>,
    /// A server that is asked for names, up to four.
    #[arg(long = "dns-server", value_name = "IP")]
    pub(crate) dns_servers: Vec<std::net::IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkType {
    /// Nothing leaves the container.
    Block,
    /// TCP leaves through a SOCKS5 proxy.
    Socks5,
    /// TCP leaves through an HTTP proxy (CONNECT).
    Http,
    /// TCP leaves through an HTTP proxy that is spoken to over TLS.
    Https,
}
