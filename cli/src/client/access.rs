//! `gantry permissions …`, `gantry hooks …` and `gantry hostnames …`.

use std::{io::Read as _, path::Path};

use gantry_model::ContainerId;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Client, view};
use crate::{
    args::{At, HookName, HooksCommand, HostnamesCommand, Owner, PermissionsCommand},
    exit::{Class, Failure},
    output::{self, Format},
};

/// The longest document that is read; the API takes less.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

impl Owner {
    const fn kind(self) -> &'static str {
        if self.project { "project" } else { "container" }
    }

    fn document(self) -> String {
        format!("{}s/{}/proxy/permissions", self.kind(), self.id)
    }
}

impl Client {
    pub(super) async fn permissions(&self, command: PermissionsCommand) -> Result<(), Failure> {
        match command {
            PermissionsCommand::Show { owner } => {
                output::json(&self.api.get(&owner.document(), &[]).await?)
            }
            PermissionsCommand::Set { owner, file, at } => {
                self.set_permissions(owner, read(&file)?, at).await
            }
            PermissionsCommand::Delete { owner, at } => {
                let (kind, id) = (owner.kind(), owner.id);
                self.confirm(&format!("the permissions of {kind} {id}"))?;
                self.permit(owner, Method::DELETE, "", None, at).await?;
                output::note(&format!("Deleted the permissions of {kind} {id}."));
                Ok(())
            }
            PermissionsCommand::Settings { owner, default, enable_proxy, at } => {
                self.settings(owner, default, enable_proxy, at).await
            }
            PermissionsCommand::Groups { owner } => self.groups(owner).await,
            PermissionsCommand::SetGroup { owner, group, file, at } => {
                let mut way = read(&file)?;
                let kind = match way.remove("type") {
                    Some(Value::String(kind)) => segment("type", &kind)?,
                    Some(_) | None => {
                        return Err(Failure::new(
                            Class::Usage,
                            "\"type\" must be jwt, password, ip or token",
                        ));
                    }
                };
                let rest = format!("/groups/{}/{kind}", segment("the group", &group)?);
                self.permit(owner, Method::PUT, &rest, Some(&Value::Object(way)), at).await?;
                output::note(&format!("Set the group {group}."));
                Ok(())
            }
            PermissionsCommand::DeleteGroup { owner, group, at } => {
                self.confirm(&format!("the group {group}"))?;
                let rest = format!("/groups/{}", segment("the group", &group)?);
                self.permit(owner, Method::DELETE, &rest, None, at).await?;
                output::note(&format!("Deleted the group {group}."));
                Ok(())
            }
            PermissionsCommand::Allow { owner, group, program, access, at } => {
                let rest = format!("/permissions/{}", segment("the group", &group)?);
                let body = json!({ "program": program, "access": cell(&access) });
                self.permit(owner, Method::PUT, &rest, Some(&body), at).await?;
                output::note(&format!("Set what {group} opens of {program}."));
                Ok(())
            }
            PermissionsCommand::Forget { owner, group, program, at } => {
                let mut rest = format!("/permissions/{}", segment("the group", &group)?);
                if let Some(program) = &program {
                    rest.push('/');
                    rest.push_str(&segment("the program", program)?);
                }
                self.permit(owner, Method::DELETE, &rest, None, at).await?;
                let what = program.as_deref().unwrap_or("everything");
                output::note(&format!("Forgot what {group} opens of {what}."));
                Ok(())
            }
            PermissionsCommand::Services { container, service } => {
                self.services(container, service.as_deref()).await
            }
        }
    }

    /// Writes a part of a permission document.
    async fn permit(
        &self,
        owner: Owner,
        method: Method,
        rest: &str,
        body: Option<&Value>,
        at: At,
    ) -> Result<Value, Failure> {
        let document = owner.document();
        let version = self.version(&document, at).await?;
        self.api.write_at(method, &format!("{document}{rest}"), &version, body).await
    }

    /// The version that a write is for: the given one, or that of the present document.
    async fn version(&self, document: &str, at: At) -> Result<String, Failure> {
        if let Some(version) = at.if_match {
            return Ok(version);
        }
        let present = self.api.get(document, &[]).await?;
        Ok(view::field(&present, "etag").as_str().unwrap_or_default().to_owned())
    }

    async fn set_permissions(
        &self,
        owner: Owner,
        mut document: Map<String, Value>,
        at: At,
    ) -> Result<(), Failure> {
        let path = owner.document();
        let present = self.api.get(&path, &[]).await?;
        // What `show` printed names its version; another file is for the present one.
        let version = document.get("etag").unwrap_or_else(|| view::field(&present, "etag"));
        let version = version.as_str().unwrap_or_default().to_owned();
        let version = at.if_match.unwrap_or(version);
        document.remove("propagation");
        for field in ["project", "container"] {
            if let Some(known) = present.get(field) {
                document.entry(field).or_insert_with(|| known.clone());
            }
        }
        let document = Value::Object(document);
        self.api.write_at(Method::PUT, &path, &version, Some(&document)).await?;
        output::note(&format!("Replaced the permissions of {} {}.", owner.kind(), owner.id));
        Ok(())
    }

