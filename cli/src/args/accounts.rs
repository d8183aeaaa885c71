//! The commands for logging in, tokens and realms.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gantry_model::{RealmId, TokenId};

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Log in and keep the session in the credentials file.
    Login(Login),
    /// End the session and forget it.
    Logout,
    /// Say who is logged in.
    #[command(alias = "me")]
    Whoami,
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
    /// Print the session's token instead of keeping it.
    #[arg(long)]
    pub(crate) print_token: bool,
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
    },
    /// Bind a token to one realm more.
    AddRealm {
        /// The token's id.
        id: TokenId,
        /// The realm.
        realm: RealmId,
    },
    /// Free a token from a realm.
    RemoveRealm {
        /// The token's id.
        id: TokenId,
        /// The realm.
        realm: RealmId,
    },
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
}
