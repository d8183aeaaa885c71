//! How the API's objects are shown to a person.

use serde_json::Value;

/// A heading and the path of the field below it; alternatives stand behind `|`.
pub(super) type Columns = &'static [(&'static str, &'static str)];

pub(super) const PROJECT: Columns = &[
    ("ID", "id"),
    ("ALIAS", "alias"),
    ("COLOR", "color"),
    ("MAX CONTAINERS", "max_containers"),
    ("CREATED", "created_at"),
];
pub(super) const MEMBER: Columns = &[
    ("ID", "id"),
    ("USER", "user.username"),
    ("USER ID", "user_id"),
    ("LEVEL", "permission_level"),
    ("SINCE", "created_at"),
];
pub(super) const CONTAINER: Columns = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("STATUS", "status"),
    ("IMAGE", "container_image"),
    ("PROJECT", "project_id"),
    ("SERVER", "server_name"),
    ("CREATED", "created_at"),
];
pub(super) const SNAPSHOT: Columns = &[
    ("NAME", "name"),
    ("ALIAS", "alias"),
    ("STATUS", "status"),
    ("CONTAINER", "container_id"),
    ("BYTES", "size"),
    ("CREATED", "created_at"),
    ("EXPIRES", "expires_at"),
];
pub(super) const RULE: Columns = &[
    ("DIRECTION", "direction"),
    ("ACTION", "action"),
    ("PROTOCOL", "protocol"),
    ("PORTS", "destination_port"),
    ("ADDRESSES", "addresses"),
    ("FROM PORTS", "source_port"),
    ("ICMP TYPE", "icmp_type"),
    ("ICMP CODE", "icmp_code"),
    ("STATE", "state"),
    ("DESCRIPTION", "description"),
];
pub(super) const STATUS_LOG: Columns = &[
    ("TIME", "transition_time"),
    ("FROM", "from_status"),
    ("TO", "to_status"),
    ("MS", "duration_ms"),
    ("BY", "triggered_by"),
];
pub(super) const SERVER: Columns = &[
    ("SERVER ID", "server_id"),
    ("NAME", "name|server.name"),
    ("STATUS", "status"),
    ("REGION", "region|server.region"),
];
pub(super) const IMAGE: Columns = &[
    ("ID", "id"),
    ("IMAGE", "alias"),
    ("OS", "os"),
    ("RELEASE", "release"),
    ("RATING", "average_rating"),
    ("RATINGS", "rating_count"),
    ("ADDED", "added_date"),
];
pub(super) const USER_IMAGE: Columns = &[
    ("ID", "id"),
    ("IMAGE", "alias"),
    ("YOURS", "user_rating"),
    ("RATING", "average_rating"),
    ("SINCE", "created_at"),
];
pub(super) const ALIAS: Columns = &[
    ("ID", "id"),
    ("ALIAS", "alias"),
    ("PROGRAM", "program"),
    ("INDEX", "index"),
    ("ENABLED", "enabled"),
    ("EXPIRES", "expires_at"),
    ("URL", "url"),
];
pub(super) const GROUP: Columns = &[("GROUP", "name"), ("WAYS", "auth_rule_count")];
pub(super) const HOOK: Columns = &[
    ("ID", "id"),
    ("SERVICE", "service"),
    ("METHOD", "match.method"),
    ("PATH", "match.path"),
    ("SCRIPT", "script.path"),
    ("MS", "timeout"),
];
pub(super) const HOSTNAME: Columns = &[
    ("HOSTNAME", "hostname"),
    ("ALIAS", "alias_id"),
    ("PROVEN BY", "proof"),
    ("VERIFIED", "verified"),
    ("CHECKED", "checked_at"),
];
pub(super) const ACTIVITY: Columns = &[
    ("TIME", "created_at"),
    ("METHOD", "method"),
    ("PATH", "path"),
    ("STATUS", "status_code"),
    ("FROM", "ip_address"),
    ("TOKEN", "token_id"),
];
pub(super) const EVENT: Columns = &[
    ("TIME", "created_at"),
    ("EVENT", "event_type"),
    ("RESOURCE", "resource_id"),
    ("NAME", "payload.name|payload.alias"),
    ("ID", "id"),
];
pub(super) const REALM: Columns = &[
    ("REALM", "id"),
    ("PROJECTS", "projects"),
    ("CONTAINERS", "containers"),
    ("TOKENS", "auth_tokens"),
];
pub(super) const VAULT_KEY: Columns = &[
    ("KEY", "key"),
    ("REALM", "realm_id"),
    ("BYTES", "size_bytes"),
    ("METADATA", "metadata"),
    ("UPDATED", "updated_at"),
];
pub(super) const SHARE: Columns = &[
    ("ID", "id"),
    ("SOURCE", "source_container_id"),
    ("PATH", "source_path"),
    ("TARGET", "target_container_id|target_project_id"),
    ("MODE", "mode"),
    ("ALIAS", "alias"),
    ("ENABLED", "enabled"),
    ("STATUS", "status"),
];
pub(super) const INCOMING_SHARE: Columns = &[
    ("ID", "id"),
    ("SOURCE", "source_container_id"),
    ("PATH", "source_path"),
    ("MODE", "mode"),
    ("ENABLED", "enabled"),
    ("STATUS", "status"),
    ("MOUNT", "mount"),
    ("AT", "mount_path"),
];
pub(super) const PUBLIC_KEY: Columns =
    &[("KID", "kid"), ("ALGORITHM", "algorithm"), ("PUBLIC KEY", "public_key_hex")];
