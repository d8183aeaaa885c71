//! What a hostname names.
//!
//! The grammar lives here and nowhere else: the proxy reads hostnames with [`RouteKey::parse`], the
//! API prints them with [`RouteKey::to_hostname`], and a property test holds the two inverse.
//! Nothing here does I/O or knows which containers exist; that is the route table's business.
//!
//! Invariant: every label fits in 63 octets. Two 24-digit ids leave 13 for the service and its
//! index, which is why long services have short slugs; `service` proves it at compile time.

use std::fmt;

use crate::{
    id::{ContainerId, ProjectId, RealmId, TEXT_LEN},
    name::{Domain, Hostname, check_label},
    service::Service,
};

/// How the container side of a port is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// TLS, with a certificate of the container's own.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a label without one means.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Which service of a container a hostname names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target<'h> {
    /// A Kit service and its index; `sub` is the extra leftmost label, which only `exec` has.
    Kit {
        /// The service.
        service: Service,
        /// Its instance; a label without an index means 1.
        index: u16,
        /// The script directory, one DNS label in front of the canonical one.
        sub: Option<&'h str>,
    },
    /// A port of the container.
    Port {
        /// How to speak to it.
        scheme: Scheme,
        /// Its number, never 0.
        port: u16,
    },
    /// The container's SSH name, `…-ssh` or `…-ssh-22`.
    Ssh,
}

/// What a hostname names, not yet looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RouteKey<'h> {
    /// One service of one container: a canonical hostname.
    Container {
        /// The server's label; the caller compares it with its own.
        server: &'h str,
        /// The project that the hostname claims.
        project: ProjectId,
        /// The container.
        container: ContainerId,
        /// Which service of it.
        target: Target<'h>,
    },
    /// The key-routed SSH gate of a server, `ssh.<server>.containers.<domain>`.
    SshGate {
        /// The server's label.
        server: &'h str,
    },
    /// A chosen label under a server's zone.
    Alias {
        /// The server's label.
        server: &'h str,
        /// The chosen label, 3 to 61 octets.
        label: &'h str,
    },
    /// The API, on its plain host or on the host of one realm.
    Api {
        /// The realm of `<realm>.api.<domain>`; any other first label is unscoped (as the
        /// reference has it) and parses as `None`.
        realm: Option<RealmId>,
    },
    /// A name outside the operator's domain, which may point here.
    Custom(Hostname<'h>),
}

/// Why a hostname under the operator's domain names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARoute {
    /// A name under the domain with a shape that the grammar does not have.
    #[error("the grammar has no hostname of this shape")]
    Shape,
    /// Two ids, then something that is no service.
    #[error("no service has this name")]
    UnknownService,
    /// An index or a port with a leading zero, too many digits, or out of range.
    #[error("the index or port is out of range or not canonical")]
    Number,
    /// A service that takes no index has one, or an extra label stands before one that takes none.
    #[error("this service takes no index or no extra label")]
    Extra,
}

impl<'h> RouteKey<'h> {
    /// Reads what `host` names. Allocates nothing but for custom hostnames that own their text.
    pub fn parse(host: &'h Hostname<'_>, domain: &Domain) -> Result<Self, NotARoute> {
        let name = host.as_str();
        let Some(below) = strip_parent(name, domain.as_str()) else {
            return Ok(Self::Custom(host.clone()));
        };
        if let Some(below_zone) = below.strip_suffix(".containers") {
            return Self::parse_below_zone(below_zone);
        }
        if below == "api" {
            return Ok(Self::Api { realm: None });
        }
        match below.strip_suffix(".api") {
            Some(realm) if !realm.contains('.') => Ok(Self::Api { realm: realm.parse().ok() }),
            _ => Err(NotARoute::Shape),
        }
    }

    fn parse_below_zone(below_zone: &'h str) -> Result<Self, NotARoute> {
        let (labels, server) = below_zone.rsplit_once('.').ok_or(NotARoute::Shape)?;
        check_label(server).map_err(|_name| NotARoute::Shape)?;
        // Nearly every request: one canonical label. Nothing is searched for in its ids.
        if let Some((project, container, service)) = split_canonical(labels)
            && !service.contains('.')
        {
            let target = Target::parse(service, None)?;
            return Ok(Self::Container { server, project, container, target });
        }
        let (sub, label) = match labels.rsplit_once('.') {
            None => (None, labels),
            Some((sub, label)) => {
                check_label(sub).map_err(|_name| NotARoute::Shape)?;
                (Some(sub), label)
            }
        };
        match split_canonical(label) {
            Some((project, container, service)) => {
                let target = Target::parse(service, sub)?;
                Ok(Self::Container { server, project, container, target })
            }
            None if sub.is_some() => Err(NotARoute::Shape),
            None if label == "ssh" => Ok(Self::SshGate { server }),
            None if is_alias(label) => Ok(Self::Alias { server, label }),
            None => Err(NotARoute::Shape),
        }
    }

