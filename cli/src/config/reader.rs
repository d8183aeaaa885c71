//! Reads typed values out of layered settings and collects everything that is wrong with them.
//!
//! serde stops at the first error; a person who writes a configuration wants all of them at once.
//! So every key is read on its own, a bad one is noted with its origin, and reading goes on.

use std::{
    collections::BTreeSet,
    fmt::Display,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use figment::{
    Figment, Metadata, Provider, Source,
    value::{Tag, Value},
};
use ipnet::IpNet;

/// One thing that is wrong: where it was said, which key, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The file, variable or flag.
    pub(crate) origin: String,
    /// `section.key`.
    pub(crate) key: String,
    /// What would be right.
    pub(crate) rule: String,
}

impl Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.origin, self.key, self.rule)
    }
}

/// One key in effect.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    /// `section.key`.
    pub(crate) key: String,
    /// The value as TOML would write it.
    pub(crate) value: String,
    /// The file, variable or flag that said it.
    pub(crate) origin: String,
}

/// The name that a provider of built-in values carries.
pub(crate) const DEFAULT_ORIGIN: &str = "default";
/// The name that the provider of `--set` carries.
pub(crate) const FLAG_ORIGIN: &str = "--set";

/// The one section that is a list; whoever reads it looks at its keys.
const LIST: &str = "servers";

/// Reads keys and remembers problems.
pub(crate) struct Reader<'f> {
    figment: &'f Figment,
    /// What stands before its keys where they are shown: nothing, or `servers[0].`.
    above: String,
    effective: Vec<Effective>,
    problems: Vec<Problem>,
}

impl<'f> Reader<'f> {
    pub(crate) fn new(figment: &'f Figment) -> Self {
        Self { figment, above: String::new(), effective: Vec::new(), problems: Vec::new() }
    }

    /// The same for what stands below a key of the operator's.
    pub(super) fn below(self, key: &str) -> Self {
        Self { above: format!("{key}."), ..self }
    }

    /// Ends another reader of a part and takes over what it has found.
    pub(super) fn take(&mut self, part: Reader<'_>) {
        let (mut effective, mut problems) = part.finish();
        self.effective.append(&mut effective);
        self.problems.append(&mut problems);
    }

    /// A section that is a list, if there is one, and where it was said.
    pub(super) fn list(&mut self, section: &str, form: &str) -> Option<(Vec<Value>, String)> {
        let value = self.figment.find_value(section).ok()?;
        let origin = self.origin(value.tag(), section);
        if let Value::Array(_, list) = value {
            return Some((list, origin));
        }
        self.problem(&origin, section, format!("must be a list of tables, {form}"));
        None
    }

    /// Notes a value that was read by other means.
    pub(super) fn effective(&mut self, key: &str, value: &str, origin: &str) {
        let (key, value, origin) = (key.to_owned(), format!("{value:?}"), origin.to_owned());
        self.effective.push(Effective { key, value, origin });
    }

    /// Ends reading: what is in effect, and every problem, unknown keys included. Every key that
    /// was read counts as known.
    pub(crate) fn finish(mut self) -> (Vec<Effective>, Vec<Problem>) {
        let known: BTreeSet<&str> = self.effective.iter().map(|found| found.key.as_str()).collect();
        let mut unknown = Vec::new();
        match self.figment.data() {
            Err(error) => unknown.push(Problem {
                origin: "configuration".to_owned(),
                key: "-".to_owned(),
                rule: error.to_string(),
            }),
            Ok(profiles) => {
                for (section, value) in profiles.into_values().flatten() {
                    let keys = match value {
                        _ if section == LIST => continue,
                        Value::Dict(_, keys) => keys,
                        Value::String(tag, _)
                        | Value::Char(tag, _)
                        | Value::Bool(tag, _)
                        | Value::Num(tag, _)
                        | Value::Empty(tag, _)
                        | Value::Array(tag, _) => {
                            let origin = self.origin(tag, &section);
                            let rule = "every key stands in a section".to_owned();
                            unknown.push(Problem { origin, key: section, rule });
                            continue;
                        }
                    };
                    for (key, value) in keys {
                        let key = format!("{}{section}.{key}", self.above);
                        if !known.contains(key.as_str()) {
                            let rule = match closest(&key, &known) {
                                Some(near) => format!("there is no such key; did you mean {near}?"),
                                None => "there is no such key".to_owned(),
                            };
                            let origin = self.origin(value.tag(), &key);
                            unknown.push(Problem { origin, key, rule });
                        }
                    }
                }
            }
        }
        self.problems.extend(unknown);
        (self.effective, self.problems)
    }

