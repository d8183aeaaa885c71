//! Hooks: scripts of a container that see its requests before its services do.

use std::{borrow::Cow, collections::BTreeMap, num::NonZeroU32};

use serde_json::{Map, Value, json};

use crate::{
    FieldError, Service,
    access::{GroupName, Program},
    json::{Errors, is_token, join},
};

/// One rule: which requests of a service go to which script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The service whose requests it sees.
    pub service: Program,
    /// Which of them.
    pub matches: Match,
    /// Where they go.
    pub script: Script,
    /// The script must answer within so many milliseconds, 1 to 30,000.
    pub timeout_ms: NonZeroU32,
    /// Only requests of these groups, at most 64; of everybody when empty.
    pub groups: Vec<GroupName>,
}

/// Which requests a hook sees; all conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The methods, at most 7, in upper case; every one but `OPTIONS` when empty. `HEAD` counts as
    /// `GET`.
    pub methods: Vec<String>,
    /// The path: `*`, or a pattern that begins with `/`. A `*` at its end stands for anything, one
    /// before that for what a segment holds.
    pub path: String,
    /// Header fields that must have exactly these values, at most 16; names in lower case.
    pub headers: Vec<(String, String)>,
}

/// A script of the container's `exec` service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its path, which begins with `/`.
    pub path: String,
    /// Its directory: `default`, or 1 to 63 of `a-z0-9`.
    pub subdomain: String,
    /// Which instance runs it: 1 to 64 of `a-z0-9`.
    pub exec_id: Option<String>,
}

impl Default for Match {
    /// Every request but `OPTIONS`.
    fn default() -> Self {
        Self { methods: Vec::new(), path: "*".to_owned(), headers: Vec::new() }
    }
}

/// The most hooks of one service.
pub const SERVICE_MAX: usize = 8;
/// The most hooks of one container.
pub const CONTAINER_MAX: usize = 32;

/// Whether a service cannot have hooks: it is answered by the edge itself (`logs`), or what it speaks
/// are not requests that a script could see (`egress`, `cdp`, `ssh`).
pub fn is_reject_listed(program: Program) -> bool {
    let services = [Service::Logs, Service::Egress, Service::Cdp];
    program == Program::SSH || services.into_iter().any(|service| program == service.into())
}

impl Hook {
    /// The time that a script has when the hook does not say, in milliseconds.
    pub const TIMEOUT_MS_DEFAULT: NonZeroU32 = NonZeroU32::new(500).unwrap();
    /// The most time that a hook may give its script, in milliseconds.
    pub const TIMEOUT_MS_MAX: u32 = 30_000;

    /// Reads the JSON form of one hook of this service; `field` names it in the errors. Its `id` and
    /// `position` are for the caller to read, and so is whether the groups that it names exist.
    pub fn from_json(
        field: &str,
        service: Program,
        value: &Value,
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = Errors::default();
        let hook = read(&mut errors, field, service, value);
        errors.finish(hook)
    }

    /// Reads the hooks of a container: an object with an array for each service. The order of a
    /// service's hooks is kept; the first that matches is the one that runs.
    pub fn all_from_json(field: &str, value: &Value) -> Result<Vec<Self>, Vec<FieldError>> {
        let mut errors = Errors::default();
        let mut hooks: Vec<Self> = Vec::new();
        for (name, list) in errors.map(field, value).into_iter().flatten() {
            let field = join(field, &name.chars().take(64).collect::<String>());
            let Some(service) = errors.take(Program::parse(&field, name)) else { continue };
            let same = hooks.iter().filter(|hook| hook.service == service).count();
            match list.as_array() {
                _ if is_reject_listed(service) => {
                    errors.note::<()>(&field, "this service cannot have hooks");
                }
                Some(list) if same + list.len() <= SERVICE_MAX => {
                    for (at, value) in list.iter().enumerate() {
                        hooks.extend(read(&mut errors, &format!("{field}[{at}]"), service, value));
                    }
                }
                Some(_) | None => {
                    errors.note::<()>(&field, "must be an array of at most 8 hooks");
                }
            }
        }
        if hooks.len() > CONTAINER_MAX {
            errors.note::<()>(field, "must be at most 32 hooks in all");
        }
        errors.finish(Some(hooks))
    }

    /// The JSON form, without `id` and `position`.
    pub fn to_json(&self) -> Value {
        let mut matches = Map::new();
        if !self.matches.methods.is_empty() {
            matches.insert("method".to_owned(), json!(self.matches.methods));
        }
        matches.insert("path".to_owned(), json!(self.matches.path));
        if !self.matches.headers.is_empty() {
            let headers: BTreeMap<_, _> = self.matches.headers.iter().cloned().collect();
            matches.insert("headers".to_owned(), json!(headers));
        }
        let mut script = Map::new();
        script.insert("path".to_owned(), json!(self.script.path));
        script.insert("subdomain".to_owned(), json!(self.script.subdomain));
        if let Some(exec_id) = &self.script.exec_id {
            script.insert("execId".to_owned(), json!(exec_id));
        }
        let mut hook = Map::new();
        hook.insert("match".to_owned(), Value::Object(matches));
        hook.insert("script".to_owned(), Value::Object(script));
        hook.insert("timeout".to_owned(), json!(self.timeout_ms));
        if !self.groups.is_empty() {
            let groups: Vec<&str> = self.groups.iter().map(GroupName::as_str).collect();
            hook.insert("applies_to".to_owned(), json!({ "groups": groups }));
        }
        Value::Object(hook)
    }

