//! The JSON form of documents, as they are stored and sent.

use serde_json::{Map, Value, json};

use super::{Access, Claim, Document, Fallback, JwtAlgorithm, Method, Place, Source};

impl Document {
    /// The JSON form: `groups`, `permissions`, `default`, and `enable_proxy` if it is set. It holds
    /// the secrets.
    pub fn to_json(&self) -> Value {
        let groups = self.groups.iter().map(|(name, methods)| {
            let value = match methods.as_slice() {
                [only] => only.to_json(),
                many => many.iter().map(Method::to_json).collect(),
            };
            (name.as_str().to_owned(), value)
        });
        let permissions = self.permissions.iter().map(|(name, cells)| {
            let cells =
                cells.iter().map(|(program, access)| (program.to_string(), access.to_json()));
            (name.as_str().to_owned(), Value::Object(cells.collect()))
        });
        let mut document = Map::new();
        document.insert("groups".to_owned(), Value::Object(groups.collect()));
        document.insert("permissions".to_owned(), Value::Object(permissions.collect()));
        document.insert("default".to_owned(), self.default.as_str().into());
        if let Some(enable_proxy) = self.enable_proxy {
            document.insert("enable_proxy".to_owned(), enable_proxy.into());
        }
        Value::Object(document)
    }
}

impl Fallback {
    /// `allow` or `deny`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl JwtAlgorithm {
    /// The name in RFC 7518.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

impl Method {
    /// The JSON form, with its `type`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Jwt { algorithm, key, sources, claims } => {
                let sources: Vec<Value> = sources.iter().map(Source::to_json).collect();
                let claims: Map<String, Value> =
                    claims.iter().map(|(name, claim)| (name.clone(), claim.to_json())).collect();
                json!({ "type": "jwt", "secret": key, "algorithm": algorithm.as_str(),
                        "sources": sources, "claims": claims })
            }
            Self::Password { username, salt, hash } => {
                json!({ "type": "password", "username": username, "password": hex::encode(hash),
                        "algorithm": "sha256", "salt": salt })
            }
            Self::Ip(range) => json!({ "type": "ip", "range": range.to_string() }),
            Self::Token { place, value } => {
                let (kind, name) = match place {
                    Place::Header(name) => ("header", name),
                    Place::Cookie(name) => ("cookie", name),
                    Place::Param(name) => ("param", name),
                };
                json!({ "type": "token", kind: name, "value": value })
            }
        }
    }
}

impl Source {
    fn to_json(&self) -> Value {
        match self {
            Self::Header(name) => format!("header:{name}").into(),
            Self::Cookie(name) => format!("cookie:{name}").into(),
        }
    }
}

impl Claim {
    /// The JSON value.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            // Written by `from_json`, so it is read back.
            Self::Number(number) => serde_json::from_str(number).unwrap_or(Value::Null),
            Self::Bool(value) => (*value).into(),
        }
    }
}

impl Access {
    /// The JSON value of a cell.
    pub fn to_json(&self) -> Value {
        match self {
            Self::All => true.into(),
            Self::Star => "*".into(),
            Self::None => false.into(),
            Self::Number(only) => (*only).into(),
            Self::Numbers(these) => these.iter().map(|number| Value::from(*number)).collect(),
            Self::Range(from, to) => format!("{from}-{to}").into(),
        }
    }
}
