//! The list `servers`: further servers of this machine, each with a runtime of its own.
//!
//! Only a file can have it. The table `runtime` of an entry has the keys of the section `runtime`, with
//! the same defaults; what two servers cannot share has to differ, and each collision is named.

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format as _, Toml},
    value::{Dict, Map, Tag, Value},
};
use gantry_model::ServerName;

use super::{
    DEFAULTS,
    reader::{DEFAULT_ORIGIN, Reader},
    runtime::{self, RuntimeConfig, RuntimeKind},
};

/// The most servers of one machine.
const SERVERS_MAX: usize = 32;

/// A server beside the first.
#[derive(Clone, Debug)]
pub(crate) struct FurtherServer {
    pub(crate) name: ServerName,
    pub(crate) runtime: RuntimeConfig,
}

/// Reads all of them; `None` if anything is wrong with one.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Vec<FurtherServer>> {
    let Some((list, origin)) = reader.list("servers", "[[servers]]") else {
        return Some(Vec::new());
    };
    if list.len() >= SERVERS_MAX {
        let rule = format!("may have at most {} entries", SERVERS_MAX - 1);
        reader.problem(&origin, "servers", rule);
        return None;
    }
    // Read everything before the first failure counts.
    let servers: Vec<_> =
        list.into_iter().enumerate().map(|(at, entry)| one(reader, at, entry, &origin)).collect();
    servers.into_iter().collect()
}

fn one(reader: &mut Reader<'_>, at: usize, entry: Value, origin: &str) -> Option<FurtherServer> {
    let key = format!("servers[{at}]");
    let Value::Dict(_, mut entry) = entry else {
        reader.problem(origin, &key, "must be a table, [[servers]]");
        return None;
    };
    let name = match entry.remove("name").as_ref().map(Value::as_str) {
        None => Err("is required: the label of the server in hostnames".to_owned()),
        Some(None) => Err("must be text".to_owned()),
        Some(Some(text)) => text
            .parse::<ServerName>()
            .map_err(|error| format!("{error}, found {text:?}"))
            .inspect(|name| reader.effective(&format!("{key}.name"), &name.to_string(), origin)),
    };
    let name = name.map_err(|rule| reader.problem(origin, &format!("{key}.name"), rule)).ok();
    let chosen = match entry.remove("runtime") {
        None => Some(Dict::new()),
        Some(Value::Dict(_, chosen)) => {
            Some(chosen.into_iter().map(|(key, value)| (key, untagged(value))).collect())
        }
        Some(_) => {
            reader.problem(origin, &format!("{key}.runtime"), "must be a table");
            None
        }
    };
    for unknown in entry.keys() {
        let rule = "there is no such key; a server has name and runtime";
        reader.problem(origin, &format!("{key}.{unknown}"), rule);
    }
    let figment = Figment::new()
        .merge(Layer { name: DEFAULT_ORIGIN.to_owned(), runtime: defaults() })
        .merge(Layer { name: origin.to_owned(), runtime: chosen? });
    let mut own = Reader::new(&figment).below(&key);
    let runtime = runtime::read(&mut own);
    reader.take(own);
    let is_known = entry.is_empty();
    Some(FurtherServer { name: name?, runtime: runtime? }).filter(|_| is_known)
}

/// A value that does not know where it was said, so that the layer that it is put into tells that.
fn untagged(value: Value) -> Value {
    let none = Tag::Default;
    match value {
        Value::String(_, text) => Value::String(none, text),
        Value::Char(_, one) => Value::Char(none, one),
        Value::Bool(_, word) => Value::Bool(none, word),
        Value::Num(_, number) => Value::Num(none, number),
        Value::Empty(_, empty) => Value::Empty(none, empty),
        Value::Dict(_, keys) => {
            Value::Dict(none, keys.into_iter().map(|(key, it)| (key, untagged(it))).collect())
        }
        Value::Array(_, list) => Value::Array(none, list.into_iter().map(untagged).collect()),
    }
}

/// The section `runtime` of the defaults.
fn defaults() -> Dict {
    let all = Toml::string(DEFAULTS).data().unwrap_or_default();
    let mut sections = all.into_values().flatten();
    match sections.find(|(section, _)| section == "runtime") {
        Some((_, Value::Dict(_, keys))) => keys,
        Some(_) | None => Dict::new(),
    }
}

/// A section `runtime` as a layer.
struct Layer {
    name: String,
    runtime: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let runtime = ("runtime".to_owned(), self.runtime.clone().into());
        Ok(Profile::Default.collect(Dict::from([runtime])))
    }
}

/// Notes whatever two servers cannot have both.
pub(super) fn check(
    reader: &mut Reader<'_>,
    name: &ServerName,
    runtime: &RuntimeConfig,
    further: &[FurtherServer],
) {
    let mut before = vec![(name, runtime)];
    for (at, server) in further.iter().enumerate() {
        for (name, runtime) in &before {
            for (key, what) in collisions((name, runtime), (&server.name, &server.runtime)) {
                let key = format!("servers[{at}].{key}");
                let origin = reader.origin_of(&key);
                let rule = format!("server {} and server {name} {what}", server.name);
                reader.problem(&origin, &key, rule);
            }
        }
        before.push((&server.name, &server.runtime));
    }
}

type Server<'s> = (&'s ServerName, &'s RuntimeConfig);

/// The keys of `b` in which it collides with `a`, and how.
fn collisions(a: Server<'_>, b: Server<'_>) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if a.0 == b.0 {
        found.push(("name", "have one name; each needs its own".to_owned()));
    }
    let (a, b) = (a.1, b.1);
    if a.kind == RuntimeKind::Fake || b.kind == RuntimeKind::Fake {
        return found;
    }
    if a.bridge == b.bridge {
        found.push(("runtime.bridge", format!("both have bridge {:?}", a.bridge)));
    }
    if a.subnet.contains(&b.subnet) || b.subnet.contains(&a.subnet) {
        let what = format!("have networks that overlap, {} and {}", b.subnet, a.subnet);
        found.push(("runtime.subnet", what));
    }
    match (a.kind, b.kind) {
        (RuntimeKind::Embedded, RuntimeKind::Embedded) => {
            if a.cgroup == b.cgroup {
                found.push(("runtime.cgroup", format!("both have control group {:?}", a.cgroup)));
            }
            let end =
                |runtime: &RuntimeConfig| u64::from(runtime.id_base) + u64::from(runtime.id_count);
            if u64::from(a.id_base) < end(b) && u64::from(b.id_base) < end(a) {
                let what = format!(
                    "have host ids that overlap, {} to {} and {} to {}",
                    b.id_base,
                    end(b) - 1,
                    a.id_base,
                    end(a) - 1
                );
                found.push(("runtime.id_base", what));
            }
        }
        (RuntimeKind::Incus, RuntimeKind::Incus) => {
            let (a, b) = (&a.incus, &b.incus);
            if a.socket == b.socket && a.project == b.project {
                let what = format!("both have project {:?} of the same Incus", a.project);
                found.push(("runtime.incus_project", what));
            }
        }
        (RuntimeKind::Embedded | RuntimeKind::Incus | RuntimeKind::Fake, _) => {}
    }
    found
}
