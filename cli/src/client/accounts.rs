//! `gantry login`, `gantry auth …`, `gantry tokens …`, `gantry realms …`.

use std::{
    io::{self, BufRead},
    path::{Path, PathBuf},
};

use gantry_model::{RealmId, TokenId};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::{Map, Value, json};

use super::{
    Client,
    credentials::{self, Saved},
    view,
};
use crate::{
    args::{
        AuthCommand, Login, RealmsCommand, TokenChange, TokenCreate, TokenProfile, TokensCommand,
    },
    exit::{Class, Failure},
    output::{self, Format},
};

impl Client {
    pub(super) async fn auth(&self, command: AuthCommand) -> Result<(), Failure> {
        match command {
            AuthCommand::Login(login) => self.login(login).await,
            AuthCommand::Logout => self.logout().await,
            AuthCommand::Whoami => {
                let me = self.api.get("users/auth/me", &[]).await?;
                self.show(&me)
            }
            AuthCommand::GetCurrent => {
                let token = self.api.get("auth/tokens/me", &[]).await?;
                self.show(&token)
            }
            AuthCommand::Claim { audience, expires_in } => {
                let mut body = Map::from_iter([("audience".to_owned(), json!(audience))]);
                body.extend(expires_in.map(|seconds| ("expires_in".to_owned(), json!(seconds))));
                let body = Value::Object(body);
                let path = "users/auth/identity-claim";
                self.show(&self.api.post(path, &[], Some(&body)).await?)
            }
            AuthCommand::Create(token) => self.create_token(token).await,
            AuthCommand::List => self.tokens(TokensCommand::List).await,
            AuthCommand::Delete { id } => self.tokens(TokensCommand::Delete { id }).await,
        }
    }

    pub(super) async fn login(&self, login: Login) -> Result<(), Failure> {
        let username = match login.username {
            Some(username) => username,
            None => read_line("Username: ")?,
        };
        let password = match (login.password, login.password_file) {
            (Some(password), _) => password,
            (None, Some(file)) => password_in(&file)?,
            (None, None) => read_secret("Password: ")?,
        };
        let body = json!({"username": username, "password": password, "client": "cli"});
        let mut session = self.api.post("users/auth/login", &[], Some(&body)).await?;
        if let Some(token) = session.get("temp_token").and_then(Value::as_str) {
            let code = match login.otp {
                Some(code) => code,
                None => read_line("Code of the authenticator app: ")?,
            };
            let body = json!({ "temp_token": token, "code": code, "client": "cli" });
            session = self.api.post("users/auth/2fa/verify", &[], Some(&body)).await?;
        }
        let token = session.get("token").and_then(Value::as_str).ok_or_else(|| {
            Failure::new(Class::General, "the answer to the login carries no token")
        })?;
        if login.print_token {
            return output::line(token);
        }
        let path = self.keep(token)?;
        output::note(&format!(
            "Logged in to {} as {username}; kept in {}.",
            self.api.url,
            path.display()
        ));
        Ok(())
    }

    /// Keeps a session's token for later commands.
    pub(super) fn keep(&self, token: &str) -> Result<PathBuf, Failure> {
        credentials::save(&Saved {
            api_url: self.api.url.clone(),
            token: token.to_owned(),
            // The file is read from anywhere later.
            ca: self
                .api
                .ca
                .as_ref()
                .map(|ca| std::path::absolute(ca).unwrap_or_else(|_| ca.clone())),
        })
    }

    pub(super) async fn logout(&self) -> Result<(), Failure> {
        if self.api.has_credential()
            && let Err(failure) = self.api.post("users/auth/logout", &[], None).await
        {
            // Forget it anyway: a session that the API no longer knows is no reason to keep it.
            output::note(&format!("the session could not be ended: {failure}"));
        }
        credentials::forget()?;
        output::note("Logged out.");
        Ok(())
    }

