//! The command line: every command with its flags. What they do stands elsewhere.

mod access;
pub(crate) mod accounts;
mod certs;
mod exec;
mod firewall;
mod images;
mod machine;
mod members;
mod named;
mod network;
mod projects;
mod proxy;
mod shares;
mod snapshots;
mod ssh;
mod switches;
mod vault;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use gantry_model::{ContainerId, ProjectId, ServerId};

pub(crate) use self::{
    access::{At, HookName, HooksCommand, HostnamesCommand, Owner, PermissionsCommand},
    accounts::{
        ActivityCommand, AuthCommand, EventsCommand, EventsRemoved, Login, RealmsCommand,
        TokenChange, TokenCreate, TokenProfile, TokensCommand, TwoFactorCommand, UserChange,
        UsersCommand,
    },
    certs::{CertsCommand, CertsList, Doctor, Meant},
    exec::{Exec, Ssh},
    firewall::{Filter, FirewallCommand, Parts, Place, word},
    images::ImagesCommand,
    machine::{Explain, Upgrade},
    members::MembersCommand,
    named::{ContainerRef, ServerRef},
    network::{NetworkCommand, NetworkSet, NetworkType},
    projects::{ProjectFields, ProjectsCommand},
    proxy::{AliasFields, EdgeSettings, ProxyCommand, Tap},
    shares::{ShareFields, ShareFilter, SharesCommand},
    snapshots::{ContainerCopy, SnapshotsCommand},
    ssh::SshConfig,
    switches::{KitSwitches, Switches},
    vault::{VaultCommand, VaultSet},
};
use crate::{exit::EXIT_CODES_HELP, output::Format};