    /// The hostname that this key prints as; [`RouteKey::parse`] of it gives the key back.
    pub fn to_hostname(&self, domain: &Domain) -> String {
        match self {
            Self::Container { server, project, container, target } => {
                let sub = match target {
                    Target::Kit { sub: Some(sub), .. } => format!("{sub}."),
                    Target::Kit { sub: None, .. } | Target::Port { .. } | Target::Ssh => {
                        String::new()
                    }
                };
                format!("{sub}{project}-{container}-{target}.{server}.{}", domain.zone())
            }
            Self::SshGate { server } => format!("ssh.{server}.{}", domain.zone()),
            Self::Alias { server, label } => format!("{label}.{server}.{}", domain.zone()),
            Self::Api { realm: None } => domain.api().to_owned(),
            Self::Api { realm: Some(realm) } => format!("{realm}.{}", domain.api()),
            Self::Custom(host) => host.to_string(),
        }
    }
}

impl<'h> Target<'h> {
    fn parse(text: &str, sub: Option<&'h str>) -> Result<Self, NotARoute> {
        let (slug, number) = match text.split_once('-') {
            Some((slug, number)) => (slug, Some(number)),
            None => (text, None),
        };
        let scheme = match slug {
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            _ => None,
        };
        if sub.is_some() && slug != Service::Exec.slug() {
            return Err(NotARoute::Extra);
        }
        if let Some(scheme) = scheme {
            let port = match number {
                Some(text) => canonical_number(text, 1, u16::MAX)?,
                None => scheme.default_port(),
            };
            return Ok(Self::Port { scheme, port });
        }
        if slug == "ssh" {
            return match number {
                None | Some("22") => Ok(Self::Ssh),
                Some(_) => Err(NotARoute::Extra),
            };
        }
        let service = Service::from_slug(slug).ok_or(NotARoute::UnknownService)?;
        let index = match number {
            Some(text) => canonical_number(text, service.index_min(), service.index_max())?,
            None => 1,
        };
        Ok(Self::Kit { service, index, sub })
    }
}

impl fmt::Display for Target<'_> {
    /// The service part of the canonical label, without the extra label of `exec`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kit { service, index, sub: _ } => write!(f, "{}-{index}", service.slug()),
            Self::Port { scheme, port } => write!(f, "{}-{port}", scheme.as_str()),
            Self::Ssh => f.write_str("ssh"),
        }
    }
}

/// Whether a label has the form of an alias: 3 to 61 of `a-z0-9-`, no hyphen at either end, not
/// `ssh`, which names the SSH gate, and not shaped like the start of a canonical label (two ids
/// joined by a hyphen). Which of these are reserved is for whoever hands out aliases to say.
pub fn is_alias(label: &str) -> bool {
    (3..=61).contains(&label.len())
        && label != "ssh"
        && check_label(label).is_ok()
        && !starts_canonical(label)
}

/// Whether a label starts with two ids, whatever follows.
pub(crate) fn starts_canonical(label: &str) -> bool {
    let ids = label.split_at_checked(TEXT_LEN).and_then(|(project, rest)| {
        let container = rest.strip_prefix('-')?.get(..TEXT_LEN)?;
        Some((project.parse::<ProjectId>().ok()?, container.parse::<ContainerId>().ok()?))
    });
    ids.is_some()
}

/// What stands before `.parent` in `name`; nothing when `name` is the parent itself or elsewhere.
fn strip_parent<'n>(name: &'n str, parent: &str) -> Option<&'n str> {
    let below = name.strip_suffix(parent)?;
    if below.is_empty() { Some("") } else { below.strip_suffix('.') }
}

/// Splits `<project>-<container>-<rest>`; the ids have a fixed width, so nothing is searched.
fn split_canonical(label: &str) -> Option<(ProjectId, ContainerId, &str)> {
    let (project, rest) = label.split_at_checked(TEXT_LEN)?;
    let (container, rest) = rest.strip_prefix('-')?.split_at_checked(TEXT_LEN)?;
    let service = rest.strip_prefix('-')?;
    Some((project.parse().ok()?, container.parse().ok()?, service))
}

/// A decimal number in its one spelling: no sign, no leading zero, within the bounds.
fn canonical_number(text: &str, min: u16, max: u16) -> Result<u16, NotARoute> {
    let canonical = match text.as_bytes() {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < 5 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return Err(NotARoute::Number);
    }
    let number = text.parse().map_err(|_too_large| NotARoute::Number)?;
    if (min..=max).contains(&number) { Ok(number) } else { Err(NotARoute::Number) }
}
