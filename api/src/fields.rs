//! The fields of a request's JSON object, taken one by one.
//!
//! A derived deserialiser stops at the first mistake and names types of Rust. Here every field is
//! taken by name, each mistake is kept, and the client hears of all of them at once. A table names
//! the fields that a body may have; it refuses the unknown ones and is what the `OpenAPI` document
//! prints, so that the two cannot part.

use std::collections::BTreeMap;

use gantry_control::{ExpiresAt, Patch};
use gantry_model::{FieldError, Id, container::parse_realms};
use serde_json::{Map, Value};

use crate::problem::{Kind, Problem};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Text; the bounds count characters and are for the document, the value's type checks them.
    Text { min: usize, max: usize },
    /// One of some words.
    Word(&'static [&'static str]),
    /// 24 lower-case hexadecimal digits.
    Id,
    /// `true` or `false`.
    Flag,
    /// An integer from 0 to 4294967295.
    Count,
    /// A list of ids.
    Ids,
    /// A list of texts.
    Texts,
    /// A map from text to text.
    TextMap,
    /// A JSON object.
    Object,
    /// More than one type; the description says which.
    Mixed,
}

/// One field that a body may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) holds: Holds,
    pub(crate) required: bool,
    pub(crate) nullable: bool,
    pub(crate) about: &'static str,
}

impl Field {
    pub(crate) const fn new(name: &'static str, holds: Holds, about: &'static str) -> Self {
        Self { name, holds, required: false, nullable: false, about }
    }

    pub(crate) const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub(crate) const fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// What would be right, for the error message.
    fn wanted(&self) -> String {
        let listed;
        let wanted = match self.holds {
            Holds::Text { .. } => "a string",
            Holds::Word(words) => {
                listed = format!("one of {}", words.join(", "));
                &listed
            }
            Holds::Id => "an id: a string of 24 lower-case hexadecimal digits",
            Holds::Flag => "true or false",
            Holds::Count => "an integer from 0 to 4294967295",
            Holds::Ids => "an array of ids, each a string of 24 lower-case hexadecimal digits",
            Holds::Texts => "an array of strings",
            Holds::TextMap => "an object whose values are strings",
            Holds::Object => "an object",
            Holds::Mixed => self.about,
        };
        let or_null = if self.nullable { ", or null" } else { "" };
        format!("must be {wanted}{or_null}")
    }
}

/// What a client said about a field. Absent leaves things as they are, `null` clears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Given<T> {
    Absent,
    Null,
    Value(T),
}

impl<T> Given<T> {
    /// The same as a change of a field that can be emptied.
    pub(crate) fn patch(self) -> Patch<T> {
        match self {
            Self::Absent => Patch::Keep,
            Self::Null => Patch::Clear,
            Self::Value(value) => Patch::Set(value),
        }
    }

    /// The value; absent and `null` mean the same where there is nothing to clear yet.
    pub(crate) fn value(self) -> Option<T> {
        match self {
            Self::Absent | Self::Null => None,
            Self::Value(value) => Some(value),
        }
    }
}

/// One JSON object and the mistakes found in it so far.
#[derive(Debug)]
pub(crate) struct Fields {
    table: &'static [Field],
    object: Map<String, Value>,
    errors: Vec<FieldError>,
    unsupported: Vec<FieldError>,
}

impl Fields {
    /// Starts on an object: fields outside the table and missing required ones are mistakes.
    pub(crate) fn new(table: &'static [Field], object: Map<String, Value>) -> Self {
        let unknown = object
            .keys()
            .filter(|key| !table.iter().any(|field| field.name == key.as_str()))
            .map(|key| FieldError::new(key, "is not a known field"));
        let missing = table
            .iter()
            .filter(|field| field.required && !object.contains_key(field.name))
            .map(|field| FieldError::new(field.name, "is required"));
        let errors = unknown.chain(missing).collect();
        Self { table, object, errors, unsupported: Vec::new() }
    }

    /// Takes a field and reads it with `read`, which gives nothing for a wrong type.
    fn take<T>(&mut self, name: &str, read: impl FnOnce(Value) -> Option<T>) -> Given<T> {
        let Some(field) = self.table.iter().find(|field| field.name == name) else {
            debug_assert!(false, "{name} is not in the table of fields");
            return Given::Absent;
        };
        match self.object.remove(name) {
            None => Given::Absent,
            Some(Value::Null) if field.nullable => Given::Null,
            Some(value) => {
                if let Some(value) = read(value) {
                    return Given::Value(value);
                }
                self.errors.push(FieldError::new(name, field.wanted()));
                Given::Absent
            }
        }
    }

    pub(crate) fn text(&mut self, name: &str) -> Given<String> {
        self.take(name, |value| match value {
            Value::String(text) => Some(text),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => None,
        })
    }

