//! The document against the router, and the tables of fields against the readers.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{later, surface};

fn document() -> Value {
    let (_, document) = surface().finish();
    serde_json::to_value(document).unwrap()
}

fn documented(document: &Value) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            found.insert((path.clone(), method.to_uppercase()));
        }
    }
    found
}

#[test]
fn the_document_lists_exactly_what_the_router_serves() {
    let surface = surface();
    let served: BTreeSet<_> = surface
        .served()
        .iter()
        .map(|(path, method)| ((*path).to_owned(), method.as_str().to_owned()))
        .collect();
    assert_eq!(served.len(), surface.served().len(), "a route is served twice");
    assert_eq!(documented(&document()), served);
}

#[test]
fn what_is_not_here_yet_is_not_in_the_document() {
    let document = document();
    let paths: BTreeSet<_> = documented(&document).into_iter().map(|(path, _)| path).collect();
    for path in later::paths() {
        assert!(!paths.contains(path), "{path}");
    }
}

#[test]
fn the_document_is_openapi_3_1_with_unique_ids_and_no_dangling_references() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{method} {path}: {id} is used twice");
            for part in path.split('/').filter(|part| part.starts_with('{')) {
                let name = part.trim_matches(['{', '}']);
                let parameters = operation["parameters"].as_array().unwrap();
                let found = parameters
                    .iter()
                    .any(|parameter| parameter["name"] == name && parameter["in"] == "path");
                assert!(found, "{method} {path} does not describe {name}");
            }
        }
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        assert!(schemas.contains_key(name), "{reference} leads nowhere");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                found.push(reference.clone());
            }
            object.values().for_each(|inner| collect_references(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| collect_references(inner, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
