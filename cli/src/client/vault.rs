//! `gantry vault …`.

use std::io::Read as _;

use serde_json::{Map, Value};

use super::{Client, view};
use crate::{
    args::{VaultCommand, VaultSet},
    exit::{Class, Failure},
    output::{self, Format},
};

/// More than the API takes for a value is not read.
const VALUE_MAX: u64 = 1 << 20;

impl Client {
    pub(super) async fn vault(&self, command: VaultCommand) -> Result<(), Failure> {
        match command {
            VaultCommand::List => {
                let keys = self.api.get("vault/keys", &[]).await?;
                self.list(&keys, &keys, view::VAULT_KEY)
            }
            VaultCommand::Get { key } => {
                let found = self.api.get(&path(&key)?, &[]).await?;
                match self.out {
                    Format::Json => output::json(&found),
                    Format::Table => {
                        let value = view::field(&found, "value").as_str().unwrap_or_default();
                        output::raw(value.as_bytes())
                    }
                }
            }
            VaultCommand::Set(set) => {
                let path = path(&set.key)?;
                let stored = self.api.patch(&path, &body(set)?).await?;
                self.show(&stored)
            }
            VaultCommand::Delete { key } => {
                let path = path(&key)?;
                self.confirm(&format!("the key {key}"))?;
                self.api.delete(&path).await?;
                output::note(&format!("Deleted key {key}."));
                Ok(())
            }
            VaultCommand::Clear => {
                self.confirm("every key of the vault")?;
                self.show(&self.api.delete("vault").await?)
            }
            VaultCommand::Stats => self.show(&self.api.get("vault/stats", &[]).await?),
        }
    }
}

/// The path of a key. One that would be another path is refused here, the rest by the API.
fn path(key: &str) -> Result<String, Failure> {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
    if key.bytes().all(plain) && !matches!(key, "" | "." | "..") {
        return Ok(format!("vault/keys/{key}"));
    }
    let rule = "a key is made of letters, digits, dots, underscores and hyphens";
    Err(Failure::new(Class::Usage, rule))
}

fn body(set: VaultSet) -> Result<Value, Failure> {
    let mut body = Map::new();
    if !set.keep_value {
        let value = match (set.value, set.file) {
            (Some(value), _) => value,
            (None, Some(file)) => {
                let opened = std::fs::File::open(&file);
                let read = opened.and_then(|file| std::io::read_to_string(file.take(VALUE_MAX)));
                read.map_err(|error| unreadable(&file.display().to_string(), &error))?
            }
            (None, None) => {
                if output::can_ask() {
                    output::note("The value, until Ctrl-D:");
                }
                let read = std::io::read_to_string(std::io::stdin().take(VALUE_MAX));
                read.map_err(|error| unreadable("the standard input", &error))?
            }
        };
        body.insert("value".to_owned(), value.into());
    }
    if let Some(metadata) = set.metadata {
        body.insert("metadata".to_owned(), metadata);
    }
    Ok(Value::Object(body))
}

fn unreadable(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Class::Usage, format!("cannot read {what}: {error}"))
}
