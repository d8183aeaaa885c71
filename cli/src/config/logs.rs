//! What owners see of the requests to their containers: the section `logs`.

use figment::value::Value;
use gantry_proxy::LogsConfig;

use super::reader::Reader;

/// The names that a list may have.
const NAMES_MAX: usize = 100;

/// Reads the section.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<LogsConfig> {
    // Read everything before the first `?`: one bad key must not hide the others.
    let enabled = reader.word("logs.enabled", &[("true", true), ("false", false)]);
    let entries = reader.number("logs.entries_per_container", 1, 1_000_000);
    let of_container = reader.number("logs.kib_per_container", 1_024, 1 << 20);
    let all = reader.number("logs.mib", 1, 1 << 20);
    let streams = reader.number("logs.streams_per_container", 1, 10_000);
    let reads = reader.number("logs.reads_per_minute", 1, 60_000);
    let body = reader.number("logs.body_kib", 1, 16_384);
    let bodies = reader.number("logs.bodies_per_container", 0, 10_000);
    let redact_fields = names(reader, "logs.redact_fields");
    let redact_parameters = names(reader, "logs.redact_parameters");
    let (of_container, all) = (of_container? << 10, all? << 20);
    if all < of_container {
        problem(reader, "logs.mib", "must be at least what one container may have");
    }
    let config = LogsConfig {
        enabled: enabled?,
        entries_per_container: usize::try_from(entries?).ok()?,
        bytes_per_container: usize::try_from(of_container).ok()?,
        bytes: usize::try_from(all).ok()?,
        streams_per_container: u32::try_from(streams?).ok()?,
        reads_per_minute: u32::try_from(reads?).ok()?,
        body_bytes: usize::try_from(body? << 10).ok()?,
        bodies_per_container: u32::try_from(bodies?).ok()?,
        redact_fields: redact_fields?,
        redact_parameters: redact_parameters?,
    };
    if config.body_bytes > config.body_bytes_max() {
        let most = config.body_bytes_max() >> 10;
        let rule = format!("must be at most an eighth of logs.kib_per_container, which is {most}");
        problem(reader, "logs.body_kib", &rule);
    }
    if u64::from(config.bodies_per_container) > config.bodies_max() {
        let most = config.bodies_max();
        let rule = format!(
            "with two bodies of logs.body_kib each must fit into logs.kib_per_container: at most {most}"
        );
        problem(reader, "logs.bodies_per_container", &rule);
    }
    Some(config)
}

fn problem(reader: &mut Reader<'_>, key: &str, rule: &str) {
    let origin = reader.origin_of(key);
    reader.problem(&origin, key, rule);
}

fn names(reader: &mut Reader<'_>, key: &str) -> Option<Vec<String>> {
    reader.key(key, |value| {
        let rule = || "must be at most 100 names, such as [\"x-pin\"]".to_owned();
        let name = |value: &Value| {
            let name = value.as_str().filter(|name| (1..=100).contains(&name.len()));
            name.map(str::to_owned).ok_or_else(rule)
        };
        match value.as_array() {
            Some(list) if list.len() <= NAMES_MAX => list.iter().map(name).collect(),
            Some(_) => Err(rule()),
            None => Ok(vec![name(value)?]),
        }
    })
}
