//! How the edge treats one container: what its owner may set beside who may pass.

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
}

impl EdgeSettings {
    /// Whether they are those of a container whose owner has set nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
