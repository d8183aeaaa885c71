//! Every service of the Kit: where it listens, what its index means, what starts it.

use gantry_model::Service;

/// Where the welcome page listens in every container with the Kit.
pub const WELCOME_PORT: u16 = 19_800;

/// What is known of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The service.
    pub service: Service,
    /// Other names by which people call it, in aliases and permissions; not in hostnames.
    pub synonyms: &'static [&'static str],
    /// What it shows to whom.
    pub kind: Kind,
    /// Its role in two or three words.
    pub role: &'static str,
    /// What the number after its slug means.
    pub index: IndexMeaning,
    /// Where it listens in the container.
    pub port: PortRule,
    /// What it speaks there.
    pub scheme: Scheme,
    /// The systemd unit that starts it, or the template of one unit per index (`name@.service`).
    pub unit: Option<&'static str>,
    /// The path that answers 200 when it is well.
    pub health_path: &'static str,
    /// The Debian packages that it is made from; a name may carry a release after a slash.
    pub packages: &'static [&'static str],
    /// Whether images have it. Of the others a container may have a program of its own.
    pub provided: bool,
    /// What it does, in one sentence for people.
    pub summary: &'static str,
}

/// What a service shows to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pages for a browser, and mostly an API beside them.
    Page,
    /// An API only.
    Api,
    /// Something other than plain HTTP requests.
    Stream,
    /// The edge itself answers; nothing in the container does.
    Edge,
}

/// What the number after a slug means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexMeaning {
    /// There is one; the number is 1.
    Single,
    /// The number names one of several instances.
    Instance,
    /// The number is that of an X display.
    Display,
    /// The number is that of a desktop session, on display 1600 + number.
    Session,
}

/// Where a service listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRule {
    /// All indexes on one port; the edge says which index is meant.
    Shared(u16),
    /// Each index on a port of its own, `first + index`.
    Each {
        /// The port of index 0.
        first: u16,
        /// The greatest index.
        index_max: u16,
    },
}

/// What a service speaks on its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP/1.1, with WebSocket upgrades.
    Http,
}

impl Entry {
    /// The port of an index in the container. An index beyond the service's range, which no hostname
    /// can name, gets the greatest one's.
    pub const fn port(&self, index: u16) -> u16 {
        match self.port {
            PortRule::Shared(port) => port,
            PortRule::Each { first, index_max } => {
                first + if index < index_max { index } else { index_max }
            }
        }
    }

    /// The unit that serves this index; `None` when the service is not provided.
    pub fn unit_of(&self, index: u16) -> Option<String> {
        let unit = self.unit?;
        Some(match unit.split_once('@') {
            Some((name, ending)) => format!("{name}@{index}{ending}"),
            None => unit.to_owned(),
        })
    }
}

/// Every service, in the order of [`Service::ALL`].
pub fn catalogue() -> &'static [Entry] {
    &ENTRIES
}

/// What is known of a service.
#[expect(clippy::indexing_slicing, reason = "a test holds the table to the order of the variants")]
pub fn entry(service: Service) -> &'static Entry {
    &ENTRIES[service as usize]
}

/// The command that starts a service in a running container, as root. It returns when the service
/// accepts connections, may be repeated, and waits up to 10 s for an init that is still at its
/// beginning. `None` when the service is not provided.
pub fn start_command(service: Service, index: u16) -> Option<Vec<String>> {
    let unit = entry(service).unit_of(index)?;
    Some(vec!["/usr/lib/gantry/start".to_owned(), unit])
}

