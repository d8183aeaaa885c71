//! How the edge treats one container: what its owner may set beside who may pass.

use serde_json::{Value, json};

use crate::{FieldError, json::Errors};

/// Whether a request may wake a container that sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WakePolicy {
    /// Never: requests are answered with 503.
    #[default]
    Never,
    /// A browser that opens a page does.
    Navigate,
    /// Any request does.
    Any,
    /// Any request of somebody who has proved to belong to a group does.
    Authed,
}

/// What the owner of a container has set for its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EdgeSettings {
    /// Whether a request may wake it.
    pub wake: WakePolicy,
    /// It is paused after so many seconds without real traffic; never when absent. At least 60.
    pub idle_pause_after: Option<u32>,
    /// Whether the certificate of an `https-<port>` service must be valid for the container's host.
    pub verify_upstream: bool,
    /// Ports that want the PROXY protocol before each connection; at most 16, sorted.
    pub proxy_protocol_ports: Vec<u16>,
    /// Concurrent requests and tunnels, at most; the edge's own bound when absent. At least 1.
    pub concurrency_max: Option<u32>,
    /// Whether the log of its requests has their fields and the beginnings of their bodies.
    pub log_bodies: bool,
}

impl WakePolicy {
    /// Every policy.
    pub const ALL: [Self; 4] = [Self::Never, Self::Navigate, Self::Any, Self::Authed];

    /// The name that the API has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Navigate => "navigate",
            Self::Any => "any",
            Self::Authed => "authed",
        }
    }
}

impl EdgeSettings {
    /// The least time until an idle container is paused, in seconds.
    pub const IDLE_PAUSE_MIN: u32 = 60;
    /// The most ports that want the PROXY protocol.
    pub const PROXY_PROTOCOL_PORTS_MAX: usize = 16;

    /// Reads an object with some of the fields; those that it lacks are taken from `self`. `null`
    /// takes back `idle_pause_after` and `concurrency_max`.
    pub fn updated(&self, value: &Value) -> Result<Self, Vec<FieldError>> {
        const FIELDS: [&str; 6] = [
            "wake",
            "idle_pause_after",
            "verify_upstream",
            "proxy_protocol_ports",
            "concurrency_max",
            "log_bodies",
        ];
        let mut errors = Errors::default();
        let mut settings = self.clone();
        for (key, value) in errors.object("", value, &FIELDS).into_iter().flatten() {
            match key.as_str() {
                "wake" => {
                    let named = |policy: &WakePolicy| value.as_str() == Some(policy.as_str());
                    let policy = WakePolicy::ALL.into_iter().find(named);
                    settings.wake = policy
                        .or_else(|| errors.note(key, "must be never, navigate, any or authed"))
                        .unwrap_or_default();
                }
                "idle_pause_after" => {
                    let rule = "must be null or a number of seconds, at least 60";
                    settings.idle_pause_after =
                        count(&mut errors, key, value, Self::IDLE_PAUSE_MIN, rule);
                }
                "verify_upstream" => {
                    settings.verify_upstream = errors.bool(key, Some(value)).unwrap_or_default();
                }
                "proxy_protocol_ports" => {
                    settings.proxy_protocol_ports = ports(value)
                        .or_else(|| errors.note(key, "must be an array of at most 16 ports"))
                        .unwrap_or_default();
                }
                "concurrency_max" => {
                    let rule = "must be null or a number, at least 1";
                    settings.concurrency_max = count(&mut errors, key, value, 1, rule);
                }
                "log_bodies" => {
                    settings.log_bodies = errors.bool(key, Some(value)).unwrap_or_default();
                }
                // Noted already.
                _ => {}
            }
        }
        errors.finish(Some(settings))
    }

    /// The JSON form, every field of it.
    pub fn to_json(&self) -> Value {
        json!({
            "wake": self.wake.as_str(),
            "idle_pause_after": self.idle_pause_after,
            "verify_upstream": self.verify_upstream,
            "proxy_protocol_ports": self.proxy_protocol_ports,
            "concurrency_max": self.concurrency_max,
            "log_bodies": self.log_bodies,
        })
    }

    /// Whether they are those of a container whose owner has set nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn count(errors: &mut Errors, key: &str, value: &Value, min: u32, rule: &str) -> Option<u32> {
    if value.is_null() {
        return None;
    }
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.filter(|number| *number >= min).or_else(|| errors.note(key, rule))
}

fn ports(value: &Value) -> Option<Vec<u16>> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok().filter(|port| *port != 0);
    let mut ports = value.as_array()?.iter().map(port).collect::<Option<Vec<u16>>>()?;
    ports.sort_unstable();
    ports.dedup();
    (ports.len() <= EdgeSettings::PROXY_PROTOCOL_PORTS_MAX).then_some(ports)
}
