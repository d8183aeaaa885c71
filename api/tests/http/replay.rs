//! The requests that the official clients were seen to send, and would send for a second factor by their reference,
//! one after the other, and the least that each answer must hold. They stand in `recorded.json`.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    lab::{Ask, Lab, Reply},
    two_factor::code,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    title: String,
    /// `nobody`, or the bearer token.
    caller: String,
    /// The realm of the host, if it is not the plain one.
    realm: Option<String>,
    /// Method and path with query.
    request: String,
    body: Option<Value>,
    /// The version of the document that the write names.
    if_match: Option<String>,
    status: u16,
    /// What the answer must contain: objects may have more keys and lists more items.
    least: Value,
    /// Asked again until the answer contains this.
    until: Option<Value>,
    /// Names for parts of the answer, used as `{name}` in later steps.
    #[serde(default)]
    keep: BTreeMap<String, String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_request_of_the_official_clients_is_answered_as_they_need_it() {
    let lab = Lab::start().await;
    let steps: Vec<Step> = serde_json::from_str(include_str!("recorded.json")).unwrap();
    let mut kept: BTreeMap<String, String> = BTreeMap::new();
    for step in steps {
        let title = &step.title;
        let is_shown = |body: &Value| body.to_string().contains("{app_code}");
        if !kept.contains_key("app_code") && step.body.as_ref().is_some_and(is_shown) {
            // By an authenticator app of others; nothing of what follows without it.
            let now = lab.control.clock().now_ms().div_euclid(30_000);
            let Some(code) = code(&kept["otpauth_url"], now) else { return };
            kept.insert("app_code".to_owned(), code);
        }
        let reply = ask(&lab, &step, &kept).await;
        assert_eq!(reply.status, step.status, "{title}: {}", reply.text);
        assert_envelope(title, &reply);
        let least = filled_value(&step.least, &kept);
        contains(&reply.json, &least, "").unwrap_or_else(|why| {
            panic!("{title}: {why}\nanswer: {}", reply.text);
        });
        for (name, pointer) in step.keep {
            let value = reply.json.pointer(&pointer).and_then(Value::as_str);
            kept.insert(name, value.unwrap_or_else(|| panic!("{title}: no {pointer}")).to_owned());
        }
    }
}

async fn ask(lab: &Lab, step: &Step, kept: &BTreeMap<String, String>) -> Reply {
    let request = filled(&step.request, kept);
    let (method, path) = request.split_once(' ').unwrap();
    let mut ask = Ask::new(method, path);
    if step.caller != "nobody" {
        ask = ask.by(&filled(&step.caller, kept));
    }
    if let Some(realm) = &step.realm {
        ask = ask.realm(realm);
    }
    if let Some(body) = &step.body {
        ask = ask.body(&filled_value(body, kept));
    }
    if let Some(version) = &step.if_match {
        ask = ask.header("if-match", version);
    }
    let Some(until) = &step.until else { return lab.send(ask).await };
    let look = async {
        loop {
            let reply = lab.send(ask.clone()).await;
            if contains(&reply.json, until, "").is_ok() {
                return reply;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look)
        .await
        .unwrap_or_else(|_| panic!("{}: never saw {until}", step.title))
}

/// Both clients take the whole body for the payload if one of the three is missing.
fn assert_envelope(title: &str, reply: &Reply) {
    assert_eq!(reply.headers["content-type"], "application/json", "{title}");
    assert_eq!(reply.headers["access-control-allow-origin"], "*", "{title}");
    assert_eq!(reply.json["statusCode"], reply.status.as_u16(), "{title}");
    assert!(reply.json["message"].is_string(), "{title}: {}", reply.text);
    if reply.status.is_success() {
        assert!(reply.json.get("data").is_some(), "{title}: {}", reply.text);
    } else {
        assert!(reply.json["error"].is_string(), "{title}: {}", reply.text);
        assert!(reply.json["code"].is_string(), "{title}: {}", reply.text);
    }
}

fn filled(text: &str, kept: &BTreeMap<String, String>) -> String {
    kept.iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

fn filled_value(value: &Value, kept: &BTreeMap<String, String>) -> Value {
    serde_json::from_str(&filled(&value.to_string(), kept)).unwrap()
}

fn contains(got: &Value, least: &Value, at: &str) -> Result<(), String> {
    let fits = match least {
        Value::Object(wanted) => {
            for (key, wanted) in wanted {
                let got = got.get(key).ok_or_else(|| format!("{at}/{key} is missing"))?;
                contains(got, wanted, &format!("{at}/{key}"))?;
            }
            got.is_object()
        }
        Value::Array(wanted) => {
            let got = got.as_array().ok_or_else(|| format!("{at} is no list"))?;
            for (index, wanted) in wanted.iter().enumerate() {
                let got = got.get(index).ok_or_else(|| format!("{at}/{index} is missing"))?;
                contains(got, wanted, &format!("{at}/{index}"))?;
            }
            true
        }
        Value::String(word) => match word.as_str() {
            "<id>" => got.as_str().is_some_and(|text| {
                text.len() == 24 && text.bytes().all(|o| matches!(o, b'0'..=b'9' | b'a'..=b'f'))
            }),
            "<text>" => got.as_str().is_some_and(|text| !text.is_empty()),
            "<time>" => got.as_str().is_some_and(|text| {
                text.len() == "2026-11-26T07:30:00.000Z".len() && text.ends_with('Z')
            }),
            _ => got == least,
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => got == least,
    };
    if fits { Ok(()) } else { Err(format!("{at} is {got}, not {least}")) }
}