    /// Takes text that `check` finds good, as text: the use case reads it again, but a client is to
    /// hear of all mistakes at once, those of type and those of value.
    pub(crate) fn checked(
        &mut self,
        name: &str,
        check: impl FnOnce(&str, &str) -> Result<(), FieldError>,
    ) -> Given<String> {
        match self.text(name) {
            Given::Value(text) => match check(name, &text) {
                Ok(()) => Given::Value(text),
                Err(error) => self.refuse(error),
            },
            other @ (Given::Absent | Given::Null) => other,
        }
    }

    /// Takes a list of ids, as texts.
    pub(crate) fn realms(&mut self, name: &str) -> Given<Vec<String>> {
        match self.texts(name) {
            Given::Value(texts) => match parse_realms(name, &texts) {
                Ok(_) => Given::Value(texts),
                Err(error) => self.refuse(error),
            },
            other @ (Given::Absent | Given::Null) => other,
        }
    }

    /// Takes a point in time: a text, or a number of seconds or milliseconds.
    pub(crate) fn expires_at(&mut self, name: &str) -> Given<ExpiresAt> {
        let read = self.mixed(name, |value| match value {
            Value::String(text) => Some(ExpiresAt::parse(name, &text)),
            Value::Number(number) => {
                number.as_i64().map(|number| Ok(ExpiresAt::from_number(number)))
            }
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        });
        match read {
            Given::Absent => Given::Absent,
            Given::Null => Given::Null,
            Given::Value(Ok(at)) => Given::Value(at),
            Given::Value(Err(error)) => self.refuse(error),
        }
    }

    pub(crate) fn id<K>(&mut self, name: &str) -> Given<Id<K>> {
        self.take(name, |value| value.as_str().and_then(|text| text.parse().ok()))
    }

