//! `gantry ssh-config`.

use std::{fmt::Write as _, fs, path::PathBuf};

use gantry_model::{ContainerId, ssh::SshPublicKey};
use serde_json::Value;

use super::{Client, view};
use crate::{
    args::SshConfig,
    exit::{Class, Failure},
    output::{self, Format},
};

/// The most containers of one page.
const PAGE: u32 = 100;

/// One block of the file.
struct Host {
    names: Vec<String>,
    address: String,
    identity: Option<PathBuf>,
}

impl Client {
    pub(super) async fn ssh_config(&self, wanted: SshConfig) -> Result<(), Failure> {
        let meta = self.api.get("meta/config", &[]).await?;
        let domain = text(&meta, "domain");
        let Some(port) = view::field(&meta, "ssh_port").as_u64() else {
            return Err(Failure::new(Class::General, "this installation takes no SSH connections"));
        };
        let containers = self.with_keys(&wanted.containers).await?;
        let keys = own_keys();
        let hosts = containers.iter().map(|container| Host {
            names: names(container, &containers),
            address: format!("ssh.{}.containers.{domain}", text(container, "server_name")),
            identity: wanted.identity.clone().or_else(|| identity(container, &keys)),
        });
        let hosts: Vec<Host> = hosts.collect();
        if self.out == Format::Json {
            return output::json(&hosts.iter().map(|host| as_json(host, port)).collect());
        }
        output::raw(blocks(&hosts, port, text(&meta, "ssh_host_key")).as_bytes())
    }

    /// The containers that a key opens: those named, or all.
    async fn with_keys(&self, wanted: &[ContainerId]) -> Result<Vec<Value>, Failure> {
        if wanted.is_empty() {
            return self.all_with_keys().await;
        }
        let mut found = Vec::new();
        for id in wanted {
            let container = self.api.get(&format!("containers/{id}"), &[]).await?;
            if !has_key(&container) {
                let message = format!("container {id} has no SSH key");
                let hint = "give it one: gantry containers update <id> --ssh-public-key \"$(cat KEY.pub)\"";
                return Err(Failure::new(Class::General, message).hint(hint));
            }
            found.push(container);
        }
        Ok(found)
    }

    async fn all_with_keys(&self) -> Result<Vec<Value>, Failure> {
        let mut found = Vec::new();
        for page in 1_u32.. {
            let query = [("page", page.to_string()), ("limit", PAGE.to_string())];
            let data = self.api.get("containers", &query).await?;
            let containers = view::field(&data, "containers").as_array().cloned();
            let containers = containers.unwrap_or_default();
            let is_last = containers.len() < PAGE as usize;
            found.extend(containers.into_iter().filter(has_key));
            if is_last {
                break;
            }
        }
        Ok(found)
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    view::field(value, name).as_str().unwrap_or_default()
}

fn has_key(container: &Value) -> bool {
    !text(container, "ssh_public_key").is_empty()
}

/// What a container is called on the command line: its id, and its name where no other has that.
fn names(container: &Value, all: &[Value]) -> Vec<String> {
    let name = text(container, "name");
    let is_only = all.iter().filter(|other| text(other, "name") == name).count() == 1;
    // Names hold nothing that means something in this file, but an empty one would.
    let mut names: Vec<String> =
        (is_only && !name.is_empty()).then(|| name.to_owned()).into_iter().collect();
    names.push(text(container, "id").to_owned());
    names
}

/// The public keys in the user's own directory, with the files of their private halves.
fn own_keys() -> Vec<(SshPublicKey, PathBuf)> {
    let Some(home) = std::env::home_dir() else { return Vec::new() };
    let Ok(entries) = fs::read_dir(home.join(".ssh")) else { return Vec::new() };
    let key = |path: PathBuf| {
        if path.extension()? != "pub" {
            return None;
        }
        let key = SshPublicKey::parse("key", &fs::read_to_string(&path).ok()?).ok()?;
        Some((key, path.with_extension("")))
    };
    entries.filter_map(|entry| key(entry.ok()?.path())).collect()
}

fn identity(container: &Value, keys: &[(SshPublicKey, PathBuf)]) -> Option<PathBuf> {
    let wanted = SshPublicKey::parse("key", text(container, "ssh_public_key")).ok()?;
    keys.iter().find(|(key, _)| *key == wanted).map(|(_, file)| file.clone())
}

fn as_json(host: &Host, port: u64) -> Value {
    serde_json::json!({
        "host": host.names,
        "hostname": host.address,
        "port": port,
        "user": "root",
        "identity_file": host.identity,
    })
}

/// The text for `~/.ssh/config`, and the line for `known_hosts` as a comment.
fn blocks(hosts: &[Host], port: u64, host_key: &str) -> String {
    let mut out = String::new();
    let mut addresses: Vec<&str> = hosts.iter().map(|host| host.address.as_str()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    // Writing to a string does not fail.
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(out, "{text}").unwrap_or_default();
    for address in addresses {
        line(format_args!("# For ~/.ssh/known_hosts: {address} {host_key}"));
    }
    for Host { names, address, identity } in hosts {
        line(format_args!("\nHost {}", names.join(" ")));
        line(format_args!("    HostName {address}"));
        line(format_args!("    HostKeyAlias {address}"));
        line(format_args!("    Port {port}"));
        line(format_args!("    User root"));
        line(format_args!("    IdentitiesOnly yes"));
        match identity {
            Some(file) => line(format_args!("    IdentityFile \"{}\"", file.display())),
            None => line(format_args!("    # IdentityFile: where the private half of its key is")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_name_each_container_and_trust_the_one_host_key() {
        let host = |names: &[&str], identity: Option<&str>| Host {
            names: names.iter().map(ToString::to_string).collect(),
            address: "ssh.local.containers.example.com".to_owned(),
            identity: identity.map(PathBuf::from),
        };
        let hosts = [host(&["web", "0123"], Some("/keys/id web")), host(&["4567"], None)];
        let text = blocks(&hosts, 2222, "ssh-ed25519 AAAA");
        let want = "# For ~/.ssh/known_hosts: ssh.local.containers.example.com ssh-ed25519 AAAA\n\
                    \nHost web 0123\n    HostName ssh.local.containers.example.com\n    \
                    HostKeyAlias ssh.local.containers.example.com\n    Port 2222\n    User root\n    \
                    IdentitiesOnly yes\n    IdentityFile \"/keys/id web\"\n\
                    \nHost 4567\n    HostName ssh.local.containers.example.com\n    \
                    HostKeyAlias ssh.local.containers.example.com\n    Port 2222\n    User root\n    \
                    IdentitiesOnly yes\n    # IdentityFile: where the private half of its key is\n";
        assert_eq!(text, want);
    }

    #[test]
    fn a_name_that_two_have_is_nobodys() {
        let all = [("web", "1"), ("db", "2"), ("web", "3")]
            .map(|(name, id)| serde_json::json!({ "name": name, "id": id }));
        assert_eq!(names(&all[0], &all), ["1"]);
        assert_eq!(names(&all[1], &all), ["db", "2"]);
    }
}
