//! The commands for logging in, tokens and realms.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gantry_model::{ContainerId, EventId, ProjectId, RealmId, TokenId, UserId};

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Log in and keep the session in the credentials file.
    Login(Login),
    /// End the session and forget it.
    Logout,
    /// Say who is logged in.
    #[command(alias = "me")]
    Whoami,
    /// Make a signed claim for one audience that its holder is this account.
    Claim {
        /// For whom it is, such as a hostname.
        audience: String,
        /// How long it is good, in seconds; an hour when left out.
        #[arg(long, value_name = "SECONDS")]
        expires_in: Option<u32>,
    },
    /// Make a token; its secret is shown once.
    Create(TokenCreate),
    /// List tokens.
    List,
    /// Show the token that this command was called with.
    GetCurrent,
    /// Delete a token.
    Delete {
        /// Its id.
        id: TokenId,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Login {
    /// The name of the account.
    #[arg(short, long, alias = "email")]
    pub(crate) username: Option<String>,
    /// The password; without it, it is asked for.
    #[arg(short, long, conflicts_with = "password_file")]
    pub(crate) password: Option<String>,
    /// A file whose first line is the password; `-` means standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// The authenticator app's code, or a backup code, where the account needs one; without it, it is asked for.
    #[arg(long, value_name = "CODE")]
    pub(crate) otp: Option<String>,
    /// Print the session's token instead of keeping it.
    #[arg(long)]
    pub(crate) print_token: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TwoFactorCommand {
    /// Say whether logins need a code.
    Status,
    /// Make a secret for an authenticator app, and backup codes; both are shown once.
    Setup(AccountPassword),
    /// Have logins need a code from now on, by a first one of the app. It ends all other sessions.
    Enable {
        /// The app's code.
        code: String,
    },
    /// Have logins need no code any more. It ends all other sessions.
    Disable(PasswordAndCode),
    /// Make new backup codes in the place of all others.
    BackupCodes(PasswordAndCode),
    /// Say whether sessions make and change tokens with a code only; `off` needs password and code.
    TokenGate {
        /// Whether they do.
        #[arg(value_parser = ["on", "off"])]
        gate: String,
        #[command(flatten)]
        password: AccountPassword,
        /// The app's code, or a backup code.
        #[arg(long, value_name = "CODE")]
        otp: Option<String>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct AccountPassword {
    /// A file whose first line is the account's password, `-` for standard input; without it, it is asked for.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct PasswordAndCode {
    #[command(flatten)]
    pub(crate) password: AccountPassword,
    /// The app's code, or a backup code; without it, it is asked for.
    #[arg(long, value_name = "CODE")]
    pub(crate) otp: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokensCommand {
    /// Make a token; its secret is shown once.
    Create(TokenCreate),
    /// List tokens.
    List,
    /// Delete a token.
    Delete {
        /// Its id.
        id: TokenId,
    },
    /// Show a token, without its secret.
    Get {
        /// Its id.
        id: TokenId,
    },
    /// Change a token; what is left out stays.
    Update(TokenChange),
    /// List the named sets of permissions.
    Templates,
    /// Make a token that may do the same as another; its secret is shown once.
    Copy {
        /// The id of the token to be copied.
        id: TokenId,
        /// Its name; that of the first when left out.
        #[arg(long)]
        alias: Option<String>,
        /// When it expires (ISO 8601); as the first when left out.
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        /// A code, where the account has two-factor authentication.
        #[arg(long, value_name = "CODE")]
        otp: Option<String>,
    },
    /// Show or change what a token shows of itself to whoever knows its public key.
    Profile(TokenProfile),
    /// Bind a token to one realm more.
    AddRealm {
        /// The token's id.
        id: TokenId,
        /// The realm.
        realm: RealmId,
        /// A code, where the account has two-factor authentication.
        #[arg(long, value_name = "CODE")]
        otp: Option<String>,
    },
    /// Free a token from a realm.
    RemoveRealm {
        /// The token's id.
        id: TokenId,
        /// The realm.
        realm: RealmId,
        /// A code, where the account has two-factor authentication.
        #[arg(long, value_name = "CODE")]
        otp: Option<String>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct TokenProfile {
    /// Shows what a token of any account shows under this public key.
    #[arg(long, value_name = "HEX", conflicts_with_all = ["public_key", "public_storage"])]
    pub(crate) of: Option<String>,
    /// The token to change; the one that is used when left out.
    #[arg(long, value_name = "ID", conflicts_with = "of")]
    pub(crate) id: Option<TokenId>,
    /// 64 hexadecimal digits; `null` takes it away.
    #[arg(long, value_name = "HEX|null")]
    pub(crate) public_key: Option<String>,
    /// What it shows; `null` takes it away.
    #[arg(long, value_name = "TEXT|null")]
    pub(crate) public_storage: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// Make an account (administrators).
    Create {
        /// Its name.
        username: String,
        /// A file whose first line is its first password; `-` means standard input.
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
    },
    /// Show an account: the own one, or any for administrators.
    Get {
        /// Its id.
        id: UserId,
    },
    /// Change the own account; a new password ends all sessions.
    Update(UserChange),
    /// Take an account's second factor away, for whoever has lost it. For administrators.
    #[command(name = "remove-2fa")]
    RemoveTwoFactor {
        /// Its id.
        id: UserId,
    },
}

#[derive(Args, Debug)]
pub(crate) struct UserChange {
    /// Its id, as `auth whoami` shows it.
    pub(crate) id: UserId,
    /// Its name for people; `null` for the account's name.
    #[arg(long)]
    pub(crate) alias: Option<String>,
    /// Its public key, 64 hexadecimal digits; `null` removes it.
    #[arg(long, value_name = "HEX|null")]
    pub(crate) public_key: Option<String>,
    /// A file whose first line is the new password.
    #[arg(long, value_name = "FILE", requires = "current_password_file")]
    pub(crate) password_file: Option<PathBuf>,
    /// A file whose first line is the present password.
    #[arg(long, value_name = "FILE", requires = "password_file")]
    pub(crate) current_password_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) limits: UserLimits,
}

/// How much an account may have; only administrators set it.
#[derive(Args, Debug)]
pub(crate) struct UserLimits {
    /// Containers in its projects; `default` for what all accounts may have. For administrators.
    #[arg(long = "max-containers", value_name = "N|default", value_parser = limit)]
    pub(crate) containers: Option<Limit>,
    /// Containers that run or are paused. For administrators.
    #[arg(long = "max-running-containers", value_name = "N|default", value_parser = limit)]
    pub(crate) running_containers: Option<Limit>,
    /// Projects. For administrators.
    #[arg(long = "max-projects", value_name = "N|default", value_parser = limit)]
    pub(crate) projects: Option<Limit>,
}

/// A limit of one account, or the one of all.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    Default,
    Own(u32),
}

fn limit(text: &str) -> Result<Limit, String> {
    if text == "default" {
        return Ok(Limit::Default);
    }
    text.parse().map(Limit::Own).map_err(|_why| "must be a whole number or `default`".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum ActivityCommand {
    /// List writes, the newest first.
    List {
        /// The page, from 1.
        #[arg(long, default_value_t = 1)]
        page: u32,
        /// How many on a page.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
        limit: u32,
        /// Only those that were refused or failed.
        #[arg(long)]
        errors_only: bool,
    },
    /// Say how much is kept.
    Stats,
    /// List logins, logouts and changes of passwords and tokens.
    Security,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// List events, the newest first.
    List {
        /// Only this kind, such as container.running.
        #[arg(long)]
        event_type: Option<String>,
        /// Only those of this container.
        #[arg(long, value_name = "ID")]
        container_id: Option<ContainerId>,
        /// Only those of this project.
        #[arg(long, value_name = "ID")]
        project_id: Option<ProjectId>,
        /// How many come before.
        #[arg(long, default_value_t = 0)]
        offset: u32,
        /// How many at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Count events by kind.
    Stats,
    /// Print events as they happen, one JSON object a line, until Ctrl-C.
    Follow,
    /// Show an event.
    Get {
        /// Its id.
        id: EventId,
    },
    /// Remove one event.
    Delete {
        /// Its id.
        id: EventId,
    },
    /// Remove the events that these filters choose, or all.
    DeleteMany(EventsRemoved),
    /// Remove events that are older than some days.
    CleanUp {
        /// The days that stay.
        #[arg(long)]
        retention_days: u32,
    },
}

/// Which events to remove.
#[derive(Args, Debug)]
#[group(id = "which", required = true, multiple = true)]
pub(crate) struct EventsRemoved {
    /// Only this kind, such as container.running.
    #[arg(long)]
    pub(crate) event_type: Option<String>,
    /// Only about this thing.
    #[arg(long, value_name = "ID")]
    pub(crate) resource_id: Option<String>,
    /// Only of before (ISO 8601).
    #[arg(long, value_name = "TIME")]
    pub(crate) before: Option<String>,
    /// All of them.
    #[arg(long, conflicts_with_all = ["event_type", "resource_id", "before"])]
    pub(crate) all: bool,
}

/// What of a token can change. Its secret cannot.
#[derive(Args, Debug)]
pub(crate) struct TokenChange {
    /// Its id.
    pub(crate) id: TokenId,
    /// Its name.
    #[arg(long)]
    pub(crate) alias: Option<String>,
    /// Accept it only from these addresses or networks; `*` for all.
    #[arg(long, value_name = "CIDR,..|*")]
    pub(crate) ip_whitelist: Option<String>,
    /// What it may do, by a name that `tokens templates` lists.
    #[arg(long, value_name = "NAME")]
    pub(crate) permission_template: Option<String>,
    /// When it expires (ISO 8601); `null` for never.
    #[arg(long, value_name = "TIME|null")]
    pub(crate) expires_at: Option<String>,
    /// Whether it may be used at all.
    #[arg(long, value_name = "BOOL")]
    pub(crate) enabled: Option<bool>,
    /// A code, where the account has two-factor authentication.
    #[arg(long, value_name = "CODE")]
    pub(crate) otp: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RealmsCommand {
    /// List the realms of what you see, with how much carries them.
    List,
}

#[derive(Args, Debug)]
pub(crate) struct TokenCreate {
    /// Its name.
    #[arg(long)]
    pub(crate) alias: String,
    /// Bind it to these realms.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) realm_ids: Vec<RealmId>,
    /// Accept it only from these addresses or networks.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(crate) ip_whitelist: Vec<String>,
    /// When it expires (ISO 8601).
    #[arg(long, value_name = "TIME")]
    pub(crate) expires_at: Option<String>,
    /// What it may do, by a name that `tokens templates` lists; everything when absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) permission_template: Option<String>,
    /// A code, where the account has two-factor authentication.
    #[arg(long, value_name = "CODE")]
    pub(crate) otp: Option<String>,
}