    /// Whether it sees a request with this method and path (without query). `header_is` says whether
    /// a header field has exactly a value, `is_member` whether the request belongs to a group.
    ///
    /// The path is compared as it came and as its service may understand it (escapes of ordinary
    /// characters, dot segments and repeated slashes resolved): a spelling does not pass a hook by.
    pub fn matches(
        &self,
        method: &str,
        path: &str,
        header_is: impl Fn(&str, &str) -> bool,
        is_member: impl Fn(&GroupName) -> bool,
    ) -> bool {
        self.matches.has_method(method)
            && self.matches.has_path(path)
            && self.matches.headers.iter().all(|(name, value)| header_is(name, value))
            && (self.groups.is_empty() || self.groups.iter().any(is_member))
    }
}

impl Match {
    fn has_method(&self, method: &str) -> bool {
        if self.methods.is_empty() {
            return method != "OPTIONS";
        }
        let has = |method: &str| self.methods.iter().any(|own| own == method);
        has(method) || (method == "HEAD" && has("GET"))
    }

    fn has_path(&self, path: &str) -> bool {
        if self.path == "*" || path_fits(&self.path, path) {
            return true;
        }
        match plain(path) {
            Cow::Borrowed(_) => false,
            Cow::Owned(plain) => path_fits(&self.path, &plain),
        }
    }
}

/// Whether a path fits a pattern: segment by segment, each with at most one `*`; one at the very end
/// takes all the rest.
fn path_fits(pattern: &str, path: &str) -> bool {
    let (pattern, open) = match pattern.strip_suffix('*') {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let (mut patterns, mut segments) = (pattern.split('/').peekable(), path.split('/'));
    while let Some(pattern) = patterns.next() {
        let Some(segment) = segments.next() else { return false };
        let fits = match pattern.split_once('*') {
            // The last one of an open pattern: whatever follows its text fits.
            None if open && patterns.peek().is_none() => return segment.starts_with(pattern),
            None => pattern == segment,
            Some((head, tail)) => {
                let inner = segment.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
                inner.is_some_and(|inner| !inner.is_empty())
            }
        };
        if !fits {
            return false;
        }
    }
    segments.next().is_none()
}

/// The path as most servers understand it; borrowed when it is plain already.
fn plain(path: &str) -> Cow<'_, str> {
    let odd = |segment: &str| matches!(segment, "" | "." | "..");
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if !path.contains('%') && !inner.split('/').any(odd) {
        return Cow::Borrowed(path);
    }
    let decoded = decode(path);
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = decoded.split('/').peekable();
    let mut slash = false;
    while let Some(part) = parts.next() {
        slash = parts.peek().is_none() && odd(part);
        match part {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let end = if slash && !segments.is_empty() { "/" } else { "" };
    Cow::Owned(format!("/{}{end}", segments.join("/")))
}

/// Resolves the escapes of characters that never need one (RFC 3986, section 2.3), and of `/`.
fn decode(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((head, tail)) = rest.split_once('%') {
        decoded.push_str(head);
        let octet = tail.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let plain = octet
            .map(char::from)
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '/'));
        if let Some(plain) = plain {
            decoded.push(plain);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            decoded.push('%');
            rest = tail;
        }
    }
    decoded.push_str(rest);
    decoded
}

fn read(errors: &mut Errors, field: &str, service: Program, value: &Value) -> Option<Hook> {
    let known = ["id", "position", "match", "script", "timeout", "applies_to"];
    let map = errors.object(field, value, &known)?;
    let matches_field = join(field, "match");
    let matches = match map.get("match") {
        Some(value) => read_match(errors, &matches_field, value),
        None => errors.note(&matches_field, "is required"),
    };
    let script_field = join(field, "script");
    let script = match map.get("script") {
        Some(value) => read_script(errors, &script_field, value),
        None => errors.note(&script_field, "is required"),
    };
    let timeout_ms = match map.get("timeout") {
        None => Some(Hook::TIMEOUT_MS_DEFAULT),
        Some(value) => {
            let timeout = value.as_u64().and_then(|timeout| u32::try_from(timeout).ok());
            let timeout = timeout.filter(|timeout| *timeout <= Hook::TIMEOUT_MS_MAX);
            timeout
                .and_then(NonZeroU32::new)
                .or_else(|| errors.note(&join(field, "timeout"), "must be 1 to 30000 milliseconds"))
        }
    };
    let groups = match map.get("applies_to") {
        None => Some(Vec::new()),
        Some(value) => read_groups(errors, &join(field, "applies_to"), value),
    };
    Some(Hook {
        service,
        matches: matches?,
        script: script?,
        timeout_ms: timeout_ms?,
        groups: groups?,
    })
}

