//! The Kit services by their slugs: what a canonical hostname may name.
//!
//! Only what the grammar needs stands here; ports, packages and units are the `kit` crate's data.

/// A service of the Kit, one slug each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the variants are the slugs; the kit crate says what each is")]
#[repr(u8)]
pub enum Service {
    Terminal,
    Display,
    Desktop,
    Files,
    Exec,
    Sqlite,
    Browser,
    Cdp,
    Code,
    Cron,
    Curl,
    Daemon,
    Notifications,
    Notes,
    Pipe,
    Run,
    Tunnel,
    Watch,
    Agent,
    Logs,
    Egress,
    Bot,
    Workspaces,
}

impl Service {
    /// Every service, in the order of the variants.
    pub const ALL: [Self; 23] = [
        Self::Terminal,
        Self::Display,
        Self::Desktop,
        Self::Files,
        Self::Exec,
        Self::Sqlite,
        Self::Browser,
        Self::Cdp,
        Self::Code,
        Self::Cron,
        Self::Curl,
        Self::Daemon,
        Self::Notifications,
        Self::Notes,
        Self::Pipe,
        Self::Run,
        Self::Tunnel,
        Self::Watch,
        Self::Agent,
        Self::Logs,
        Self::Egress,
        Self::Bot,
        Self::Workspaces,
    ];

    /// The slug that canonical hostnames carry.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Display => "display",
            Self::Desktop => "desktop",
            Self::Files => "files",
            Self::Exec => "exec",
            Self::Sqlite => "sqlite",
            Self::Browser => "browser",
            Self::Cdp => "cdp",
            Self::Code => "code",
            Self::Cron => "cron",
            Self::Curl => "curl",
            Self::Daemon => "daemon",
            Self::Notifications => "n",
            Self::Notes => "notes",
            Self::Pipe => "pipe",
            Self::Run => "run",
            Self::Tunnel => "tunnel",
            Self::Watch => "watch",
            Self::Agent => "agent",
            Self::Logs => "logs",
            Self::Egress => "egress",
            Self::Bot => "bot",
            Self::Workspaces => "workspaces",
        }
    }

    /// The service with this slug in a hostname; older spellings that still fit a label are known.
    pub fn from_slug(slug: &str) -> Option<Self> {
        Some(match slug {
            "terminal" => Self::Terminal,
            "display" => Self::Display,
            "desktop" => Self::Desktop,
            "files" => Self::Files,
            "exec" => Self::Exec,
            "sqlite" => Self::Sqlite,
            "browser" => Self::Browser,
            "cdp" => Self::Cdp,
            "code" => Self::Code,
            "cron" => Self::Cron,
            "curl" => Self::Curl,
            "daemon" => Self::Daemon,
            "n" => Self::Notifications,
            "notes" => Self::Notes,
            "pipe" => Self::Pipe,
            "run" => Self::Run,
            "tunnel" => Self::Tunnel,
            "watch" => Self::Watch,
            "agent" => Self::Agent,
            "logs" => Self::Logs,
            "egress" | "proxy" => Self::Egress,
            "bot" => Self::Bot,
            "workspaces" | "workspace" => Self::Workspaces,
            _ => return None,
        })
    }

    /// The name that documents and the API use: the slug, but for `notifications`, whose name would
    /// not fit a hostname.
    pub const fn name(self) -> &'static str {
        if matches!(self, Self::Notifications) { "notifications" } else { self.slug() }
    }

    /// The service with this name or one of the short forms that documents and aliases know.
    pub(crate) fn from_synonym(text: &str) -> Option<Self> {
        Some(match text {
            "tty" | "ttyd" | "t" => Self::Terminal,
            "d" => Self::Display,
            "w" => Self::Watch,
            "notification" | "n" => Self::Notifications,
            "f" => Self::Files,
            "e" => Self::Exec,
            "b" => Self::Browser,
            "log" | "l" => Self::Logs,
            "note" => Self::Notes,
            _ => return Self::ALL.into_iter().find(|service| service.name() == text),
        })
    }

    /// The least index: the official client addresses ephemeral terminals as `terminal-0`.
    pub const fn index_min(self) -> u16 {
        match self {
            Self::Terminal => 0,
            Self::Display
            | Self::Desktop
            | Self::Files
            | Self::Exec
            | Self::Sqlite
            | Self::Browser
            | Self::Cdp
            | Self::Code
            | Self::Cron
            | Self::Curl
            | Self::Daemon
            | Self::Notifications
            | Self::Notes
            | Self::Pipe
            | Self::Run
            | Self::Tunnel
            | Self::Watch
            | Self::Agent
            | Self::Logs
            | Self::Egress
            | Self::Bot
            | Self::Workspaces => 1,
        }
    }

    /// The greatest index; a desktop session maps to the X display `1600 + index`.
    pub const fn index_max(self) -> u16 {
        match self {
            Self::Desktop | Self::Display => 63_935,
            // `workspaces-` leaves two digits of the label's 63 octets.
            Self::Workspaces => 99,
            Self::Terminal
            | Self::Files
            | Self::Exec
            | Self::Sqlite
            | Self::Browser
            | Self::Cdp
            | Self::Code
            | Self::Cron
            | Self::Curl
            | Self::Daemon
            | Self::Notifications
            | Self::Notes
            | Self::Pipe
            | Self::Run
            | Self::Tunnel
            | Self::Watch
            | Self::Agent
            | Self::Logs
            | Self::Egress
            | Self::Bot => 9_999,
        }
    }
}

/// What a DNS label leaves for `<service>-<index>` after two ids and two hyphens.
pub const SERVICE_PART_MAX: usize = 63 - 2 * (crate::id::TEXT_LEN + 1);

/// How many decimal digits a number has.
const fn digits(mut number: u16) -> usize {
    let mut count = 1;
    while number >= 10 {
        number /= 10;
        count += 1;
    }
    count
}

// The label budget, proved at compile time: every service with its greatest index fits.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler; a wrong index stops the build"
)]
const _: () = {
    assert!(SERVICE_PART_MAX == 13);
    let mut at = 0;
    while at < Service::ALL.len() {
        let service = Service::ALL[at];
        assert!(service as usize == at, "ALL lists the variants in their order");
        assert!(service.slug().len() + 1 + digits(service.index_max()) <= SERVICE_PART_MAX);
        at += 1;
    }
    assert!("https-".len() + digits(u16::MAX) <= SERVICE_PART_MAX);
};
