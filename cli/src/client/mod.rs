//! The client commands: they speak to the API over HTTPS like any other client and know nothing
//! that its documentation does not say.

mod access;
mod accounts;
mod connection;
mod containers;
mod credentials;
mod events;
mod exec;
mod firewall;
mod images;
mod network;
mod progress;
mod projects;
mod proxy;
mod shares;
mod snapshots;
mod ssh_config;
mod tap;
mod terminal;
mod two_factor;
mod users;
mod vault;
mod view;

use std::process::ExitCode;

use serde_json::Value;

pub(crate) use self::connection::Api;
use self::progress::Progress;
use crate::{
    args::{Command, Connection, ServersCommand, Wait},
    exit::{Class, Failure},
    output::{self, Format},
};

/// What every command has at hand.
struct Client {
    api: Api,
    out: Format,
    /// Do not ask before deleting.
    yes: bool,
}

/// Runs one client command.
pub(crate) async fn run(
    connection: Connection,
    out: Format,
    command: Command,
) -> Result<ExitCode, Failure> {
    let yes = connection.yes;
    let api = Api::new(connection)?;
    let client = Client { api, out, yes };
    answer(&client, command).await
}

async fn answer(client: &Client, command: Command) -> Result<ExitCode, Failure> {
    let done = match command {
        Command::Exec(command) => return client.exec(command).await,
        Command::Ssh(command) => return client.ssh(command).await,
        Command::Auth(command) => client.auth(command).await,
        Command::Login(login) => client.login(login).await,
        Command::Logout => client.logout().await,
        Command::Projects(command) => client.projects(command).await,
        Command::Containers(command) => client.containers(command).await,
        Command::Ps(list) => client.list_containers(list).await,
        Command::Snapshots(command) => client.snapshots(command).await,
        Command::Firewall(command) => client.firewall(command).await,
        Command::Network(command) => client.network(command).await,
        Command::Shares(command) => client.shares(command).await,
        Command::Proxy(command) => client.proxy(command).await,
        Command::Hostnames(command) => client.hostnames(command).await,
        Command::Hooks(command) => client.hooks(command).await,
        Command::Permissions(command) => client.permissions(command).await,
        Command::Edge(command) => client.edge(command).await,
        Command::SshConfig(wanted) => client.ssh_config(wanted).await,
        Command::Tap(command) => client.tap(command).await,
        Command::Tokens(command) => client.tokens(command).await,
        Command::TwoFactor(command) => client.two_factor(command).await,
        Command::Users(command) => client.users(command).await,
        Command::Activity(command) => client.activity(command).await,
        Command::Events(command) => client.events(command).await,
        Command::Realms(command) => client.realms(command).await,
        Command::Vault(command) => client.vault(command).await,
        Command::PublicKey => {
            let keys = client.api.get("meta/public-key", &[]).await?;
            client.list(&keys, view::field(&keys, "keys"), view::PUBLIC_KEY)
        }
        Command::Meta { key: None } => client.show(&client.api.get("meta/config", &[]).await?),
        Command::Meta { key: Some(key) } => {
            let path = format!("meta/config/{}", access::segment("key", &key)?);
            client.show(&client.api.get(&path, &[]).await?)
        }
        Command::Servers(ServersCommand::List) => {
            let servers = client.api.get("servers", &[]).await?;
            client.list(&servers, &servers, view::SERVER)
        }
        Command::Servers(ServersCommand::Get { id }) => {
            let id = client.server_id(&id).await?;
            client.show(&client.api.get(&format!("servers/{id}"), &[]).await?)
        }
        Command::Servers(ServersCommand::Runtime { id }) => {
            client.show(&client.api.get(&format!("servers/{id}/runtime"), &[]).await?)
        }
        Command::Images(command) => client.images(command).await,
        Command::Serve(_)
        | Command::Dev(_)
        | Command::Config(_)
        | Command::Upgrade(_)
        | Command::Explain(_)
        | Command::Certs(_)
        | Command::Doctor(_)
        | Command::Completions { .. } => {
            Err(Failure::new(Class::General, "this command does not speak to the API"))
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

impl Client {
    /// Prints a list: all of `data` as JSON, or `items` in columns.
    fn list(&self, data: &Value, items: &Value, columns: view::Columns) -> Result<(), Failure> {
        match self.out {
            Format::Json => output::json(data),
            Format::Table => {
                let rows = items.as_array().map(|items| view::rows(items, columns));
                output::table(&view::header(columns), rows.unwrap_or_default())
            }
        }
    }

    /// Prints one thing: as JSON, or one line per field.
    fn show(&self, data: &Value) -> Result<(), Failure> {
        match self.out {
            Format::Json => output::json(data),
            Format::Table => output::table(&["field", "value"], view::fields(data)),
        }
    }

    /// A line that says what is being done while it is waited for.
    fn progress(&self, wait: Wait, doing: impl Into<String>) -> Progress {
        if wait.wait { Progress::start(self.out, doing) } else { Progress::none() }
    }

    /// Asks before something is deleted. Without a person to ask, the command line is the answer.
    fn confirm(&self, what: &str) -> Result<(), Failure> {
        if self.yes || !output::can_ask() {
            return Ok(());
        }
        output::ask(&format!("Delete {what}? [y/N] "));
        let mut answer = String::new();
        std::io::stdin()
            .read_line(&mut answer)
            .map_err(|error| Failure::new(Class::General, format!("no answer: {error}")))?;
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            Ok(())
        } else {
            Err(Failure::new(Class::General, "nothing was deleted"))
        }
    }
}
