//! The `OpenAPI` document as a page for people: plain HTML with its own style, no scripts, nothing
//! from elsewhere, so that it shows under the strictest policy and without a network.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderValue;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

const STYLE: &str = include_str!("docs.css");

/// The page and what browsers may load for it.
pub(crate) struct Page {
    pub(crate) text: String,
    /// The value of `Content-Security-Policy`: the page's own style by its digest, and nothing else.
    pub(crate) policy: HeaderValue,
}

impl Page {
    /// The page of a document.
    pub(crate) fn new(document: &Value) -> Self {
        let digest = BASE64_STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        );
        let policy = HeaderValue::try_from(policy)
            .unwrap_or(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
        Self { text: page(document), policy }
    }
}

/// HTML under way: what is ours goes in as it is, everything else as text.
#[derive(Default)]
struct Html(String);

impl Html {
    fn raw(&mut self, ours: &'static str) -> &mut Self {
        self.0.push_str(ours);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                other => self.0.push(other),
            }
        }
        self
    }
}

/// The text at a pointer; empty if there is none.
fn text_at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn object_at<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    value.pointer(pointer).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn list_at<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn page(document: &Value) -> String {
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
    html.text(text_at(document, "/info/title")).raw(" API</title>");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>");
    html.raw(STYLE).raw("</style></head>\n<body><header><h1>");
    html.text(text_at(document, "/info/title")).raw(" API <small>");
    html.text(text_at(document, "/info/version")).raw("</small></h1><p>");
    html.text(text_at(document, "/info/description")).raw("</p><p>For programs: ");
    html.raw("<a href=\"/openapi.json\">/openapi.json</a> and ");
    html.raw("<a href=\"/openapi.yaml\">/openapi.yaml</a>.</p></header>\n<nav>");
    let tags: Vec<&str> = list_at(document, "/tags").map(|tag| text_at(tag, "/name")).collect();
    for tag in &tags {
        html.raw("<a href=\"#").text(&anchor(tag)).raw("\">").text(tag).raw("</a> ");
    }
    html.raw("<a href=\"#schemas\">Schemas</a></nav>\n<main>");
    for tag in tags {
        html.raw("<section id=\"").text(&anchor(tag)).raw("\"><h2>").text(tag).raw("</h2>\n");
        for (path, item) in object_at(document, "/paths") {
            for (method, operation) in object_at(item, "") {
                if text_at(operation, "/tags/0") == tag {
                    describe(&mut html, path, method, operation);
                }
            }
        }
        html.raw("</section>\n");
    }
    html.raw("<section id=\"schemas\"><h2>Schemas</h2>\n");
    for (name, schema) in object_at(document, "/components/schemas") {
        html.raw("<details id=\"schema-").text(name).raw("\"><summary><code>");
        html.text(name).raw("</code> ").text(text_at(schema, "/description")).raw("</summary>");
        shape(&mut html, schema);
        html.raw("</details>\n");
    }
    html.raw("</section></main></body></html>\n");
    html.0
}

fn anchor(tag: &str) -> String {
    tag.to_lowercase().replace(' ', "-")
}

fn describe(html: &mut Html, path: &str, method: &str, operation: &Value) {
    html.raw("<details id=\"").text(text_at(operation, "/operationId"));
    html.raw("\"><summary><b>").text(&method.to_uppercase()).raw("</b> <code>").text(path);
    html.raw("</code> ").text(text_at(operation, "/summary")).raw("</summary>");
    let description = text_at(operation, "/description");
    if !description.is_empty() {
        html.raw("<p>").text(description).raw("</p>");
    }
    let open = |way: &Value| way.as_object().is_none_or(Map::is_empty);
    if list_at(operation, "/security").all(open) {
        html.raw("<p>Needs no credential.</p>");
    }
    let mut parameters = list_at(operation, "/parameters").peekable();
    if parameters.peek().is_some() {
        html.raw("<h3>Parameters</h3><table>");
    }
    let has_parameters = parameters.peek().is_some();
    for parameter in parameters {
        html.raw("<tr><td><code>").text(text_at(parameter, "/name")).raw("</code><td>");
        html.text(text_at(parameter, "/in")).raw("<td>");
        kind(html, parameter.get("schema").unwrap_or(&Value::Null));
        html.raw("<td>").text(text_at(parameter, "/description"));
    }
    if has_parameters {
        html.raw("</table>");
    }
    for (media, content) in object_at(operation, "/requestBody/content") {
        html.raw("<h3>Body, ").text(media).raw("</h3>");
        shape(html, content.get("schema").unwrap_or(&Value::Null));
    }
    html.raw("<h3>Answers</h3><table>");
    for (status, response) in object_at(operation, "/responses") {
        html.raw("<tr><td>").text(status).raw("<td>").text(text_at(response, "/description"));
        html.raw("<td>");
        for (media, content) in object_at(response, "/content") {
            html.text(media).raw(" ");
            // Of what is in an envelope, the payload is what tells answers apart.
            let schema = content.get("schema").unwrap_or(&Value::Null);
            kind(html, schema.pointer("/properties/data").unwrap_or(schema));
        }
    }
    html.raw("</table></details>\n");
}

