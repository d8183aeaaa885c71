//! The commands for aliases, settings of the edge and logs.

use std::str::FromStr;

use clap::{Args, Subcommand};
use gantry_model::{AliasId, ContainerId, ProjectId};

#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// Make an alias.
    Create(AliasCreate),
    /// List aliases.
    List {
        /// Only those of this container.
        #[arg(long, value_name = "ID")]
        container_id: Option<ContainerId>,
        /// Only those of this project.
        #[arg(long, value_name = "ID")]
        project_id: Option<ProjectId>,
        /// Only those that are on, or off.
        #[arg(long, value_name = "BOOL")]
        enabled: Option<bool>,
        /// Only those that have expired, or have not.
        #[arg(long, value_name = "BOOL")]
        expired: Option<bool>,
    },
    /// Show an alias.
    Get {
        /// Its id.
        id: AliasId,
    },
    /// Change an alias; what is left out stays.
    Update {
        /// Its id.
        id: AliasId,
        #[command(flatten)]
        fields: AliasFields,
    },
    /// Switch an alias on or off.
    SetState {
        /// Its id.
        id: AliasId,
        /// On.
        #[arg(long, required_unless_present = "no_enabled")]
        enabled: bool,
        /// Off.
        #[arg(long, conflicts_with = "enabled")]
        no_enabled: bool,
    },
    /// Delete an alias.
    Delete {
        /// Its id.
        id: AliasId,
    },
}

#[derive(Args, Debug)]
pub(crate) struct AliasCreate {
    /// The container that it leads to.
    #[arg(long, value_name = "ID")]
    pub(crate) container_id: ContainerId,
    #[command(flatten)]
    pub(crate) fields: AliasFields,
}

#[derive(Args, Debug)]
pub(crate) struct AliasFields {
    /// Its name; random when a new one has none.
    #[arg(long)]
    pub(crate) alias: Option<String>,
    /// What it leads to: http, https, ssh or a service of the Kit.
    #[arg(long)]
    pub(crate) program: Option<String>,
    /// The port, for http and https.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// The instance of a Kit service.
    #[arg(long)]
    pub(crate) index: Option<u16>,
    /// Where `/` leads; `null` for `/` itself.
    #[arg(long, value_name = "PATH|null")]
    pub(crate) target_path: Option<String>,
    /// Other paths exist, too (the default).
    #[arg(long, overrides_with = "no_allow_path_override")]
    pub(crate) allow_path_override: bool,
    /// No other path than that exists.
    #[arg(long)]
    pub(crate) no_allow_path_override: bool,
    /// When it ends (ISO 8601); `null` for never.
    #[arg(long, value_name = "TIME|null")]
    pub(crate) expires_at: Option<String>,
    /// It leads nowhere for now.
    #[arg(long)]
    pub(crate) no_enabled: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Tap {
    /// The container's id.
    pub(crate) container: ContainerId,
    /// Only requests to this service, such as http-3000 or files.
    #[arg(long)]
    pub(crate) service: Option<String>,
    /// Only entries of this level: info, warn (4xx) or error (5xx).
    #[arg(long)]
    pub(crate) level: Option<String>,
    /// Only requests with this method.
    #[arg(long)]
    pub(crate) method: Option<String>,
    /// Only requests with this status, such as 404 or 5xx.
    #[arg(long)]
    pub(crate) status: Option<StatusFilter>,
    /// How many entries of the past come first.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub(crate) last: u32,
    /// One JSON object a line, the beginnings of requests too (the same as `-o json`).
    #[arg(long)]
    pub(crate) json: bool,
}

/// Without options it shows the settings.
#[derive(Args, Debug)]
pub(crate) struct EdgeSettings {
    /// The container's id.
    pub(crate) container: ContainerId,
    /// Whether a request wakes it: never, navigate, any or authed.
    #[arg(long)]
    pub(crate) wake: Option<String>,
    /// Pause it after so many seconds without traffic; `null` for never.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) idle_pause_after: Option<String>,
    /// Whether the certificates of its https ports must be valid.
    #[arg(long, value_name = "BOOL")]
    pub(crate) verify_upstream: Option<bool>,
    /// Ports that want the PROXY protocol.
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub(crate) proxy_protocol_ports: Option<Vec<u16>>,
    /// Concurrent requests, at most; `null` for the edge's own bound.
    #[arg(long, value_name = "COUNT")]
    pub(crate) concurrency_max: Option<String>,
    /// Whether `gantry tap` and the service `logs` show fields and the beginnings of bodies.
    #[arg(long, value_name = "BOOL")]
    pub(crate) log_bodies: Option<bool>,
}

/// One status of HTTP, or the hundred that begin with one digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatusFilter {
    first: u64,
    last: u64,
}

impl StatusFilter {
    pub(crate) fn holds(self, status: u64) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl FromStr for StatusFilter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.parse::<u64>().ok();
        let range = match text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
            Some(class) => number(class)
                .filter(|class| (1..=5).contains(class))
                .map(|class| (class * 100, class * 100 + 99)),
            None => number(text)
                .filter(|status| (100..=599).contains(status))
                .map(|status| (status, status)),
        };
        let (first, last) = range.ok_or("must be a status from 100 to 599, or 1xx to 5xx")?;
        Ok(Self { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_of_statuses_is_one_or_a_class() {
        let holds = |filter: &str, status| filter.parse::<StatusFilter>().unwrap().holds(status);
        assert!(holds("404", 404) && !holds("404", 405));
        assert!(holds("5xx", 500) && holds("5XX", 599) && !holds("5xx", 499));
        for wrong in ["", "x", "abc", "99", "600", "0xx", "6xx", "44xx", "xx", "-1", "4xxx"] {
            assert!(wrong.parse::<StatusFilter>().is_err(), "{wrong}");
        }
    }
}