    /// Takes one of some words, those that `read` knows.
    pub(crate) fn word<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Option<T>) -> Given<T> {
        self.take(name, |value| value.as_str().and_then(read))
    }

    pub(crate) fn flag(&mut self, name: &str) -> Given<bool> {
        self.take(name, |value| value.as_bool())
    }

    pub(crate) fn count(&mut self, name: &str) -> Given<u32> {
        self.take(name, |value| value.as_u64().and_then(|count| u32::try_from(count).ok()))
    }

    /// Takes a list of texts, still to be checked one by one.
    pub(crate) fn texts(&mut self, name: &str) -> Given<Vec<String>> {
        self.take(name, |value| match value {
            Value::Array(items) => {
                items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => None,
        })
    }

    /// Takes a map; each value that is no text is a mistake of its own.
    pub(crate) fn text_map(&mut self, name: &str) -> Given<BTreeMap<String, String>> {
        let object = match self.object(name) {
            Given::Absent => return Given::Absent,
            Given::Null => return Given::Null,
            Given::Value(object) => object,
        };
        let mut texts = BTreeMap::new();
        let before = self.errors.len();
        for (key, value) in object {
            if let Value::String(text) = value {
                texts.insert(key, text);
            } else {
                let field = format!("{name}.{key}");
                self.errors.push(FieldError::new(field, "must be a string"));
            }
        }
        if self.errors.len() == before { Given::Value(texts) } else { Given::Absent }
    }

    pub(crate) fn object(&mut self, name: &str) -> Given<Map<String, Value>> {
        self.take(name, |value| match value {
            Value::Object(object) => Some(object),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => None,
        })
    }

    /// Takes a field of more than one type.
    pub(crate) fn mixed<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Given<T> {
        self.take(name, read)
    }

    /// Checks text that means nothing here: its type, and its bounds in the table, which no value's type
    /// checks.
    pub(crate) fn ignore_text(&mut self, name: &str) {
        let holds = self.table.iter().find(|field| field.name == name).map(|field| field.holds);
        let (Given::Value(text), Some(Holds::Text { min, max })) = (self.text(name), holds) else {
            return;
        };
        if !(min..=max).contains(&text.chars().count()) {
            let rule = format!("must have {min} to {max} characters");
            self.errors.push(FieldError::new(name, rule));
        }
    }

    /// A flag that clients send although it is not offered: `neutral` and absence are accepted.
    pub(crate) fn only(&mut self, name: &str, neutral: bool) {
        if self.flag(name).value().is_some_and(|given| given != neutral) {
            self.unsupported(name, format!("is not offered yet; send {neutral} or leave it out"));
        }
    }

    /// Notes that a value is understood but belongs to something not built yet.
    pub(crate) fn unsupported(&mut self, name: &str, rule: impl Into<String>) {
        self.unsupported.push(FieldError::new(name, rule));
    }

    /// Takes every field of the table that is of the right type, for a reader that looks into them.
    pub(crate) fn known(&mut self) -> Map<String, Value> {
        let mut known = Map::new();
        for field in self.table {
            let fits = |value: &Value| match field.holds {
                Holds::Text { .. } => value.is_string(),
                Holds::Word(words) => value.as_str().is_some_and(|text| words.contains(&text)),
                Holds::Id => value.as_str().is_some_and(|text| text.parse::<Id<()>>().is_ok()),
                Holds::Flag => value.is_boolean(),
                Holds::Count => value.as_u64().is_some_and(|count| u32::try_from(count).is_ok()),
                Holds::Ids | Holds::Texts => {
                    value.as_array().is_some_and(|items| items.iter().all(Value::is_string))
                }
                Holds::TextMap | Holds::Object => value.is_object(),
                Holds::Mixed => true,
            };
            if let Given::Value(value) = self.take(field.name, |value| Some(value).filter(fits)) {
                known.insert(field.name.to_owned(), value);
            }
        }
        known
    }

    /// Adds a mistake; gives `Absent`, so that reading goes on.
    pub(crate) fn refuse<T>(&mut self, error: FieldError) -> Given<T> {
        self.errors.push(error);
        Given::Absent
    }

    /// Whether no mistake was found so far.
    pub(crate) fn is_right(&self) -> bool {
        self.errors.is_empty()
    }

    /// Adds several mistakes.
    pub(crate) fn refuse_all(&mut self, errors: impl IntoIterator<Item = FieldError>) {
        self.errors.extend(errors);
    }

    /// Ends the reading: all mistakes at once, or what was read. `read` is absent only when a
    /// required field was missing or wrong, which is among the mistakes.
    pub(crate) fn finish<T>(self, read: Option<T>) -> Result<T, Problem> {
        self.finish_as(Kind::Invalid, read)
    }

    /// As [`Fields::finish`], with another kind of refusal.
    pub(crate) fn finish_as<T>(self, kind: Kind, read: Option<T>) -> Result<T, Problem> {
        if !self.errors.is_empty() {
            return Err(Problem::fields(kind, &self.errors));
        }
        if !self.unsupported.is_empty() {
            return Err(Problem::fields(Kind::NotImplemented, &self.unsupported));
        }
        read.ok_or_else(|| Problem::new(Kind::Invalid, "a required field is missing"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    static TABLE: [Field; 6] = [
        Field::new("name", Holds::Text { min: 3, max: 100 }, "").required(),
        Field::new("color", Holds::Text { min: 3, max: 7 }, ""),
        Field::new("comment", Holds::Text { min: 0, max: 16_000 }, "").nullable(),
        Field::new("count", Holds::Count, "").nullable(),
        Field::new("flag", Holds::Flag, ""),
        Field::new("vars", Holds::TextMap, ""),
    ];

    fn fields(value: &Value) -> Fields {
        Fields::new(&TABLE, value.as_object().unwrap().clone())
    }

    fn read(value: &Value) -> Result<Option<Given<String>>, Vec<(String, String)>> {
        let mut fields = fields(value);
        let name = fields.text("name").value();
        fields.ignore_text("color");
        let comment = fields.text("comment");
        fields.count("count").value();
        fields.flag("flag").value();
        fields.text_map("vars").value();
        let errors: Vec<_> =
            fields.errors.iter().map(|error| (error.field.clone(), error.rule.clone())).collect();
        match fields.finish(name) {
            Ok(_) => Ok(Some(comment)),
            Err(problem) => {
                assert_eq!(problem.kind(), Kind::Invalid);
                Err(errors)
            }
        }
    }

    #[test]
    fn every_mistake_of_a_body_is_named_at_once() {
        let body = json!({
            "color": 5, "comment": [], "count": -1, "flag": "true", "vars": {"A": 1, "B": "b"},
            "colour": "#fff",
        });
        let want = [
            ("colour", "is not a known field"),
            ("name", "is required"),
            ("color", "must be a string"),
            ("comment", "must be a string, or null"),
            ("count", "must be an integer from 0 to 4294967295, or null"),
            ("flag", "must be true or false"),
            ("vars.A", "must be a string"),
        ]
        .map(|(field, rule)| (field.to_owned(), rule.to_owned()));
        assert_eq!(read(&body), Err(want.to_vec()));
    }

    #[test]
    fn absent_null_and_a_value_are_three_things() {
        assert_eq!(read(&json!({"name": "n"})), Ok(Some(Given::Absent)));
        assert_eq!(read(&json!({"name": "n", "comment": null})), Ok(Some(Given::Null)));
        let given = Given::Value("c".to_owned());
        assert_eq!(read(&json!({"name": "n", "comment": "c"})), Ok(Some(given)));
    }

    #[test]
    fn null_is_a_wrong_type_where_there_is_nothing_to_clear() {
        let want = vec![("color".to_owned(), "must be a string".to_owned())];
        assert_eq!(read(&json!({"name": "n", "color": null})), Err(want));
    }

    #[test]
    fn what_is_ignored_has_bounds_all_the_same() {
        assert_eq!(read(&json!({"name": "n", "color": "#fff"})), Ok(Some(Given::Absent)));
        for color in ["#f", "#1234567"] {
            let want = vec![("color".to_owned(), "must have 3 to 7 characters".to_owned())];
            assert_eq!(read(&json!({"name": "n", "color": color})), Err(want), "{color}");
        }
    }

    #[test]
    fn numbers_that_are_no_counts_are_refused() {
        for number in [json!(-1), json!(1.5), json!(4_294_967_296_u64), json!("1"), json!(true)] {
            assert!(read(&json!({"name": "n", "count": number})).is_err(), "{number}");
        }
    }
}
