//! Reading the JSON forms: every broken rule is collected, under the name of its field.

use serde_json::{Map, Value};

use crate::FieldError;

/// The most errors that one answer names; what is broken beyond that is found at the next try.
const ERRORS_MAX: usize = 100;

/// Collects what is wrong while a value is read.
#[derive(Default)]
pub(crate) struct Errors(Vec<FieldError>);

impl Errors {
    /// Notes a broken rule; its answer is what reading the field gives.
    pub(crate) fn note<T>(&mut self, field: &str, rule: &str) -> Option<T> {
        if self.0.len() < ERRORS_MAX {
            self.0.push(FieldError::new(field, rule));
        }
        None
    }

    /// The value, or notes why there is none.
    pub(crate) fn take<T>(&mut self, result: Result<T, FieldError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => self.note(&error.field, &error.rule),
        }
    }

    /// Whether nothing was wrong so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was read, if nothing was wrong with it.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            Some(_) | None => Err(self.0),
        }
    }

    /// An object that has no other fields than those of `known`.
    pub(crate) fn object<'v>(
        &mut self,
        field: &str,
        value: &'v Value,
        known: &[&str],
    ) -> Option<&'v Map<String, Value>> {
        let map = self.map(field, value)?;
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            let key = key.chars().take(64).collect::<String>();
            self.note::<()>(&join(field, &key), "is no field that this has");
        }
        Some(map)
    }

    /// An object with names for keys.
    pub(crate) fn map<'v>(
        &mut self,
        field: &str,
        value: &'v Value,
    ) -> Option<&'v Map<String, Value>> {
        value.as_object().or_else(|| self.note(field, "must be an object"))
    }

    /// A text of `min` to `max` octets.
    pub(crate) fn text<'v>(
        &mut self,
        field: &str,
        value: Option<&'v Value>,
        (min, max): (usize, usize),
    ) -> Option<&'v str> {
        let Some(value) = value else { return self.note(field, "is required") };
        match value.as_str() {
            Some(text) if (min..=max).contains(&text.len()) => Some(text),
            Some(_) | None => self.note(field, &format!("must be a text of {min} to {max} octets")),
        }
    }

    /// True or false; nothing when it is absent.
    pub(crate) fn bool(&mut self, field: &str, value: Option<&Value>) -> Option<bool> {
        match value {
            None => None,
            Some(Value::Bool(value)) => Some(*value),
            Some(_) => self.note(field, "must be true or false"),
        }
    }
}

/// The name of a field of an object; that of the outermost object is empty.
pub(crate) fn join(field: &str, key: &str) -> String {
    if field.is_empty() { key.to_owned() } else { format!("{field}.{key}") }
}

/// Whether a text may be the name of a header field or a cookie: 1 to 256 octets of a token (RFC
/// 9110, section 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    let octet = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet);
    (1..=256).contains(&text.len()) && text.bytes().all(octet)
}