    async fn settings(
        &self,
        owner: Owner,
        default: Option<String>,
        enable_proxy: Option<bool>,
        mut at: At,
    ) -> Result<(), Failure> {
        for (part, field, value) in [
            ("/default", "default", default.map(Value::String)),
            ("/state", "enable_proxy", enable_proxy.map(Value::Bool)),
        ] {
            let Some(value) = value else { continue };
            let body = json!({ field: value });
            let after = self.permit(owner, Method::PATCH, part, Some(&body), at).await?;
            // The next write is for what this one has left.
            at = At { if_match: after.get("etag").and_then(Value::as_str).map(str::to_owned) };
        }
        let document = self.api.get(&owner.document(), &[]).await?;
        let fields = ["enable_proxy", "default", "file_version", "etag"];
        let shown = fields.map(|name| (name.to_owned(), view::field(&document, name).clone()));
        self.show(&Value::Object(shown.into_iter().collect()))
    }

    async fn groups(&self, owner: Owner) -> Result<(), Failure> {
        if owner.project {
            // The API lists those of containers only.
            let document = self.api.get(&owner.document(), &[]).await?;
            let groups = view::field(&document, "groups").as_object().into_iter().flatten();
            let groups = groups.map(|(name, ways)| {
                let count = ways.as_array().map_or(1, Vec::len);
                json!({ "name": name, "auth_rule_count": count })
            });
            let data = json!({ "groups": groups.collect::<Vec<_>>() });
            return self.list(&data, view::field(&data, "groups"), view::GROUP);
        }
        let data = self.api.get(&format!("containers/{}/proxy/groups", owner.id), &[]).await?;
        self.list(&data, view::field(&data, "groups"), view::GROUP)
    }

    async fn services(&self, id: ContainerId, service: Option<&str>) -> Result<(), Failure> {
        let all = format!("containers/{id}/proxy/services");
        if let Some(service) = service {
            let one = format!("{all}/{}", segment("the service", service)?);
            return self.show(&self.api.get(&one, &[]).await?);
        }
        let data = self.api.get(&all, &[]).await?;
        if let Format::Json = self.out {
            return output::json(&data);
        }
        let names = view::field(&data, "services").as_array().into_iter().flatten();
        let rows = names.filter_map(Value::as_str).map(|name| vec![name.to_owned()]);
        output::table(&["SERVICE"], rows.collect())
    }

    pub(super) async fn hooks(&self, command: HooksCommand) -> Result<(), Failure> {
        match command {
            HooksCommand::List { container, service } => {
                let path = match service {
                    Some(service) => hooks_of(container, &service)?,
                    None => format!("containers/{container}/proxy/hooks"),
                };
                let data = self.api.get(&path, &[]).await?;
                self.list(&data, &flat(&data), view::HOOK)
            }
            HooksCommand::Get { hook } => {
                let data = self.api.get(&one_hook(&hook)?, &[]).await?;
                self.show(&data)
            }
            HooksCommand::Create { container, service, file, position, at } => {
                let mut body = read(&file)?;
                if let Some(position) = position {
                    body.insert("position".to_owned(), json!(position));
                }
                let path = hooks_of(container, &service)?;
                self.write_hook(container, Method::POST, &path, Some(body), at).await
            }
            HooksCommand::Update { hook, file, at } => {
                let (body, path) = (read(&file)?, one_hook(&hook)?);
                self.write_hook(hook.container, Method::PUT, &path, Some(body), at).await
            }
            HooksCommand::Move { hook, position, at } => {
                let path = format!("{}/position", one_hook(&hook)?);
                let body = Map::from_iter([("position".to_owned(), json!(position))]);
                self.write_hook(hook.container, Method::PATCH, &path, Some(body), at).await
            }
            HooksCommand::Delete { container, service, hook, all: _, at } => {
                let (what, path) = match hook {
                    Some(id) => {
                        let name = HookName { container, service, hook: id };
                        (format!("hook {id}"), one_hook(&name)?)
                    }
                    None => (format!("all hooks of {service}"), hooks_of(container, &service)?),
                };
                self.confirm(&what)?;
                let all = format!("containers/{container}/proxy/hooks");
                let version = self.version(&all, at).await?;
                self.api.write_at(Method::DELETE, &path, &version, None).await?;
                output::note(&format!("Deleted {what}."));
                Ok(())
            }
        }
    }