/// The fields of an object, or what the schema is instead.
fn shape(html: &mut Html, schema: &Value) {
    let required: Vec<&str> = list_at(schema, "/required").filter_map(Value::as_str).collect();
    let mut fields = object_at(schema, "/properties").peekable();
    if fields.peek().is_none() {
        html.raw("<p>");
        kind(html, schema);
        html.raw("</p>");
        return;
    }
    html.raw("<table>");
    for (name, field) in fields {
        html.raw("<tr><td><code>").text(name).raw("</code><td>");
        html.raw(if required.contains(&name.as_str()) { "required" } else { "" }).raw("<td>");
        kind(html, field);
        html.raw("<td>").text(text_at(field, "/description"));
    }
    html.raw("</table>");
}

/// What a schema allows, in a few words. References are links, not followed.
fn kind(html: &mut Html, schema: &Value) {
    if let Some(name) = text_at(schema, "/$ref").strip_prefix("#/components/schemas/") {
        html.raw("<a href=\"#schema-").text(name).raw("\">").text(name).raw("</a>");
        return;
    }
    for choice in ["/oneOf", "/anyOf", "/allOf"] {
        for (at, part) in list_at(schema, choice).enumerate() {
            html.raw(if at == 0 { "" } else { " or " });
            kind(html, part);
        }
    }
    let one = schema.get("type").and_then(Value::as_str);
    let words = one.into_iter().chain(list_at(schema, "/type").filter_map(Value::as_str));
    let words: Vec<&str> = words.collect();
    html.text(&words.join(" or "));
    if let Some(items) = schema.get("items") {
        html.raw(" of ");
        kind(html, items);
    }
    let listed: Vec<&str> = list_at(schema, "/enum").filter_map(Value::as_str).collect();
    if !listed.is_empty() {
        html.raw(": ").text(&listed.join(", "));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        html.raw(" <code>").text(pattern).raw("</code>");
    }
    for (bound, said) in [
        ("minimum", ", at least "),
        ("maximum", ", at most "),
        ("minLength", ", characters at least "),
        ("maxLength", ", characters at most "),
    ] {
        if let Some(number) = schema.get(bound).filter(|bound| bound.is_number()) {
            html.raw(said).text(&number.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_document_is_text_on_the_page() {
        let document = serde_json::json!({
            "info": { "title": "<script>", "version": "\"1\"", "description": "a & b" },
            "tags": [{ "name": "A b" }],
            "paths": { "/x/{id}": { "get": { "tags": ["A b"], "operationId": "getX",
                "description": "More <of> it",
                "parameters": [{ "name": "id", "in": "path",
                    "schema": { "type": "string", "pattern": "^<$" } }],
                "responses": { "200": { "content": { "application/json": {
                    "schema": { "$ref": "#/components/schemas/X" } } } } } } } },
            "components": { "schemas": { "X": { "type": ["string", "null"] } } },
        });
        let text = Page::new(&document).text;
        for part in [
            "<title>&lt;script&gt; API</title>",
            "<section id=\"a-b\">",
            "<details id=\"getX\"><summary><b>GET</b> <code>/x/{id}</code>",
            "<p>More &lt;of&gt; it</p>",
            "<code>^&lt;$</code>",
            "<a href=\"#schema-X\">X</a>",
            "string or null",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("<script"), "{text}");
    }
}