    /// Reads one key with `parse`; its error says what would be right.
    pub(crate) fn key<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let found = self.figment.find_value(key);
        let key = &format!("{}{key}", self.above);
        let (value, origin) = match found {
            Ok(value) => {
                let origin = self.origin(value.tag(), key);
                (value, origin)
            }
            Err(error) => {
                self.problem("configuration", key, error.to_string());
                return None;
            }
        };
        self.effective.push(Effective {
            key: key.to_owned(),
            value: show(&value),
            origin: origin.clone(),
        });
        match parse(&value) {
            Ok(parsed) => Some(parsed),
            Err(rule) => {
                self.problem(&origin, key, format!("{rule}, found {}", show(&value)));
                None
            }
        }
    }

    /// Notes a problem that only several keys together have.
    pub(crate) fn problem(&mut self, origin: &str, key: &str, rule: impl Into<String>) {
        self.problems.push(Problem {
            origin: origin.to_owned(),
            key: key.to_owned(),
            rule: rule.into(),
        });
    }

    /// The origin of a key that was read.
    pub(crate) fn origin_of(&self, key: &str) -> String {
        let found = self.effective.iter().find(|found| found.key == key);
        found.map_or_else(|| DEFAULT_ORIGIN.to_owned(), |found| found.origin.clone())
    }

    /// Text that `T` reads.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&mut self, key: &str) -> Option<T> {
        self.key(key, |value| text(value)?.parse::<T>().map_err(|error| error.to_string()))
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        self.key(key, |value| {
            let text = text(value)?;
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, meaning)| *meaning).ok_or_else(|| {
                let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
                format!("must be {}", words.join(" or "))
            })
        })
    }

    /// A whole number within bounds.
    pub(crate) fn number(&mut self, key: &str, min: u64, max: u64) -> Option<u64> {
        self.key(key, |value| number(value, min, max))
    }

    /// A whole number within bounds, or `"auto"` for what the program makes of it.
    pub(crate) fn number_or(&mut self, key: &str, min: u64, max: u64, auto: u64) -> Option<u64> {
        self.key(key, |value| match value.as_str() {
            Some("auto") => Ok(auto),
            Some(_) | None => {
                number(value, min, max).map_err(|rule| format!("{rule}, or \"auto\""))
            }
        })
    }

    /// A whole number from 1 to `max`, or `"off"`, which is 0.
    pub(crate) fn number_or_off(&mut self, key: &str, max: u64) -> Option<u64> {
        self.key(key, |value| match value.as_str() {
            Some("off") => Ok(0),
            Some(_) | None => number(value, 1, max).map_err(|rule| format!("{rule}, or \"off\"")),
        })
    }

    /// Seconds within bounds.
    pub(crate) fn seconds(&mut self, key: &str, min: u64, max: u64) -> Option<Duration> {
        self.number(key, min, max).map(Duration::from_secs)
    }

    /// An absolute path.
    pub(crate) fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.key(key, |value| {
            let path = PathBuf::from(text(value)?);
            if path.is_absolute() { Ok(path) } else { Err("must be an absolute path".to_owned()) }
        })
    }

    /// Socket addresses, one or a list; `port: 0` is for tests and means any.
    pub(crate) fn addresses(&mut self, key: &str) -> Option<Vec<SocketAddr>> {
        self.key(key, |value| {
            let rule = "must be addresses with ports, such as [\"127.0.0.1:8443\", \"[::1]:8443\"]";
            let parse = |value: &Value| {
                value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| rule.to_owned())
            };
            match value {
                Value::Array(_, list) => list.iter().map(parse).collect(),
                Value::String(..)
                | Value::Char(..)
                | Value::Bool(..)
                | Value::Num(..)
                | Value::Empty(..)
                | Value::Dict(..) => Ok(vec![parse(value)?]),
            }
        })
    }

    /// Networks, one or a list; an address alone is a network of one.
    pub(crate) fn networks(&mut self, key: &str) -> Option<Vec<IpNet>> {
        self.key(key, |value| {
            let rule = "must be networks or addresses, such as [\"10.0.0.0/8\", \"2001:db8::1\"]";
            let parse = |value: &Value| {
                let text = value.as_str().ok_or_else(|| rule.to_owned())?;
                let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
                // What stands behind the prefix would not count, and was meant to.
                net.filter(|net: &IpNet| net.addr() == net.network()).ok_or_else(|| rule.to_owned())
            };
            match value {
                Value::Array(_, list) => list.iter().map(parse).collect(),
                Value::String(..)
                | Value::Char(..)
                | Value::Bool(..)
                | Value::Num(..)
                | Value::Empty(..)
                | Value::Dict(..) => Ok(vec![parse(value)?]),
            }
        })
    }

    fn origin(&self, tag: Tag, key: &str) -> String {
        self.figment
            .get_metadata(tag)
            .map_or_else(|| DEFAULT_ORIGIN.to_owned(), |metadata| name_origin(metadata, key))
    }
}

