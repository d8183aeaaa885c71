//! The `OpenAPI` document as a judge: every answer that a test sees must be as it says.

use std::{collections::HashMap, sync::Mutex};

use jsonschema::Validator;
use serde_json::{Value, json};

/// The fields of a body with their schemas.
type Fields = Vec<(String, Value)>;

/// The document of one router.
pub(crate) struct Document {
    text: Value,
    /// One for each schema that an answer has been judged by.
    validators: Mutex<HashMap<String, Validator>>,
}

impl Document {
    pub(crate) fn new(document: Value) -> Self {
        Self { text: document, validators: Mutex::default() }
    }

    /// Panics if the document does not allow this answer. Paths that it does not list are those
    /// that do not exist or are not here yet; they are not its business.
    pub(crate) fn check(&self, method: &str, path: &str, status: u16, body: &Value) {
        let Some(operation) = self.operation(method, path) else { return };
        let responses = &operation["responses"];
        let class = format!("{}XX", status / 100);
        let response = responses.get(status.to_string()).or_else(|| responses.get(&class));
        let response =
            response.unwrap_or_else(|| panic!("{method} {path}: {status} is not in the document"));
        let schema = &response["content"]["application/json"]["schema"];
        let mut validators = self.validators.lock().unwrap();
        let validator = validators.entry(schema.to_string()).or_insert_with(|| {
            let mut schema = schema.clone();
            schema["components"] = self.text["components"].clone();
            jsonschema::draft202012::new(&schema)
                .unwrap_or_else(|error| panic!("{method} {path}: no schema: {error}"))
        });
        let errors: Vec<String> = validator
            .iter_errors(body)
            .map(|error| format!("{} at {}", error, error.instance_path()))
            .collect();
        drop(validators);
        assert!(errors.is_empty(), "{method} {path} {status}: {errors:#?}\nanswer: {body}");
    }

    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let path = path.split('?').next().unwrap_or(path);
        let paths = self.text["paths"].as_object().unwrap();
        let item = paths.get(path).or_else(|| {
            let (_, item) = paths.iter().find(|(template, _)| matches(template, path))?;
            Some(item)
        })?;
        item.get(method.to_lowercase())
    }

    /// Every operation: method, path and a body with the fields that it needs, as far as their schemas
    /// tell what would do.
    pub(crate) fn operations(&self) -> Vec<(String, String, Value)> {
        let mut operations = Vec::new();
        for (path, item) in self.text["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                let needed = schema["required"].as_array().into_iter().flatten();
                let body = needed.map(|name| {
                    let name = name.as_str().unwrap();
                    (name.to_owned(), sample(&schema["properties"][name]))
                });
                operations.push((method.to_uppercase(), path.clone(), body.collect()));
            }
        }
        operations
    }

    /// Every operation with a body that has no fields: method and path.
    pub(crate) fn without_fields(&self) -> Vec<(String, String)> {
        let mut bare = Vec::new();
        for (path, item) in self.text["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                let none = schema["properties"].as_object().is_none_or(serde_json::Map::is_empty);
                if none && schema["additionalProperties"] == json!(false) {
                    bare.push((method.to_uppercase(), path.clone()));
                }
            }
        }
        bare
    }

    /// Every operation with a body: method, path and the names of its fields with their schemas.
    pub(crate) fn bodies(&self) -> Vec<(String, String, Fields)> {
        let mut bodies = Vec::new();
        for (path, item) in self.text["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                let Some(fields) = schema["properties"].as_object() else { continue };
                assert_eq!(schema["additionalProperties"], json!(false), "{method} {path}");
                let fields =
                    fields.iter().map(|(name, field)| (name.clone(), field.clone())).collect();
                bodies.push((method.to_uppercase(), path.clone(), fields));
            }
        }
        bodies
    }
}

/// A value of this schema.
fn sample(schema: &Value) -> Value {
    if schema.get("pattern").is_some() {
        return json!("64a2c4e9f3d5e2b6a8c7d8e1");
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    let kind = schema["type"].as_array().map_or(&schema["type"], |kinds| &kinds[0]);
    match kind.as_str() {
        Some("boolean") => json!(true),
        Some("integer") => json!(1),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("sample-text"),
    }
}

fn matches(template: &str, path: &str) -> bool {
    let (mut wanted, mut got) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), got.next()) {
            (None, None) => return true,
            (Some(wanted), Some(got)) if wanted == got => {}
            (Some(wanted), Some(got)) if wanted.starts_with('{') && !got.is_empty() => {}
            _ => return false,
        }
    }
}