/// A service that no image has yet.
const fn planned(
    service: Service,
    (kind, role): (Kind, &'static str),
    index: IndexMeaning,
    port: u16,
    health_path: &'static str,
    summary: &'static str,
) -> Entry {
    Entry {
        service,
        synonyms: &[],
        kind,
        role,
        index,
        port: PortRule::Shared(port),
        scheme: Scheme::Http,
        unit: None,
        health_path,
        packages: &[],
        provided: false,
        summary,
    }
}

const TERMINAL: Entry = Entry {
    service: Service::Terminal,
    synonyms: &["tty", "ttyd", "t"],
    kind: Kind::Page,
    role: "web terminal",
    index: IndexMeaning::Instance,
    port: PortRule::Each { first: 20_000, index_max: 9_999 },
    scheme: Scheme::Http,
    unit: Some("gantry-terminal@.service"),
    health_path: "/api/v1/terminal/health",
    packages: &["python3-terminado", "libjs-xterm", "tmux"],
    provided: true,
    summary: "A root shell in the browser; its session outlives the page, and all who open it share it.",
};

const FILES: Entry = Entry {
    service: Service::Files,
    synonyms: &["f"],
    kind: Kind::Page,
    role: "file access",
    index: IndexMeaning::Single,
    port: PortRule::Shared(19_801),
    scheme: Scheme::Http,
    unit: Some("gantry-files.socket"),
    health_path: "/api/v1/files/health",
    packages: &["lighttpd", "lighttpd-mod-webdav"],
    provided: true,
    summary: "The container's file system: listings, downloads, uploads and WebDAV.",
};

static ENTRIES: [Entry; Service::ALL.len()] = [
    TERMINAL,
    Entry {
        synonyms: &["d"],
        ..planned(
            Service::Display,
            (Kind::Page, "remote desktop"),
            IndexMeaning::Display,
            19_821,
            "/api/v1/display/health",
            "An X display in the browser: view, click, type, clipboard, screenshots.",
        )
    },
    planned(
        Service::Desktop,
        (Kind::Page, "desktop session"),
        IndexMeaning::Session,
        // The first terminal opens it.
        TERMINAL.port(1),
        "/api/v1/terminal/health",
        "A desktop session, shown on a display of its own.",
    ),
    FILES,
    Entry {
        synonyms: &["e"],
        ..planned(
            Service::Exec,
            (Kind::Api, "scripts as endpoints"),
            IndexMeaning::Single,
            19_802,
            "/api/v1/exec/health",
            "Scripts of a directory tree as HTTP endpoints.",
        )
    },
    Entry {
        synonyms: &["kv", "db"],
        ..planned(
            Service::Sqlite,
            (Kind::Api, "SQL and key-value store"),
            IndexMeaning::Single,
            19_803,
            "/api/v1/sqlite/health",
            "SQLite databases and a key-value store over HTTP.",
        )
    },
    Entry {
        synonyms: &["b"],
        ..planned(
            Service::Browser,
            (Kind::Page, "remote browser"),
            IndexMeaning::Instance,
            19_804,
            "/api/v1/browser/health",
            "Long-lived browsers that programs and people steer.",
        )
    },
    planned(
        Service::Cdp,
        (Kind::Stream, "browser debugging socket"),
        IndexMeaning::Instance,
        19_805,
        "/json/version",
        "The debugging socket of a browser.",
    ),
    planned(
        Service::Code,
        (Kind::Page, "code editor"),
        IndexMeaning::Instance,
        19_806,
        "/api/v1/code/health",
        "A code editor in the browser.",
    ),
    planned(
        Service::Cron,
        (Kind::Api, "timetable"),
        IndexMeaning::Single,
        19_807,
        "/api/v1/cron/health",
        "Managed entries of the users' crontabs.",
    ),
    planned(
        Service::Curl,
        (Kind::Api, "outgoing requests"),
        IndexMeaning::Single,
        19_808,
        "/api/v1/curl/health",
        "Outgoing HTTP requests as jobs and on schedules.",
    ),
    planned(
        Service::Daemon,
        (Kind::Api, "program supervision"),
        IndexMeaning::Single,
        19_809,
        "/api/v1/daemon/health",
        "Programs that are kept running, with logs and port ranges.",
    ),
    Entry {
        synonyms: &["notifications", "notification"],
        ..planned(
            Service::Notifications,
            (Kind::Page, "notifications"),
            IndexMeaning::Display,
            19_810,
            "/api/v1/notifications/health",
            "Notifications of programs, listed and streamed.",
        )
    },
    Entry {
        synonyms: &["note"],
        ..planned(
            Service::Notes,
            (Kind::Page, "notebooks"),
            IndexMeaning::Single,
            19_811,
            "/api/v1/notes/health",
            "Notebooks that several people edit.",
        )
    },
    planned(
        Service::Pipe,
        (Kind::Page, "streams between peers"),
        IndexMeaning::Single,
        19_812,
        "/api/v1/pipe/health",
        "Hands a stream from a sender to receivers without storing it.",
    ),
    planned(
        Service::Run,
        (Kind::Api, "program resolver"),
        IndexMeaning::Single,
        19_813,
        "/api/v1/run/health",
        "Finds the command that runs a program, wherever it is packaged.",
    ),
    Entry {
        synonyms: &["tun"],
        ..planned(
            Service::Tunnel,
            (Kind::Stream, "reverse tunnels"),
            IndexMeaning::Single,
            19_814,
            "/api/v1/tunnel/health",
            "Tunnels between the container and machines elsewhere.",
        )
    },
    Entry {
        synonyms: &["w"],
        ..planned(
            Service::Watch,
            (Kind::Api, "file events"),
            IndexMeaning::Single,
            19_815,
            "/api/v1/watch/health",
            "Changes of files as a stream of events.",
        )
    },
    planned(
        Service::Agent,
        (Kind::Page, "coding agents"),
        IndexMeaning::Single,
        19_816,
        "/api/v1/agent/health",
        "Coding agents with a page and an API.",
    ),
    Entry {
        synonyms: &["log", "l", "proxy-logs"],
        ..planned(
            Service::Logs,
            (Kind::Edge, "access logs"),
            IndexMeaning::Single,
            19_817,
            "/_logs/stats",
            "What the edge has logged of this container's requests.",
        )
    },
    planned(
        Service::Egress,
        (Kind::Stream, "outgoing proxy"),
        IndexMeaning::Single,
        19_818,
        "/api/v1/egress/health",
        "An outgoing proxy whose requests leave from the container.",
    ),
    planned(
        Service::Bot,
        (Kind::Api, "chat bot bridge"),
        IndexMeaning::Single,
        19_819,
        "/api/v1/bot/health",
        "A bridge between a chat bot and the container.",
    ),
    planned(
        Service::Workspaces,
        (Kind::Page, "workspaces"),
        IndexMeaning::Single,
        19_820,
        "/api/v1/workspaces/health",
        "An older page with editor and agents.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// What people run on their machines without thinking about the port.
    const COMMON: [u16; 44] = [
        22, 25, 53, 80, 443, 631, 1433, 1521, 1883, 2375, 3000, 3001, 3128, 3306, 3389, 4000, 4200,
        4321, 5000, 5173, 5432, 5601, 5672, 5900, 6379, 6443, 7681, 8000, 8008, 8080, 8081, 8443,
        8787, 8888, 9000, 9090, 9092, 9200, 10_000, 11_211, 11_434, 15_672, 19_132, 19_530,
    ];

    fn indexes(entry: &Entry) -> impl Iterator<Item = u16> {
        entry.service.index_min()..=entry.service.index_max()
    }

    #[test]
    fn every_service_has_its_entry_at_its_place() {
        for (entry, service) in catalogue().iter().zip(Service::ALL) {
            assert_eq!(entry.service, service);
            assert_eq!(super::entry(service), entry);
            assert!(entry.health_path.starts_with('/') && entry.summary.ends_with('.'));
            assert!(!entry.role.is_empty());
        }
        assert_eq!(catalogue().len(), Service::ALL.len());
    }

    #[test]
    fn no_two_services_share_a_port() {
        let mut owners = BTreeMap::from([(WELCOME_PORT, "the welcome page".to_owned())]);
        for entry in catalogue().iter().filter(|entry| entry.service != Service::Desktop) {
            let slug = entry.service.slug();
            let ports: BTreeSet<u16> = indexes(entry).map(|index| entry.port(index)).collect();
            for port in ports {
                if let Some(other) = owners.insert(port, slug.to_owned()) {
                    panic!("port {port} belongs to {other} and {slug}");
                }
            }
        }
        for common in COMMON {
            assert!(!owners.contains_key(&common), "port {common} is in common use");
        }
        // Below what the kernel gives to outgoing connections, above what needs a privilege.
        assert!(owners.keys().all(|port| (1024..32_768).contains(port)));
    }

    #[test]
    fn a_desktop_is_asked_of_the_program_that_the_edge_means() {
        let (service, index) = gantry_model::selector::program(Service::Desktop, 7);
        assert_eq!(entry(Service::Desktop).port(7), entry(service).port(index));
    }

    #[test]
    fn each_index_of_a_terminal_has_a_port_of_its_own() {
        let terminal = entry(Service::Terminal);
        let ports: BTreeSet<u16> = indexes(terminal).map(|index| terminal.port(index)).collect();
        assert_eq!(ports.len(), indexes(terminal).count());
        assert_eq!((terminal.port(0), terminal.port(1)), (20_000, 20_001));
        assert_eq!(terminal.port(u16::MAX), 29_999);
    }

    #[test]
    fn a_provided_service_has_a_unit_and_packages_and_no_other_has() {
        for entry in catalogue() {
            let slug = entry.service.slug();
            assert_eq!(entry.provided, entry.unit.is_some(), "unit of {slug}");
            assert_eq!(entry.provided, !entry.packages.is_empty(), "packages of {slug}");
            assert_eq!(
                entry.provided,
                start_command(entry.service, 1).is_some(),
                "start of {slug}"
            );
        }
    }

    #[test]
    fn the_start_command_names_the_unit_of_the_index() {
        for (service, index, unit) in [
            (Service::Terminal, 0, "gantry-terminal@0.service"),
            (Service::Terminal, 9999, "gantry-terminal@9999.service"),
            (Service::Files, 1, "gantry-files.socket"),
        ] {
            let command = start_command(service, index).unwrap();
            assert_eq!(command, ["/usr/lib/gantry/start", unit]);
        }
        assert_eq!(start_command(Service::Code, 1), None);
    }

    #[test]
    fn a_synonym_means_one_service_and_is_no_slug() {
        let mut seen: BTreeMap<&str, Service> =
            Service::ALL.into_iter().map(|service| (service.slug(), service)).collect();
        for entry in catalogue() {
            for &synonym in entry.synonyms {
                let before = seen.insert(synonym, entry.service);
                assert_eq!(before, None, "synonym {synonym} of {}", entry.service.slug());
            }
        }
    }
}