pub(super) const USE: Columns = &[
    ("CONTAINER", "id"),
    ("STATUS", "status"),
    ("PROCESSES", "processes"),
    ("CPU NS", "cpu.usage"),
    ("MEMORY", "memory.usage"),
    ("DISK", "disk.root.usage"),
];
pub(super) const TOKEN: Columns = &[
    ("ID", "id"),
    ("ALIAS", "alias"),
    ("PREFIX", "prefix"),
    ("ENABLED", "is_enabled|enabled"),
    ("EXPIRES", "expires_at"),
    ("LAST USED", "last_used_at"),
];

/// A field of an object; null where there is none.
pub(super) fn field<'v>(value: &'v Value, name: &str) -> &'v Value {
    value.get(name).unwrap_or(&Value::Null)
}

/// A value without quotes; `-` for nothing.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// The headings.
pub(super) fn header(columns: Columns) -> Vec<&'static str> {
    columns.iter().map(|(heading, _)| *heading).collect()
}

/// One row per item.
pub(super) fn rows(items: &[Value], columns: Columns) -> Vec<Vec<String>> {
    let cell = |item: &Value, paths: &str| {
        let found = paths
            .split('|')
            .map(|path| path.split('.').fold(item, |value, name| field(value, name)));
        let mut found = found.filter(|value| !value.is_null());
        text(found.next().unwrap_or(&Value::Null))
    };
    items.iter().map(|item| columns.iter().map(|(_, paths)| cell(item, paths)).collect()).collect()
}

/// One row per field of an object.
pub(super) fn fields(value: &Value) -> Vec<Vec<String>> {
    match value {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| vec![name.clone(), text(value)]).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            vec![vec!["-".to_owned(), text(value)]]
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cell_takes_the_first_path_that_holds_something() {
        let items = [
            json!({"server_id": "1", "server": {"name": "local", "region": null}}),
            json!({"server_id": "2", "name": "top", "server": {"name": "inner"}}),
        ];
        let rows = rows(&items, SERVER);
        assert_eq!(rows, [["1", "local", "-", "-"], ["2", "top", "-", "-"]]);
    }

    #[test]
    fn a_value_is_shown_without_quotes() {
        for (value, want) in [
            (json!(null), "-"),
            (json!("a"), "a"),
            (json!(5), "5"),
            (json!([]), "-"),
            (json!(["a", "b"]), "a, b"),
            (json!({"A": "1"}), r#"{"A":"1"}"#),
        ] {
            assert_eq!(text(&value), want, "{value}");
        }
    }
}
