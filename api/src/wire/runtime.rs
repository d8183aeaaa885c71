//! What runs inside a container.

use gantry_control as control;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Hex, Timestamp};

/// Which parts are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) displays: bool,
    pub(crate) services: bool,
    pub(crate) network_services: bool,
    pub(crate) terminals: bool,
}

impl Parts {
    pub(crate) const ALL: Self =
        Self { displays: true, services: true, network_services: true, terminals: true };
}

/// What runs inside a container, by its own word; the parts that were asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RuntimeInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    displays: Option<Vec<Display>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<Vec<ServiceUnit>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_services: Option<Vec<NetworkService>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminals: Option<Vec<Terminal>>,
}

/// A display. What only its own service knows is empty.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Display {
    /// Such as `:1`.
    display: String,
    pid: Option<u32>,
    session_name: Option<String>,
    user: Option<String>,
    project_id: Hex,
    container_id: Hex,
    start_time: Option<Timestamp>,
    #[schema(value_type = Vec<Value>)]
    connected_clients: [(); 0],
    #[schema(value_type = Vec<Value>)]
    windows: [(); 0],
    #[schema(value_type = Vec<Value>)]
    screenshots: [(); 0],
}

/// A service of systemd.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServiceUnit {
    /// Without its suffix.
    name: String,
    /// Such as `running`.
    status: String,
    pid: Option<u32>,
    /// With its suffix.
    unit: String,
    load: String,
    active: String,
    sub: String,
    description: String,
    since: Option<Timestamp>,
    /// Octets.
    memory: Option<u64>,
    /// Nanoseconds.
    cpu_usage: Option<u64>,
    tasks: Option<u64>,
    restart_count: Option<u64>,
    last_restart: Option<Timestamp>,
    enabled: String,
    vendor_preset: String,
    main_pid: Option<u32>,
    control_group: String,
    drop_in: String,
    loaded: bool,
    docs: String,
    fragment_path: String,
}

/// A port that somebody listens at.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NetworkService {
    /// `tcp` or `udp`.
    protocol: &'static str,
    port: u16,
    ip: String,
    pid: Option<u32>,
    user: Option<String>,
    program: Option<String>,
    path: Option<String>,
    args: Option<String>,
}

/// A terminal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Terminal {
    /// Such as `pts/0`.
    id: String,
    display: Option<String>,
    username: String,
    created_at: Timestamp,
    created_at_formatted: Timestamp,
    last_activity: Option<Timestamp>,
    last_activity_formatted: Option<Timestamp>,
    /// What was typed is nobody's business but the shell's.
    #[schema(value_type = Vec<String>)]
    command_history: [(); 0],
}

impl RuntimeInfo {
    pub(crate) fn new(
        view: &control::ContainerView,
        inside: &control::Inside,
        parts: Parts,
    ) -> Self {
        let displays = || inside.displays.iter().map(|display| Display::new(view, display));
        let services = || inside.services.iter().map(ServiceUnit::new);
        let listeners = || inside.listeners.iter().map(NetworkService::new);
        let terminals = || inside.terminals.iter().map(Terminal::new);
        Self {
            displays: parts.displays.then(|| displays().collect()),
            services: parts.services.then(|| services().collect()),
            network_services: parts.network_services.then(|| listeners().collect()),
            terminals: parts.terminals.then(|| terminals().collect()),
        }
    }
}

impl Display {
    fn new(view: &control::ContainerView, display: &control::Display) -> Self {
        let process = display.process.as_ref();
        Self {
            display: display.name.clone(),
            pid: process.map(|process| process.pid),
            session_name: None,
            user: process.map(|process| process.user.clone()),
            project_id: view.record.project.into(),
            container_id: view.record.id.into(),
            start_time: process.map(|process| Timestamp(process.started_at_ms)),
            connected_clients: [],
            windows: [],
            screenshots: [],
        }
    }
}

impl ServiceUnit {
    fn new(unit: &control::Unit) -> Self {
        Self {
            name: unit.name.strip_suffix(".service").unwrap_or(&unit.name).to_owned(),
            status: unit.sub.clone(),
            pid: unit.pid,
            unit: unit.name.clone(),
            load: unit.load.clone(),
            active: unit.active.clone(),
            sub: unit.sub.clone(),
            description: unit.description.clone(),
            since: unit.since_ms.map(Timestamp),
            memory: unit.memory_bytes,
            cpu_usage: unit.cpu_ns,
            tasks: unit.tasks,
            restart_count: unit.restarts,
            last_restart: unit.started_at_ms.map(Timestamp),
            enabled: unit.enabled.clone(),
            vendor_preset: unit.preset.clone(),
            main_pid: unit.pid,
            control_group: unit.control_group.clone(),
            drop_in: unit.drop_ins.clone(),
            loaded: unit.load == "loaded",
            docs: unit.docs.clone(),
            fragment_path: unit.fragment.clone(),
        }
    }
}

impl NetworkService {
    fn new(listener: &control::Listener) -> Self {
        let process = listener.process.as_ref();
        Self {
            protocol: listener.protocol,
            port: listener.port,
            ip: listener.ip.to_string(),
            pid: process.map(|process| process.pid),
            user: process.map(|process| process.user.clone()),
            program: process.map(|process| process.program.clone()),
            path: process.and_then(|process| process.path.clone()),
            args: process.map(|process| process.args.clone()),
        }
    }
}

impl Terminal {
    fn new(terminal: &control::Terminal) -> Self {
        let created = terminal.process.started_at_ms;
        Self {
            id: terminal.name.clone(),
            display: None,
            username: terminal.process.user.clone(),
            created_at: Timestamp(created),
            created_at_formatted: Timestamp(created),
            last_activity: terminal.last_activity_ms.map(Timestamp),
            last_activity_formatted: terminal.last_activity_ms.map(Timestamp),
            command_history: [],
        }
    }
}