    async fn write_hook(
        &self,
        container: ContainerId,
        method: Method,
        path: &str,
        body: Option<Map<String, Value>>,
        at: At,
    ) -> Result<(), Failure> {
        let all = format!("containers/{container}/proxy/hooks");
        let version = self.version(&all, at).await?;
        let body = body.map(Value::Object);
        let data = self.api.write_at(method, path, &version, body.as_ref()).await?;
        self.show(&data)
    }

    pub(super) async fn hostnames(&self, command: HostnamesCommand) -> Result<(), Failure> {
        let all = |id: ContainerId| format!("containers/{id}/proxy/hostnames");
        match command {
            HostnamesCommand::List { container } => {
                let data = self.api.get(&all(container), &[]).await?;
                self.list(&data, view::field(&data, "hostnames"), view::HOSTNAME)
            }
            HostnamesCommand::Bind { container, hostname, alias_id } => {
                let body = json!({ "hostname": hostname, "alias_id": alias_id.to_string() });
                self.show(&self.api.post(&all(container), &[], Some(&body)).await?)
            }
            HostnamesCommand::Delete { container, hostname } => {
                self.confirm(&format!("hostname {hostname}"))?;
                let name = segment("the hostname", &hostname)?;
                self.api.delete(&format!("{}/{name}", all(container))).await?;
                output::note(&format!("Deleted hostname {hostname}."));
                Ok(())
            }
        }
    }
}

fn hooks_of(container: ContainerId, service: &str) -> Result<String, Failure> {
    Ok(format!("containers/{container}/proxy/hooks/{}", segment("the service", service)?))
}

fn one_hook(name: &HookName) -> Result<String, Failure> {
    Ok(format!("{}/{}", hooks_of(name.container, &name.service)?, name.hook))
}

/// The hooks of all services, or of one, as one list in which each says its service.
fn flat(data: &Value) -> Value {
    let named = |service: &str, hooks: &Value| {
        let hooks = hooks.as_array().into_iter().flatten().cloned();
        let service = service.to_owned();
        hooks
            .map(move |mut hook| {
                if let Some(fields) = hook.as_object_mut() {
                    fields.insert("service".to_owned(), json!(service));
                }
                hook
            })
            .collect::<Vec<_>>()
    };
    let hooks = view::field(data, "hooks");
    match hooks.as_object() {
        Some(services) => services.iter().flat_map(|(name, hooks)| named(name, hooks)).collect(),
        None => named(view::field(data, "service").as_str().unwrap_or_default(), hooks).into(),
    }
}

/// What an access cell says: JSON where it is some, else text.
fn cell(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// A part of a path: what the API calls by such a name needs no escapes.
pub(super) fn segment(what: &str, text: &str) -> Result<String, Failure> {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    if !text.is_empty() && !text.starts_with('.') && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    let rule = "must be letters, digits and - _ . inside";
    Err(Failure::new(Class::Usage, format!("{what} {text:?} {rule}")))
}

/// A JSON object in a file, or on the standard input.
fn read(file: &Path) -> Result<Map<String, Value>, Failure> {
    let unusable = |why: &dyn std::fmt::Display| {
        Failure::new(Class::Usage, format!("{}: {why}", file.display()))
    };
    let source: Box<dyn std::io::Read> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(file).map_err(|error| unusable(&error))?)
    };
    let mut text = Vec::new();
    let read = source.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut text);
    read.map_err(|error| unusable(&error))?;
    if u64::try_from(text.len()).is_ok_and(|length| length > DOCUMENT_BYTES_MAX) {
        return Err(unusable(&"it is too long"));
    }
    serde_json::from_slice(&text).map_err(|error| unusable(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_cell_is_json_or_text() {
        for (text, want) in [
            ("true", json!(true)),
            ("3000", json!(3000)),
            ("[1,2]", json!([1, 2])),
            ("*", json!("*")),
            ("\"*\"", json!("*")),
            ("3000-3999", json!("3000-3999")),
        ] {
            assert_eq!(cell(text), want, "{text}");
        }
    }

    #[test]
    fn what_would_lead_elsewhere_is_no_part_of_a_path() {
        for fine in ["team", "http", "www.example.com", "a_b-c"] {
            assert!(segment("it", fine).is_ok(), "{fine}");
        }
        for wrong in ["", "..", ".", "a/b", "a?b", "a#b", "a b", "ä", "%2e"] {
            assert!(segment("it", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hooks_are_one_list_that_says_the_service_of_each() {
        let all = json!({ "hooks": { "http": [{ "id": "1" }], "files": [{ "id": "2" }] } });
        let of_one = json!({ "service": "http", "hooks": [{ "id": "1" }] });
        let names = |data: &Value| {
            let list = flat(data);
            let hooks = list.as_array().unwrap().clone();
            hooks
                .iter()
                .map(|hook| format!("{}{}", hook["service"], hook["id"]))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&of_one), ["\"http\"\"1\""]);
        let mut found = names(&all);
        found.sort();
        assert_eq!(found, ["\"files\"\"2\"", "\"http\"\"1\""]);
    }
}
