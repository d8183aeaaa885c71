//! Reading documents: what a client may write, with every broken rule at once.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Access, Document, Fallback, GroupName, Method, Program};
use crate::{
    FieldError,
    json::{Errors, join},
};

/// The fields of a document that its caller looks at: what it belongs to, the hooks, and what every
/// answer adds to a document, so that a client may send back what it got.
const OF_THE_CALLER: [&str; 6] =
    ["project", "container", "hooks", "schema_version", "file_version", "etag"];

impl Document {
    /// Reads the document that a client sends. `default` is deny when absent; `project`,
    /// `container` and `hooks` are for the caller to read.
    ///
    /// Permissions may name the groups of this document and, for a container's, of `project`'s. A
    /// plain password is stored hashed; `new_salt` makes the salt where the client gives none.
    pub fn parse(
        value: &Value,
        project: Option<&Self>,
        new_salt: &mut dyn FnMut() -> String,
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = Errors::default();
        let document = read(&mut errors, value, new_salt);
        if let Some(document) = &document {
            let strangers = document.permissions.keys().filter(|name| {
                let known = |document: &Self| document.groups.contains_key(name);
                !known(document) && !project.is_some_and(known)
            });
            for name in strangers {
                let field = format!("permissions.{}", name.as_str());
                errors.note::<()>(&field, "no group has this name");
            }
            if errors.is_empty() {
                errors.take(document.check());
            }
        }
        errors.finish(document)
    }

    /// Reads what [`Document::to_json`] wrote. Groups that permissions name may be gone by now,
    /// because a project's document has changed since.
    pub fn from_stored(value: &Value) -> Result<Self, Vec<FieldError>> {
        let mut errors = Errors::default();
        // Stored passwords are hashed and have their salts.
        let document = read(&mut errors, value, &mut String::new);
        errors.finish(document)
    }

    /// Checks the bounds of the whole: what a small write must do after it has changed a part.
    pub fn check(&self) -> Result<(), FieldError> {
        if self.groups.len() > Self::GROUPS_MAX || self.permissions.len() > 2 * Self::GROUPS_MAX {
            return Err(FieldError::new("groups", "must be at most 64 groups"));
        }
        if self.groups.values().any(|methods| !(1..=Self::METHODS_MAX).contains(&methods.len())) {
            return Err(FieldError::new("groups", "each must have 1 to 16 ways to belong to it"));
        }
        if self.to_json().to_string().len() > Self::LEN_MAX {
            return Err(FieldError::new("groups", "the document must be at most 256 KiB"));
        }
        Ok(())
    }
}

fn read(
    errors: &mut Errors,
    value: &Value,
    new_salt: &mut dyn FnMut() -> String,
) -> Option<Document> {
    let mut known = vec!["groups", "permissions", "default", "enable_proxy"];
    known.extend(OF_THE_CALLER);
    let map = errors.object("", value, &known)?;
    let default = match map.get("default") {
        None => Fallback::Deny,
        Some(value) => errors.take(Fallback::from_json("default", value)).unwrap_or_default(),
    };
    let enable_proxy = errors.bool("enable_proxy", map.get("enable_proxy"));
    let groups = section(errors, map, "groups", Document::GROUPS_MAX).map(|section| {
        let group = |(name, value): (&String, &Value)| {
            let field = format!("groups.{name}");
            let name = errors.take(GroupName::parse(&group_field("groups", name), name))?;
            Some((name, read_group(errors, &field, value, new_salt)))
        };
        section.iter().filter_map(group).collect()
    });
    let permissions =
        section(errors, map, "permissions", 2 * Document::GROUPS_MAX).map(|section| {
            let row = |(name, value): (&String, &Value)| {
                let field = group_field("permissions", name);
                let name = errors.take(GroupName::parse(&field, name))?;
                Some((name, read_cells(errors, &field, value)))
            };
            section.iter().filter_map(row).collect()
        });
    Some(Document { groups: groups?, permissions: permissions?, default, enable_proxy })
}

/// The name of a group's field; a name too long to be one is cut.
fn group_field(section: &str, name: &str) -> String {
    format!("{section}.{}", name.chars().take(64).collect::<String>())
}