/// Gantry: containers that answer at a URL of their own.
#[derive(Debug, Parser)]
#[command(name = "gantry", version, after_help = EXIT_CODES_HELP, infer_subcommands = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t, help_heading = "Output")]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the API answers and who asks.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Connection {
    /// Where the API answers, such as `https://api.gantry.localhost:8443`.
    #[arg(long, global = true, env = "GANTRY_API_URL", value_name = "URL", help_heading = "API")]
    pub(crate) api_url: Option<String>,
    /// The credential; better in the variable than on the command line, where others can read it.
    #[arg(
        long,
        global = true,
        env = "GANTRY_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "API"
    )]
    pub(crate) token: Option<String>,
    /// A PEM file with the CA to trust instead of the system's.
    #[arg(long, global = true, env = "GANTRY_CA", value_name = "FILE", help_heading = "API")]
    pub(crate) ca: Option<PathBuf>,
    /// Connect to this address instead of looking the name in the URL up.
    #[arg(long, global = true, env = "GANTRY_CONNECT", value_name = "IP", help_heading = "API")]
    pub(crate) connect: Option<std::net::IpAddr>,
    /// Speak to the host of this realm.
    #[arg(long, global = true, value_name = "ID", help_heading = "API")]
    pub(crate) realm: Option<gantry_model::RealmId>,
    /// Never ask; delete without confirmation.
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run Gantry with a configuration file.
    Serve(Settings),
    /// Run everything on this machine with development defaults.
    Dev(Dev),
    /// Replace the running Gantry by the program and the configuration that are there now, without
    /// ending anything: what it has under way goes on to its end.
    Upgrade(Upgrade),
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say where a URL leads and why.
    Explain(Explain),
    /// Certificates of the Gantry that runs on this machine.
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Look whether all is well, or say in words why a hostname has no certificate, or which it has.
    ///
    /// Asks what a CA would ask, from this machine: the domain name system, CAA records, the CAs' directories and
    /// limits, and the edge on ports 80 and 443. Names of the installation have a record written and taken away
    /// again, as an order does. The exit code is 1 if something must be mended.
    Doctor(Doctor),
    /// Log in and out; long-lived tokens.
    #[command(subcommand)]
    Auth(AuthCommand),
    /// Log in (the same as `auth login`).
    Login(Login),
    /// Log out (the same as `auth logout`).
    Logout,
    /// Projects.
    #[command(subcommand)]
    Projects(ProjectsCommand),
    /// Containers.
    #[command(subcommand)]
    Containers(ContainersCommand),
    /// List containers (the same as `containers list`).
    Ps(ContainersList),
    /// Kept states of containers' files, which outlive the containers.
    #[command(subcommand)]
    Snapshots(SnapshotsCommand),
    /// Which connections a container may have.
    #[command(subcommand)]
    Firewall(FirewallCommand),
    /// How what a container begins leaves the host: not at all, or through a proxy.
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Directories of containers that others see.
    #[command(subcommand)]
    Shares(SharesCommand),
    /// Aliases: names of your own that lead to services of containers.
    #[command(subcommand)]
    Proxy(ProxyCommand),
    /// Hostnames of other domains that lead to aliases.
    #[command(subcommand)]
    Hostnames(HostnamesCommand),
    /// Rules by which scripts of a container see requests before its services do.
    #[command(subcommand)]
    Hooks(HooksCommand),
    /// Who may pass to a container, or to all of a project.
    #[command(subcommand)]
    Permissions(PermissionsCommand),
    /// How the edge treats a container: waking, pausing, limits.
    Edge(EdgeSettings),
    /// Run a command in a container; its exit status is that of this command.
    Exec(Exec),
    /// Open a login shell in a container, as `ssh` does, but with the credential of the API.
    Ssh(Ssh),
    /// Print what ~/.ssh/config needs so that `ssh <container>` leads into it.
    SshConfig(SshConfig),
    /// Show the requests to a container as they come, until Ctrl-C. Times are UTC.
    Tap(Tap),
    /// Servers of this installation.
    #[command(subcommand)]
    Servers(ServersCommand),
    /// Images that containers can start from.
    #[command(subcommand)]
    Images(ImagesCommand),
    /// Long-lived tokens.
    #[command(subcommand)]
    Tokens(TokensCommand),
    #[command(subcommand, name = "2fa", about = "Two-factor authentication of this account")]
    TwoFactor(TwoFactorCommand),
    #[command(subcommand, about = "Accounts")]
    Users(UsersCommand),
    /// What was written through the API by this account.
    #[command(subcommand)]
    Activity(ActivityCommand),
    /// What happened to containers, projects, tokens and aliases.
    #[command(subcommand)]
    Events(EventsCommand),
    /// Realms: labels that keep projects, containers and tokens apart.
    #[command(subcommand)]
    Realms(RealmsCommand),
    /// Secrets put away under keys, sealed at rest; `--realm` says which realm's.
    #[command(subcommand)]
    Vault(VaultCommand),
    /// Show the keys that claims and signed answers are checked with; needs no login.
    PublicKey,
    /// Show what the API tells clients of its configuration; needs no login.
    Meta {
        /// Only the value of this key.
        key: Option<String>,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where the configuration comes from. Flags win over variables, variables over the file.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The configuration file (TOML).
    #[arg(long, env = "GANTRY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one key, such as `edge.https=127.0.0.1:8443`; can be given several times.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Dev {
    /// Where everything is kept: store, CA, containers.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Do not run: delete every container, their network and the state directory.
    #[arg(long)]
    pub(crate) remove: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the configuration and print what is in effect, with the origin of each value.
    Check(Settings),
}

