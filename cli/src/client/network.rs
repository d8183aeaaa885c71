//! `gantry network …`.

use gantry_model::ContainerId;
use serde_json::{Map, Value, json};

use super::Client;
use crate::{
    args::{NetworkCommand, NetworkSet, NetworkType, word},
    exit::Failure,
    output,
};

impl Client {
    pub(super) async fn network(&self, command: NetworkCommand) -> Result<(), Failure> {
        match command {
            NetworkCommand::Get { container } => {
                self.show(&self.api.get(&path(container), &[]).await?)
            }
            NetworkCommand::Set(set) => {
                let path = path(set.container);
                self.show(&self.api.patch(&path, &body(set)).await?)
            }
            NetworkCommand::Clear { container } => {
                self.confirm(&format!("the outbound network of container {container}"))?;
                self.api.delete(&path(container)).await?;
                output::note(&format!("Container {container} goes the host's way."));
                Ok(())
            }
            NetworkCommand::Start { container } => self.switch_network(container, "start").await,
            NetworkCommand::Stop { container } => self.switch_network(container, "stop").await,
        }
    }

    async fn switch_network(&self, container: ContainerId, what: &str) -> Result<(), Failure> {
        let path = format!("{}/{what}", path(container));
        self.show(&self.api.post(&path, &[], Some(&json!({}))).await?)
    }
}

fn path(container: ContainerId) -> String {
    format!("containers/{container}/network")
}

fn body(set: NetworkSet) -> Value {
    let mut body = Map::new();
    body.insert("type".to_owned(), word(&set.kind).into());
    // The variable may be set for other containers.
    let proxy = set.proxy.filter(|_| set.kind != NetworkType::Block);
    body.extend(proxy.map(|url| ("proxy".to_owned(), url.into())));
    for (name, text) in [
        ("country", set.country),
        ("city", set.city),
        ("region", set.region),
        ("comment", set.comment),
    ] {
        let value = |text: String| if text.is_empty() { Value::Null } else { text.into() };
        body.extend(text.map(|text| (name.to_owned(), value(text))));
    }
    if !set.dns_servers.is_empty() {
        body.insert("dns_servers".to_owned(), json!(set.dns_servers));
    }
    Value::Object(body)
}