/// One of the two parts that every document has.
fn section<'v>(
    errors: &mut Errors,
    map: &'v Map<String, Value>,
    key: &str,
    count_max: usize,
) -> Option<&'v Map<String, Value>> {
    let Some(value) = map.get(key) else { return errors.note(key, "is required") };
    let section = errors.map(key, value)?;
    if section.len() > count_max {
        return errors.note(key, &format!("must hold at most {count_max} groups"));
    }
    Some(section)
}

/// One way, or an array of ways of which one is enough.
fn read_group(
    errors: &mut Errors,
    field: &str,
    value: &Value,
    new_salt: &mut dyn FnMut() -> String,
) -> Vec<Method> {
    let Some(ways) = value.as_array() else {
        return Method::read(errors, field, value, new_salt).into_iter().collect();
    };
    if !(1..=Document::METHODS_MAX).contains(&ways.len()) {
        errors.note::<()>(field, "must be one object, or an array of 1 to 16");
        return Vec::new();
    }
    let way = |(at, value)| Method::read(errors, &format!("{field}[{at}]"), value, new_salt);
    ways.iter().enumerate().filter_map(way).collect()
}

fn read_cells(errors: &mut Errors, field: &str, value: &Value) -> BTreeMap<Program, Access> {
    let mut cells = BTreeMap::new();
    for (name, value) in errors.map(field, value).into_iter().flatten() {
        let field = join(field, &name.chars().take(64).collect::<String>());
        let Some(program) = errors.take(Program::parse(&field, name)) else { continue };
        let Some(access) = errors.take(Access::from_json(&field, program, value)) else { continue };
        if cells.insert(program, access).is_some() {
            let rule = format!("names the same service as another cell of the group: {program}");
            errors.note::<()>(&field, &rule);
        }
    }
    cells
}

impl Fallback {
    /// Reads `"allow"` or `"deny"`.
    pub fn from_json(field: &str, value: &Value) -> Result<Self, FieldError> {
        match value.as_str() {
            Some("allow") => Ok(Self::Allow),
            Some("deny") => Ok(Self::Deny),
            Some(_) | None => Err(FieldError::new(field, "must be \"allow\" or \"deny\"")),
        }
    }
}

impl Access {
    /// The most numbers that one cell may list.
    pub const NUMBERS_MAX: usize = 256;

    /// Reads a cell of this program: `true`, `false`, `"*"`, a number, an array of numbers, or
    /// `"a-b"`.
    pub fn from_json(field: &str, program: Program, value: &Value) -> Result<Self, FieldError> {
        let error = |rule: &str| FieldError::new(field, rule);
        match value {
            Value::Bool(true) => Ok(Self::All),
            Value::Bool(false) => Ok(Self::None),
            _ if program.is_boolean() => Err(error("must be true or false")),
            Value::String(text) if text == "*" => Ok(Self::Star),
            _ if !program.has_numbers() => Err(error("must be true, false or \"*\"")),
            Value::Number(_) => Ok(Self::Number(number(field, program, value)?)),
            Value::Array(these) if (1..=Self::NUMBERS_MAX).contains(&these.len()) => {
                let these = these.iter().map(|value| number(field, program, value));
                Ok(Self::Numbers(these.collect::<Result<_, _>>()?))
            }
            Value::Array(_) => Err(error("must list 1 to 256 numbers")),
            Value::String(text) => {
                let range = || {
                    let (from, to) = text.split_once('-')?;
                    let (from, to) = (end(program, from)?, end(program, to)?);
                    (from <= to).then_some(Self::Range(from, to))
                };
                let rule = "must be true, false, \"*\", a number, an array of numbers, or a range \
                            such as \"3000-3999\"";
                range().ok_or_else(|| error(rule))
            }
            Value::Null | Value::Object(_) => {
                Err(error("must be true, false, \"*\", a number, an array of numbers, or a range"))
            }
        }
    }
}

fn number(field: &str, program: Program, value: &Value) -> Result<u16, FieldError> {
    let min = program.number_min();
    let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
    number.filter(|number| *number >= min).ok_or_else(|| {
        FieldError::new(field, format!("must be a whole number from {min} to {}", u16::MAX))
    })
}

/// One end of a range.
fn end(program: Program, text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number >= program.number_min())
}