fn name_origin(metadata: &Metadata, key: &str) -> String {
    if let Some(Source::File(path)) = &metadata.source {
        return display(path);
    }
    if metadata.name.contains("environment") {
        return format!("GANTRY_{}", key.to_uppercase().replace('.', "__"));
    }
    metadata.name.to_string()
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// Text; numbers and booleans from the environment are text again.
fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(_, text) => Ok(text.clone()),
        Value::Char(_, one) => Ok(one.to_string()),
        Value::Bool(_, word) => Ok(word.to_string()),
        Value::Num(..) | Value::Empty(..) | Value::Dict(..) | Value::Array(..) => {
            match integer(value) {
                Some(number) => Ok(number.to_string()),
                None => Err("must be text".to_owned()),
            }
        }
    }
}

fn number(value: &Value, min: u64, max: u64) -> Result<u64, String> {
    integer(value)
        .and_then(|number| u64::try_from(number).ok())
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("must be a whole number from {min} to {max}"))
}

/// A whole number, whichever width and sign the layer gave it.
pub(super) fn integer(value: &Value) -> Option<i128> {
    value.to_i128().or_else(|| value.to_u128().and_then(|number| i128::try_from(number).ok()))
}

/// The value as TOML would write it, near enough for reading.
fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, one) => format!("\"{one}\""),
        Value::Bool(_, word) => word.to_string(),
        Value::Num(..) => integer(value).map_or_else(
            || value.to_f64().map(|number| number.to_string()).unwrap_or_default(),
            |number| number.to_string(),
        ),
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "a table".to_owned(),
        Value::Array(_, list) => {
            format!("[{}]", list.iter().map(show).collect::<Vec<_>>().join(", "))
        }
    }
}

/// The known key that differs least from `key`, if it is near enough to be meant.
fn closest<'k>(key: &str, known: &BTreeSet<&'k str>) -> Option<&'k str> {
    let scored = known.iter().map(|candidate| (distance(key, candidate), *candidate));
    scored.min().filter(|(distance, _)| *distance <= 3).map(|(_, candidate)| candidate)
}

/// How many letters must be put in, taken out or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, left) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(row.first_mut().unwrap_or(&mut 0), at + 1);
        let mut previous = at + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(&b) {
            let change = diagonal + usize::from(left != *right);
            diagonal = *cell;
            *cell = change.min(diagonal + 1).min(previous + 1);
            previous = *cell;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, want) in [
            ("", "", 0),
            ("edge.https", "edge.https", 0),
            ("edge.httpz", "edge.https", 1),
            ("edge.htps", "edge.https", 1),
            ("a", "bcd", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), want, "{a} to {b}");
        }
    }
}