fn read_match(errors: &mut Errors, field: &str, value: &Value) -> Option<Match> {
    let map = errors.object(field, value, &["method", "path", "headers"])?;
    let methods = match map.get("method") {
        None => Some(Vec::new()),
        Some(Value::String(any)) if any == "*" => Some(Vec::new()),
        Some(value) => read_methods(value).or_else(|| {
            let rule = "must be \"*\", a method, or an array of 1 to 7 methods";
            errors.note(&join(field, "method"), rule)
        }),
    };
    let path = match map.get("path") {
        None => Some("*".to_owned()),
        Some(value) => {
            let path = value.as_str().filter(|path| is_pattern(path)).map(str::to_owned);
            path.or_else(|| {
                let rule = "must be * or a path of at most 257 letters, digits and ._-/ with at most \
                            one * in a segment";
                errors.note(&join(field, "path"), rule)
            })
        }
    };
    let headers_field = join(field, "headers");
    let mut headers = BTreeMap::new();
    if let Some(value) = map.get("headers") {
        for (name, value) in errors.map(&headers_field, value)?.iter().take(17) {
            let value = value.as_str().filter(|value| value.len() <= 4096);
            match (is_token(name), value) {
                (true, Some(value)) => {
                    headers.insert(name.to_ascii_lowercase(), value.to_owned());
                }
                (true, None) => {
                    let field = join(&headers_field, name);
                    errors.note::<()>(&field, "must be a text of at most 4096 octets");
                }
                (false, _) => {
                    errors.note::<()>(&headers_field, "must have names of header fields for keys");
                }
            }
        }
        if headers.len() > 16 {
            errors.note::<()>(&headers_field, "must be at most 16 header fields");
        }
    }
    Some(Match { methods: methods?, path: path?, headers: headers.into_iter().collect() })
}

fn read_methods(value: &Value) -> Option<Vec<String>> {
    let method = |value: &Value| {
        let text = value.as_str().filter(|text| text.len() <= 32 && is_token(text))?;
        Some(text.to_ascii_uppercase())
    };
    match value.as_array() {
        Some(list) if (1..=7).contains(&list.len()) => list.iter().map(method).collect(),
        Some(_) => None,
        None => Some(vec![method(value)?]),
    }
}

/// Whether a text is a pattern for paths. One `*` in a segment is enough for any rule, and makes
/// comparing a path cost no more than reading it.
fn is_pattern(text: &str) -> bool {
    let octet = |o: u8| o.is_ascii_alphanumeric() || b"._-/*".contains(&o);
    let stars = |segment: &str| segment.bytes().filter(|octet| *octet == b'*').count();
    let path = text.starts_with('/')
        && text.len() <= 257
        && text.bytes().all(octet)
        && text.split('/').all(|segment| stars(segment) <= 1);
    path || text == "*"
}

fn read_script(errors: &mut Errors, field: &str, value: &Value) -> Option<Script> {
    let map = errors.object(field, value, &["path", "subdomain", "execId"])?;
    let path = map.get("path").and_then(Value::as_str).filter(|path| is_script(path));
    let path = path.map(str::to_owned).or_else(|| {
        let rule = "must be a path of at most 257 letters, digits and ._-/ that begins with /, \
                    without .., // and /.";
        errors.note(&join(field, "path"), rule)
    });
    let word = |value: &Value, len_max: usize| {
        let octet = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit();
        let fits = |text: &&str| (1..=len_max).contains(&text.len()) && text.bytes().all(octet);
        value.as_str().filter(fits).map(str::to_owned)
    };
    let subdomain = match map.get("subdomain") {
        None => Some("default".to_owned()),
        Some(value) => word(value, 63).or_else(|| {
            errors.note(&join(field, "subdomain"), "must be 1 to 63 lower-case letters and digits")
        }),
    };
    let exec_id = match map.get("execId") {
        None => Some(None),
        Some(value) => word(value, 64).map(Some).or_else(|| {
            errors.note(&join(field, "execId"), "must be 1 to 64 lower-case letters and digits")
        }),
    };
    Some(Script { path: path?, subdomain: subdomain?, exec_id: exec_id? })
}

fn is_script(path: &str) -> bool {
    let octet = |octet: u8| octet.is_ascii_alphanumeric() || b"._-/".contains(&octet);
    path.starts_with('/')
        && path.len() <= 257
        && path.bytes().all(octet)
        && !["..", "//", "/."].iter().any(|bad| path.contains(bad))
}

fn read_groups(errors: &mut Errors, field: &str, value: &Value) -> Option<Vec<GroupName>> {
    let map = errors.object(field, value, &["groups"])?;
    let field = join(field, "groups");
    let list = map.get("groups").and_then(Value::as_array);
    let Some(list) = list.filter(|list| (1..=64).contains(&list.len())) else {
        return errors.note(&field, "must be an array of 1 to 64 groups");
    };
    let mut groups = Vec::with_capacity(list.len());
    for (at, value) in list.iter().enumerate() {
        let name = GroupName::parse(&format!("{field}[{at}]"), value.as_str().unwrap_or(""));
        groups.push(errors.take(name)?);
    }
    Some(groups)
}