    pub(super) async fn tokens(&self, command: TokensCommand) -> Result<(), Failure> {
        match command {
            TokensCommand::Create(token) => self.create_token(token).await,
            TokensCommand::List => {
                let tokens = self.api.get("auth/tokens", &[]).await?;
                self.list(&tokens, &tokens, view::TOKEN)
            }
            TokensCommand::Get { id } => {
                self.show(&self.api.get(&format!("auth/tokens/{id}"), &[]).await?)
            }
            TokensCommand::Update(change) => {
                let path = format!("auth/tokens/{}", change.id);
                self.show(&self.api.patch(&path, &token_change(change)).await?)
            }
            TokensCommand::Templates => {
                self.show(&self.api.get("auth/tokens/templates", &[]).await?)
            }
            TokensCommand::Delete { id } => {
                self.confirm(&format!("token {id}"))?;
                self.api.delete(&format!("auth/tokens/{id}")).await?;
                output::note(&format!("Deleted token {id}."));
                Ok(())
            }
            TokensCommand::Copy { id, alias, expires_at, otp } => {
                let fields = [("alias", alias), ("expires_at", expires_at), ("otp_code", otp)];
                let given = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
                let body = given.map(|(name, value)| (name.to_owned(), json!(value))).collect();
                let path = format!("auth/tokens/{id}/copy");
                let made = self.api.post(&path, &[], Some(&Value::Object(body))).await?;
                self.show_secret(&made)
            }
            TokensCommand::Profile(profile) => self.token_profile(profile).await,
            TokensCommand::AddRealm { id, realm, otp } => {
                self.token_realm(id, "add", realm, otp).await
            }
            TokensCommand::RemoveRealm { id, realm, otp } => {
                self.token_realm(id, "remove", realm, otp).await
            }
        }
    }

    async fn token_profile(&self, profile: TokenProfile) -> Result<(), Failure> {
        if let Some(key) = profile.of {
            if key.len() != 64 || !key.bytes().all(|octet| octet.is_ascii_hexdigit()) {
                let message = "--of must be 64 hexadecimal digits";
                return Err(Failure::new(Class::Usage, message));
            }
            let path = format!("auth/tokens/public-profiles/{}", key.to_lowercase());
            return self.show(&self.api.get(&path, &[]).await?);
        }
        let mut body = Map::new();
        for (name, value) in
            [("public_key", profile.public_key), ("public_storage", profile.public_storage)]
        {
            let value = value.map(|text| if text == "null" { Value::Null } else { text.into() });
            body.extend(value.map(|value| (name.to_owned(), value)));
        }
        let path = match profile.id {
            Some(id) => format!("auth/tokens/{id}"),
            None if body.is_empty() => "auth/tokens/me".to_owned(),
            None => "auth/tokens/me/public-profile".to_owned(),
        };
        let token = if body.is_empty() {
            self.api.get(&path, &[]).await?
        } else {
            self.api.patch(&path, &Value::Object(body)).await?
        };
        // Where it is asked for itself, the token stands beside its restrictions.
        let token = token.get("token").filter(|token| token.is_object()).unwrap_or(&token);
        let shown = |name| (name, view::field(token, name).clone());
        let shown = ["public_key", "public_storage"].map(shown);
        self.show(&json!(shown.into_iter().collect::<std::collections::BTreeMap<_, _>>()))
    }

    async fn token_realm(
        &self,
        id: TokenId,
        verb: &str,
        realm: RealmId,
        otp: Option<String>,
    ) -> Result<(), Failure> {
        let mut body = Map::from_iter([("realm_id".to_owned(), json!(realm.to_string()))]);
        body.extend(otp.map(|code| ("otp_code".to_owned(), json!(code))));
        let body = Value::Object(body);
        let path = format!("auth/tokens/{id}/{verb}-realm");
        self.show(&self.api.post(&path, &[], Some(&body)).await?)
    }

    pub(super) async fn realms(&self, command: RealmsCommand) -> Result<(), Failure> {
        let RealmsCommand::List = command;
        let query = [("include_usage", "true".to_owned())];
        let data = self.api.get("realms/", &query).await?;
        let usage = view::field(&data, "usage").as_object();
        let rows = usage.into_iter().flatten().map(|(realm, usage)| {
            let mut row = usage.clone();
            if let Some(fields) = row.as_object_mut() {
                fields.insert("id".to_owned(), json!(realm));
            }
            row
        });
        self.list(&data, &Value::Array(rows.collect()), view::REALM)
    }

