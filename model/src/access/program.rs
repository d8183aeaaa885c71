//! What permission documents, hooks and aliases call the services.

use crate::{FieldError, Scheme, Service, Target};

/// The name of a program in a document: `http`, `https`, `ssh`, or that of a Kit service in its long
/// form (`notifications`, not `n`). `services` and `ui` are known too, because documents of the
/// reference have them; no hostname leads to either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Program(&'static str);

impl Program {
    /// Plain ports.
    pub const HTTP: Self = Self("http");
    /// Ports that speak TLS.
    pub const HTTPS: Self = Self("https");
    /// SSH.
    pub const SSH: Self = Self("ssh");
    /// The edge's own log of the container, which wants a literal `true`.
    pub const LOGS: Self = Self(Service::Logs.name());
    const SERVICES: Self = Self("services");
    const UI: Self = Self("ui");

    /// The program that a client names, in any of its spellings; `field` names it in the error.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        Self::from_name(text).ok_or_else(|| FieldError::new(field, "no service has this name"))
    }

    fn from_name(text: &str) -> Option<Self> {
        Some(match text {
            "http" => Self::HTTP,
            "https" => Self::HTTPS,
            "ssh" => Self::SSH,
            "services" => Self::SERVICES,
            "ui" => Self::UI,
            "kv" | "db" => Service::Sqlite.into(),
            "tun" => Service::Tunnel.into(),
            "hoody-daemon" => Service::Daemon.into(),
            "notification-server" => Service::Notifications.into(),
            "proxy-logs" | "proxyLogs" => Self::LOGS,
            _ => Service::from_synonym(text).or_else(|| Service::from_slug(text))?.into(),
        })
    }

    /// The program that a hostname leads to.
    pub fn of(target: &Target<'_>) -> Self {
        match target {
            Target::Kit { service, .. } => (*service).into(),
            Target::Port { scheme: Scheme::Http, .. } => Self::HTTP,
            Target::Port { scheme: Scheme::Https, .. } => Self::HTTPS,
            Target::Ssh => Self::SSH,
        }
    }

    /// The name, in its one spelling.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// Whether its cells are `true` or `false`, nothing else.
    pub(super) fn is_boolean(self) -> bool {
        [Self::SERVICES, Service::Files.into(), Service::Notifications.into(), Service::Exec.into()]
            .contains(&self)
    }

    /// Whether it has indexes or ports that a cell can tell apart.
    pub(super) fn has_numbers(self) -> bool {
        ![Self::SSH, Self::LOGS, Self::UI].contains(&self) && !self.is_boolean()
    }

    /// The least number that a cell may name: ports start at 1.
    pub(super) fn number_min(self) -> u16 {
        u16::from([Self::HTTP, Self::HTTPS].contains(&self))
    }
}

impl From<Service> for Program {
    fn from(service: Service) -> Self {
        Self(service.name())
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}