#[derive(Args, Debug)]
pub(crate) struct Paging {
    /// The page, from 1.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) page: u32,
    /// How many on a page.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: u32,
    /// The field to sort by.
    #[arg(long, default_value = "created_at")]
    pub(crate) sort_by: String,
    /// `asc` or `desc`.
    #[arg(long, default_value = "desc", value_parser = ["asc", "desc"])]
    pub(crate) sort_order: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContainersCommand {
    /// Make a container; it starts at once.
    Create(ContainerCreate),
    /// List containers.
    List(ContainersList),
    /// Show a container.
    Get {
        /// Its id.
        id: ContainerId,
        /// Ask the container what runs in it.
        #[arg(long, value_name = "true|false|JSON")]
        runtime: Option<String>,
    },
    /// Change a container.
    Update(ContainerUpdate),
    /// Delete a container with its files.
    Delete {
        /// Its id.
        id: ContainerId,
        #[command(flatten)]
        wait: Wait,
    },
    /// Start, stop, force-stop, restart, pause or resume a container.
    Manage {
        /// Its id.
        id: ContainerId,
        /// What to do.
        operation: Operation,
        #[command(flatten)]
        wait: Wait,
    },
    /// Environment variables, also while the container runs; running processes keep theirs.
    #[command(subcommand)]
    Env(EnvCommand),
    /// Make a container with the files of another one or of a snapshot; it starts at once.
    Copy(ContainerCopy),
    /// Give a copy the files that the container it was copied from has now.
    Sync {
        /// The copy's id.
        id: ContainerId,
        #[command(flatten)]
        wait: Wait,
    },
    /// Give a stopped container the host's `/dev/kvm`, for virtual machines of its own, or take it away.
    Kvm {
        /// Its id.
        id: ContainerId,
        /// Which of both.
        state: Switch,
    },
    /// Make a signed claim, good for six hours, that you may use a container.
    Authorize {
        /// Its id.
        id: ContainerId,
    },
    /// What a container uses.
    Stats {
        /// Its id.
        id: ContainerId,
    },
    /// What happened to a container.
    StatusLogs {
        /// Its id.
        id: ContainerId,
        /// The page, from 1.
        #[arg(long, default_value_t = 1)]
        page: u32,
        /// How many on a page.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
        limit: u32,
    },
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Switch {
    /// It has it.
    On,
    /// It does not.
    Off,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnvCommand {
    /// List the variables of a container.
    List {
        /// The container's id.
        id: ContainerId,
    },
    /// Set variables; the others stay.
    Set {
        /// The container's id.
        id: ContainerId,
        /// The variables.
        #[arg(required = true, value_name = "KEY=VALUE")]
        vars: Vec<String>,
    },
    /// Remove a variable.
    Delete {
        /// The container's id.
        id: ContainerId,
        /// Its name.
        key: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Operation {
    /// Start it.
    Start,
    /// Stop it in order.
    Stop,
    /// Kill it.
    ForceStop,
    /// Stop it in order and start it again.
    Restart,
    /// Freeze it.
    Pause,
    /// Thaw it.
    Resume,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Wait {
    /// Wait until it is done.
    #[arg(long)]
    pub(crate) wait: bool,
    /// The longest wait, in seconds.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) timeout: u32,
}

#[derive(Args, Debug)]
pub(crate) struct ContainersList {
    /// Only those of this project.
    #[arg(long, value_name = "ID")]
    pub(crate) project: Option<ProjectId>,
    /// Also those that wait in the warm pool.
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) include_prespawn: Option<bool>,
    #[command(flatten)]
    pub(crate) paging: Paging,
}

#[derive(Args, Debug)]
pub(crate) struct ContainerCreate {
    /// The project that it belongs to.
    #[arg(long, value_name = "ID")]
    pub(crate) project: ProjectId,
    /// The server that it runs on, by its id or its name; may be left out where there is only one.
    #[arg(long, value_name = "SERVER", alias = "server")]
    pub(crate) server_id: Option<ServerRef>,
    /// The image that it starts from, such as `debian/13`.
    #[arg(long, value_name = "OS/RELEASE")]
    pub(crate) container_image: Option<String>,
    #[command(flatten)]
    pub(crate) fields: ContainerFields,
    #[command(flatten)]
    pub(crate) kit: KitSwitches,
    /// Give it the host's `/dev/kvm`, for virtual machines of its own.
    #[arg(long)]
    pub(crate) kvm: bool,
    /// Make one for later: it waits, hidden, until a creation like it claims it.
    #[arg(long)]
    pub(crate) prespawn: bool,
    /// Make a new one even if one waits that is like it.
    #[arg(long, conflicts_with = "prespawn")]
    pub(crate) bypass_prespawn: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Args, Debug)]
pub(crate) struct ContainerUpdate {
    /// Its id.
    pub(crate) id: ContainerId,
    #[command(flatten)]
    pub(crate) fields: ContainerFields,
}

/// What can be set at creation and changed later.
#[derive(Args, Debug)]
pub(crate) struct ContainerFields {
    /// Its name in the project.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Its colour, such as `#3498db`.
    #[arg(long)]
    pub(crate) color: Option<String>,
    /// A note; `null` clears it.
    #[arg(long)]
    pub(crate) comment: Option<String>,
    /// The SSH key that opens it; `null` removes it.
    #[arg(long, value_name = "KEY|null")]
    pub(crate) ssh_public_key: Option<String>,
    /// Whether SSH may carry connections (-L, -R, -D, -W, -J) besides sessions; `on` for a new one. `off` ends
    /// those that are open; the agent is not meant.
    #[arg(long, value_name = "on|off")]
    pub(crate) ssh_forwarding: Option<Switch>,
    /// An environment variable; can be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) environment_vars: Vec<String>,
    /// The realms that it is visible in.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) realm_ids: Vec<gantry_model::RealmId>,
    #[command(flatten)]
    pub(crate) switches: Switches,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServersCommand {
    /// List servers.
    List,
    /// Show a server.
    Get {
        /// Its id or its name.
        id: ServerRef,
    },
    /// Show what the machine of a server does now.
    Runtime {
        /// Its id.
        id: ServerId,
    },
}

impl Operation {
    /// The word in the path of the API.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::ForceStop => "force-stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// The status that the operation leads to.
    pub(crate) const fn leads_to(self) -> &'static str {
        match self {
            Self::Start | Self::Restart | Self::Resume => "running",
            Self::Stop | Self::ForceStop => "stopped",
            Self::Pause => "paused",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_spellings_of_the_seed_page_are_understood() {
        let id = "890abcdef12345678901cdef";
        for line in [
            "gantry projects create --alias client-acme --color #e74c3c".to_owned(),
            "gantry servers list".to_owned(),
            format!(
                "gantry containers create --project {id} --server-id {id} --name acme-frontend \
                 --hoody-kit --ssh-public-key key"
            ),
            format!("gantry containers get {id}"),
            format!("gantry containers create --project {id} --server-id {id} --prespawn"),
            "gantry containers list --include-prespawn true".to_owned(),
            "gantry ps --include-prespawn".to_owned(),
            format!("gantry containers manage {id} stop"),
            format!("gantry containers manage {id} force-stop"),
            format!(
                "gantry containers update {id} --name renamed-container --environment-vars \
                 NODE_ENV=staging"
            ),
            format!("gantry containers delete {id}"),
            format!("gantry snapshots create --container {id} --alias before-deletion"),
            format!("gantry snapshots update-alias -c {id} --name snap-1 --alias null"),
            format!("gantry containers copy {id} --target-project-id {id} --name copy-1 --wait"),
            "gantry ps".to_owned(),
            "gantry -o json auth create --alias ci-bot".to_owned(),
            "gantry login --email alice -p secret --print-token".to_owned(),
        ] {
            let parsed = Cli::try_parse_from(line.split_whitespace());
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn an_id_in_upper_case_is_refused_before_anything_is_sent() {
        let line = "gantry containers get 890ABCDEF12345678901CDEF";
        let error = Cli::try_parse_from(line.split_whitespace()).unwrap_err().to_string();
        assert!(error.contains("24 lower-case hexadecimal digits"), "{error}");
    }
}