    async fn create_token(&self, token: TokenCreate) -> Result<(), Failure> {
        let mut body = json!({
            "alias": token.alias,
            "allow_no_realm": token.realm_ids.is_empty(),
            "event_access": true,
        });
        if let Some(fields) = body.as_object_mut() {
            if !token.realm_ids.is_empty() {
                let ids: Vec<_> = token.realm_ids.iter().map(ToString::to_string).collect();
                fields.insert("realm_ids".to_owned(), json!(ids));
            }
            if !token.ip_whitelist.is_empty() {
                fields.insert("ip_whitelist".to_owned(), json!(token.ip_whitelist));
            }
            if let Some(time) = token.expires_at {
                fields.insert("expires_at".to_owned(), json!(time));
            }
            if let Some(template) = token.permission_template {
                fields.insert("permission_template".to_owned(), json!(template));
            }
            if let Some(code) = token.otp {
                fields.insert("otp_code".to_owned(), json!(code));
            }
        }
        let made = self.api.post("auth/tokens", &[], Some(&body)).await?;
        self.show_secret(&made)
    }

    fn show_secret(&self, made: &Value) -> Result<(), Failure> {
        match self.out {
            Format::Json => output::json(made),
            Format::Table => {
                output::note("This is the only time that the token is shown:");
                output::line(&view::text(view::field(made, "token")))
            }
        }
    }
}

/// What a change of a token sends.
fn token_change(change: TokenChange) -> Value {
    let or_null = |text: String| if text == "null" { Value::Null } else { json!(text) };
    let fields = [
        ("alias", change.alias.map(Value::String)),
        ("ip_whitelist", change.ip_whitelist.map(Value::String)),
        ("permission_template", change.permission_template.map(Value::String)),
        ("expires_at", change.expires_at.map(or_null)),
        ("otp_code", change.otp.map(Value::String)),
        ("is_enabled", change.enabled.map(Value::Bool)),
    ];
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.collect())
}

pub(super) fn read_line(question: &str) -> Result<String, Failure> {
    if !output::can_ask() {
        return Err(Failure::new(Class::Usage, "--username is needed"));
    }
    output::ask(question);
    first_line(io::stdin().lock())
}

/// The first line of a file; `-` is standard input.
pub(super) fn password_in(file: &Path) -> Result<String, Failure> {
    if file.as_os_str() == "-" {
        return first_line(io::stdin().lock());
    }
    let open = std::fs::File::open(file)
        .map_err(|error| Failure::new(Class::Usage, format!("{}: {error}", file.display())))?;
    first_line(io::BufReader::new(open))
}

/// Reads a line that the terminal does not show.
pub(super) fn read_secret(question: &str) -> Result<String, Failure> {
    if !output::can_ask() {
        return Err(Failure::new(Class::Usage, "a password is needed")
            .hint("give --password-file FILE, or `--password-file -` to read standard input"));
    }
    let stdin = io::stdin();
    let terminal = |error: rustix::io::Errno| {
        Failure::new(Class::General, format!("cannot hide the password: {error}"))
    };
    let shown = tcgetattr(&stdin).map_err(terminal)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    output::ask(question);
    tcsetattr(&stdin, OptionalActions::Now, &hidden).map_err(terminal)?;
    let line = first_line(stdin.lock());
    let restored = tcsetattr(&stdin, OptionalActions::Now, &shown).map_err(terminal);
    output::note("");
    restored?;
    line
}

fn first_line(mut from: impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    from.read_line(&mut line)
        .map_err(|error| Failure::new(Class::General, format!("cannot read: {error}")))?;
    let line = line.trim_end_matches(['\r', '\n']);
    if line.is_empty() {
        return Err(Failure::new(Class::Usage, "nothing was entered"));
    }
    Ok(line.to_owned())
}
