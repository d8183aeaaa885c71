//! Specs as JSON documents.
//!
//! The types here are the stored form and nothing else: a change of the domain's types does not
//! change what is on the disk, and a document of another schema is refused instead of half read.
//! Every document says its schema's number. To change one, add a type with the next number and
//! read both.

use std::collections::BTreeMap;

use gantry_model::{
    ContainerSpec, FieldError, InvalidId, RealmId, TokenId,
    access::{Document, Program},
    alias::AliasTarget,
    container::{Color, Comment, ContainerName, Environment, ImageName, RamdiskScope},
    edge::EdgeSettings,
    firewall::Rules,
    hook::Hook,
    outbound::Outbound,
    project::{ProjectAlias, ProjectSpec},
    ssh::SshPublicKey,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    error::{Error, Result},
    record::{Access, Alias, HookRecord, Token},
};

/// The schema that this binary writes, of every kind of document.
const SCHEMA: u32 = 1;

#[derive(Deserialize)]
struct Numbered {
    schema: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "a stored form: one member for each field")]
struct ContainerDocument {
    schema: u32,
    name: String,
    color: String,
    image: String,
    hoody_kit: bool,
    dev_kit: bool,
    ai: bool,
    autostart: bool,
    ramdisk: bool,
    /// Absent from documents that were written before it was known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    kvm: bool,
    /// The same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ramdisk_of_project: bool,
    /// The same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ssh_without_forwarding: bool,
    cache: bool,
    environment: BTreeMap<String, String>,
    ssh_public_key: Option<String>,
    comment: Option<String>,
    realms: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectDocument {
    schema: u32,
    alias: String,
    color: String,
    max_containers: Option<u32>,
    realms: Vec<String>,
}

/// A permission document and its hooks.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessDocument {
    schema: u32,
    /// In the form that clients know; the model reads and writes it.
    document: Option<Value>,
    hooks: Vec<HookDocument>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HookDocument {
    id: String,
    service: String,
    /// In the form that clients know, without id and position.
    hook: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsDocument {
    schema: u32,
    /// In the form that clients know.
    settings: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FirewallDocument {
    schema: u32,
    /// In the form that clients know.
    rules: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutboundDocument {
    schema: u32,
    outbound: Value,
}

/// What of an alias is in no column of its own.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliasDocument {
    schema: u32,
    program: String,
    number: Option<u16>,
    pub(crate) target_path: Option<String>,
    pub(crate) allow_path_override: bool,
}

/// What of a token is in no column of its own.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenDocument {
    schema: u32,
    pub(crate) alias: String,
    pub(crate) prefix: String,
    realms: Vec<String>,
    pub(crate) allow_no_realm: bool,
    pub(crate) event_access: bool,
    pub(crate) vault_access: bool,
    pub(crate) ip_whitelist: Vec<String>,
    pub(crate) permissions: String,
    /// Absent from documents of tokens that were made before it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
    /// The same.
    #[serde(default)]
    pub(crate) depth: u32,
}

/// The stored form of a container's spec.
pub(crate) fn write_container(spec: &ContainerSpec) -> Result<String> {
    write(&ContainerDocument {
        schema: SCHEMA,
        name: spec.name.as_str().to_owned(),
        color: spec.color.to_string(),
        image: spec.image.as_str().to_owned(),
        hoody_kit: spec.hoody_kit,
        dev_kit: spec.dev_kit,
        ai: spec.ai,
        autostart: spec.autostart,
        ramdisk: spec.ramdisk,
        kvm: spec.kvm,
        ramdisk_of_project: spec.ramdisk_scope == RamdiskScope::Project,
        ssh_without_forwarding: !spec.ssh_forwarding,
        cache: spec.cache,
        environment: spec.environment.vars().clone(),
        ssh_public_key: spec.ssh_public_key.as_ref().map(ToString::to_string),
        comment: spec.comment.as_ref().map(|comment| comment.as_str().to_owned()),
        realms: texts(&spec.realms),
    })
}

/// Reads a container's spec.
pub(crate) fn read_container(text: &str) -> Result<ContainerSpec> {
    let doc: ContainerDocument = read(text)?;
    Ok(ContainerSpec {
        name: ContainerName::parse("name", &doc.name).map_err(field)?,
        color: Color::parse("color", &doc.color).map_err(field)?,
        image: ImageName::parse("image", &doc.image).map_err(field)?,
        hoody_kit: doc.hoody_kit,
        dev_kit: doc.dev_kit,
        ai: doc.ai,
        autostart: doc.autostart,
        ramdisk: doc.ramdisk,
        kvm: doc.kvm,
        ramdisk_scope: if doc.ramdisk_of_project {
            RamdiskScope::Project
        } else {
            RamdiskScope::Container
        },
        cache: doc.cache,
        environment: Environment::parse("environment", doc.environment)
            .map_err(|errors| fields(&errors))?,
        ssh_public_key: doc
            .ssh_public_key
            .map(|line| SshPublicKey::parse("ssh_public_key", &line).map_err(field))
            .transpose()?,
        ssh_forwarding: !doc.ssh_without_forwarding,
        comment: doc
            .comment
            .map(|text| Comment::parse("comment", &text).map_err(field))
            .transpose()?,
        realms: realms(&doc.realms)?,
    })
}

/// The stored form of a project's spec.
pub(crate) fn write_project(spec: &ProjectSpec) -> Result<String> {
    write(&ProjectDocument {
        schema: SCHEMA,
        alias: spec.alias.as_str().to_owned(),
        color: spec.color.to_string(),
        max_containers: spec.max_containers,
        realms: texts(&spec.realms),
    })
}

/// Reads a project's spec.
pub(crate) fn read_project(text: &str) -> Result<ProjectSpec> {
    let doc: ProjectDocument = read(text)?;
    Ok(ProjectSpec {
        alias: ProjectAlias::parse("alias", &doc.alias).map_err(field)?,
        color: Color::parse("color", &doc.color).map_err(field)?,
        max_containers: doc.max_containers,
        realms: realms(&doc.realms)?,
    })
}

/// The stored form of a token's settings.
pub(crate) fn write_token(token: &Token) -> Result<String> {
    write(&TokenDocument {
        schema: SCHEMA,
        alias: token.alias.clone(),
        prefix: token.prefix.clone(),
        realms: texts(&token.realms),
        allow_no_realm: token.allow_no_realm,
        event_access: token.event_access,
        vault_access: token.vault_access,
        ip_whitelist: token.ip_whitelist.clone(),
        permissions: token.permissions.clone(),
        created_by: token.created_by.map(|id| id.to_string()),
        depth: token.depth,
    })
}

/// Reads a token's settings.
pub(crate) fn read_token(text: &str) -> Result<TokenDocument> {
    read(text)
}

impl TokenDocument {
    /// The realms that it is limited to.
    pub(crate) fn realms(&self) -> Result<Vec<RealmId>> {
        realms(&self.realms)
    }

    /// The token that it was made with.
    pub(crate) fn created_by(&self) -> Result<Option<TokenId>> {
        let parse = |text: &String| {
            text.parse().map_err(|error: InvalidId| Error::Corrupt {
                what: format!("document: created_by: {error}"),
            })
        };
        self.created_by.as_ref().map(parse).transpose()
    }
}

/// The stored form of a permission document and its hooks.
pub(crate) fn write_access(access: &Access) -> Result<String> {
    let hook = |HookRecord { id, hook }: &HookRecord| HookDocument {
        id: id.to_string(),
        service: hook.service.as_str().to_owned(),
        hook: hook.to_json(),
    };
    write(&AccessDocument {
        schema: SCHEMA,
        document: access.document.as_ref().map(Document::to_json),
        hooks: access.hooks.iter().map(hook).collect(),
    })
}

/// Reads a permission document and its hooks.
pub(crate) fn read_access(text: &str) -> Result<(Option<Document>, Vec<HookRecord>)> {
    let doc: AccessDocument = read(text)?;
    let document = doc.document.as_ref().map(Document::from_stored).transpose();
    let hook = |stored: HookDocument| -> Result<HookRecord> {
        let service = Program::parse("service", &stored.service).map_err(field)?;
        let id = stored.id.parse().map_err(|error: InvalidId| Error::Corrupt {
            what: format!("document: hook: {error}"),
        })?;
        let hook = Hook::from_json("hook", service, &stored.hook).map_err(|all| fields(&all))?;
        Ok(HookRecord { id, hook })
    };
    let hooks = doc.hooks.into_iter().map(hook).collect::<Result<_>>()?;
    Ok((document.map_err(|all| fields(&all))?, hooks))
}

/// The stored form of the settings of the edge.
pub(crate) fn write_settings(settings: &EdgeSettings) -> Result<String> {
    write(&SettingsDocument { schema: SCHEMA, settings: settings.to_json() })
}

/// Reads the settings of the edge.
pub(crate) fn read_settings(text: &str) -> Result<EdgeSettings> {
    let doc: SettingsDocument = read(text)?;
    EdgeSettings::default().updated(&doc.settings).map_err(|all| fields(&all))
}

/// The stored form of firewall rules.
pub(crate) fn write_firewall(rules: &Rules) -> Result<String> {
    write(&FirewallDocument { schema: SCHEMA, rules: rules.json() })
}

/// Reads firewall rules.
pub(crate) fn read_firewall(text: &str) -> Result<Rules> {
    let doc: FirewallDocument = read(text)?;
    Rules::read(&doc.rules).map_err(|all| fields(&all))
}

/// The stored form of an outbound network.
pub(crate) fn write_outbound(outbound: &Outbound) -> Result<String> {
    write(&OutboundDocument { schema: SCHEMA, outbound: outbound.json() })
}

/// Reads an outbound network.
pub(crate) fn read_outbound(text: &str) -> Result<Outbound> {
    let doc: OutboundDocument = read(text)?;
    Outbound::read(&doc.outbound).map_err(|error| fields(&[error]))
}

/// The stored form of an alias's target.
pub(crate) fn write_alias(alias: &Alias) -> Result<String> {
    write(&AliasDocument {
        schema: SCHEMA,
        program: alias.target.program().as_str().to_owned(),
        number: alias.target.number(),
        target_path: alias.target_path.clone(),
        allow_path_override: alias.allow_path_override,
    })
}

/// Reads an alias's target.
pub(crate) fn read_alias(text: &str) -> Result<AliasDocument> {
    read(text)
}

impl AliasDocument {
    /// What it leads to.
    pub(crate) fn target(&self) -> Result<AliasTarget> {
        AliasTarget::parse(&self.program, None, self.number.map(i64::from))
            .map_err(|error| Error::Corrupt { what: format!("document: {error}") })
    }
}

fn write(document: &impl Serialize) -> Result<String> {
    serde_json::to_string(document)
        .map_err(|error| Error::Corrupt { what: format!("cannot be written as JSON: {error}") })
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T> {
    let damaged = |error: serde_json::Error| Error::Corrupt { what: format!("document: {error}") };
    // The number first: the fields of another schema mean nothing here.
    let Numbered { schema } = serde_json::from_str(text).map_err(damaged)?;
    if schema != SCHEMA {
        return Err(Error::Corrupt { what: format!("document of the unknown schema {schema}") });
    }
    serde_json::from_str(text).map_err(damaged)
}

fn texts(realms: &[RealmId]) -> Vec<String> {
    realms.iter().map(ToString::to_string).collect()
}

fn realms(texts: &[String]) -> Result<Vec<RealmId>> {
    texts
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, InvalidId>>()
        .map_err(|error| Error::Corrupt { what: format!("document: realms: {error}") })
}

fn field(error: FieldError) -> Error {
    fields(&[error])
}

fn fields(errors: &[FieldError]) -> Error {
    let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Error::Corrupt { what: format!("document: {}", list.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_another_schema_is_refused_by_its_number() {
        for (text, want) in [
            (r#"{"schema":2,"anything":true}"#, "unknown schema 2"),
            (r#"{"alias":"a"}"#, "missing field `schema`"),
            (r##"{"schema":1,"alias":"a","color":"#000000","max_containers":null}"##, "realms"),
            (
                r##"{"schema":1,"alias":"","color":"#000000","max_containers":null,"realms":[]}"##,
                "alias",
            ),
            ("", "document"),
        ] {
            let error = read_project(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text:?} gave {error:?}");
        }
    }
}
