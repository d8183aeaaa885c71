//! What the edge puts into the query of a request to a Kit service: which instance is meant.
//!
//! A hostname names a service and an index; programs that serve all their instances on one port, or
//! keep several sessions in one instance, are told by parameters. Those that the edge sets win over
//! the caller's.

use crate::{
    Service,
    query::{pairs, push, sets, split},
};

/// X displays from here on belong to desktop sessions.
const DESKTOP_DISPLAY: u16 = 1600;

/// The program that answers for this instance: its own, but for desktops, which the first terminal
/// opens.
pub const fn program(service: Service, index: u16) -> (Service, u16) {
    if matches!(service, Service::Desktop) { (Service::Terminal, 1) } else { (service, index) }
}

/// The terminal's session that a desktop is, and the display that it is shown on.
pub const fn desktop_session(index: u16) -> u16 {
    index.saturating_add(DESKTOP_DISPLAY)
}

/// The path and query that a request to this instance goes on with; nothing when they stay as they
/// are. At most 80 octets longer.
///
/// `terminal-N` gets `terminal_id=N`, and `display=N` unless the caller names another one; the
/// ephemeral `terminal-0` neither. `display-N` and `n-N` get `display=N`. `code-N` gets `id=N`, and `/`
/// a `folder` if the caller names none. `desktop-N` asks its program for a session on the display
/// 1600+N; of the caller's parameters it takes `desktop_env` alone.
pub fn select(service: Service, index: u16, path_and_query: &str) -> Option<String> {
    let (path, query) = split(path_and_query);
    let lacks = |name: &str| !pairs(query).any(|pair| sets(pair, |key| key == name.as_bytes()));
    let mut own: Vec<(&str, String)> = Vec::new();
    match service {
        Service::Terminal if index == 0 => return None,
        Service::Terminal => {
            if lacks("display") {
                own.push(("display", index.to_string()));
            }
            own.push(("terminal_id", index.to_string()));
        }
        Service::Display | Service::Notifications => own.push(("display", index.to_string())),
        Service::Code => {
            if path == "/" && lacks("folder") {
                own.push(("folder", "/root".to_owned()));
            }
            own.push(("id", index.to_string()));
        }
        Service::Desktop => {
            let display = desktop_session(index).to_string();
            own.push(("desktop", "true".to_owned()));
            own.push(("redirect", "display".to_owned()));
            own.push(("terminal_id", display.clone()));
            own.push(("display", display));
        }
        Service::Files
        | Service::Exec
        | Service::Sqlite
        | Service::Browser
        | Service::Cdp
        | Service::Cron
        | Service::Curl
        | Service::Daemon
        | Service::Notes
        | Service::Pipe
        | Service::Run
        | Service::Tunnel
        | Service::Watch
        | Service::Agent
        | Service::Logs
        | Service::Egress
        | Service::Bot
        | Service::Workspaces => return None,
    }
    let keeps = |pair: &&str| {
        if service == Service::Desktop {
            return matches!(*pair, "desktop_env=xfce" | "desktop_env=mate");
        }
        !sets(pair, |key| own.iter().any(|(name, _)| name.as_bytes() == key))
    };
    let mut target = String::with_capacity(path_and_query.len() + 80);
    target.push_str(path);
    for pair in pairs(query).filter(keeps) {
        push(&mut target, pair);
    }
    for (name, value) in &own {
        push(&mut target, &format!("{name}={value}"));
    }
    Some(target)
}
