//! From what a container prints about itself to what runs inside. A line that makes no sense is left out.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
};

use super::{Display, Inside, Listener, Process, Terminal, Unit};

/// The most entries of each list.
const ENTRIES_MAX: usize = 512;
/// The longest text, in characters.
const TEXT_MAX: usize = 1024;
/// The ticks of a second in `/proc/<pid>/stat`.
const TICKS: i64 = 100;
/// The device number of the first pseudo-terminals.
const PTS_MAJOR: u64 = 136;

/// What one process said about itself in one line.
struct Stat {
    name: String,
    session: u32,
    tty: u64,
    started_at_ms: i64,
}

/// Everything about processes.
struct Processes<'t> {
    stats: BTreeMap<u32, Stat>,
    users: HashMap<u32, &'t str>,
    paths: HashMap<u32, &'t str>,
    args: HashMap<u32, String>,
    /// By the number of a socket.
    owners: HashMap<u64, u32>,
}

/// Reads the answer of the script.
pub(super) fn inside(answer: &str, now_ms: i64) -> Inside {
    let (head, commands) = answer.split_once("\n@@cmd\n").unwrap_or((answer, ""));
    let sections = sections(head);
    let text = |name: &str| sections.get(name).copied().unwrap_or_default();
    let processes = Processes {
        stats: stats(text("stat"), text("uptime"), now_ms),
        users: users(text("uid"), text("users")),
        paths: paths(text("exe")),
        args: args(commands),
        owners: owners(text("fd")),
    };
    let mut listeners = Vec::new();
    for (name, protocol) in [("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp")] {
        listeners.extend(sockets(text(name), protocol, &processes));
    }
    listeners.sort_by_key(|listener: &Listener| (listener.port, listener.protocol, listener.ip));
    listeners.truncate(ENTRIES_MAX);
    Inside {
        services: units(text("units")),
        listeners,
        terminals: terminals(&processes, text("pts")),
        displays: displays(text("unix"), &processes),
    }
}

fn sections(text: &str) -> HashMap<&str, &str> {
    let parts = text.strip_prefix("@@").unwrap_or_default().split("\n@@");
    parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).collect()
}

fn cut(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_MAX).collect()
}

/// The number in `/proc/<number>/…`.
fn pid_of(path: &str) -> Option<u32> {
    path.strip_prefix("/proc/")?.split('/').next()?.parse().ok()
}

fn stats(lines: &str, uptime: &str, now_ms: i64) -> BTreeMap<u32, Stat> {
    let uptime = uptime.split([' ', '.']).next().and_then(|text| text.parse::<i64>().ok());
    let booted_at_ms = now_ms.saturating_sub(uptime.unwrap_or(0).saturating_mul(1000));
    let read = |line: &str| {
        let (pid, rest) = line.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let session = fields.nth(3)?.parse().ok()?;
        let tty = fields.next()?.parse().ok()?;
        let ticks: i64 = fields.nth(14)?.parse().ok()?;
        let started_at_ms =
            booted_at_ms.saturating_add(ticks.saturating_mul(1000).div_euclid(TICKS));
        Some((pid.parse().ok()?, Stat { name: cut(name), session, tty, started_at_ms }))
    };
    lines.lines().filter_map(read).collect()
}

/// Whose each process is.
fn users<'a>(lines: &'a str, passwd: &'a str) -> HashMap<u32, &'a str> {
    let names = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?, name))
    });
    let names: HashMap<&str, &str> = names.collect();
    let read = |line: &'a str| {
        let (path, ids) = line.split_once(":Uid:")?;
        let id = ids.split_whitespace().nth(1)?;
        // Not a copy: one long name can be that of thousands of processes.
        Some((pid_of(path)?, *names.get(id).unwrap_or(&id)))
    };
    lines.lines().filter_map(read).collect()
}

fn paths(lines: &str) -> HashMap<u32, &str> {
    let read = |line| {
        let (link, target) = str::split_once(line, " -> ")?;
        let (_, link) = link.rsplit_once(' ')?;
        Some((pid_of(link)?, target))
    };
    lines.lines().filter_map(read).collect()
}

fn args(answer: &str) -> HashMap<u32, String> {
    let mut all: HashMap<u32, String> = HashMap::new();
    for part in answer.split('\0') {
        let Some((path, arg)) = part.split_once("/cmdline:") else { continue };
        let Some(pid) = pid_of(path) else { continue };
        let args = all.entry(pid).or_default();
        if args.len() < TEXT_MAX {
            if !args.is_empty() {
                args.push(' ');
            }
            args.push_str(&cut(arg));
        }
    }
    all
}

/// Which process holds which socket.
fn owners(lines: &str) -> HashMap<u64, u32> {
    let mut owners = HashMap::new();
    let mut pid = None;
    for line in lines.lines() {
        if let Some(dir) = line.strip_suffix("/fd:") {
            pid = pid_of(dir);
        } else if let Some(pid) = pid
            && let Some((_, socket)) = line.rsplit_once(" -> socket:[")
            && let Some(inode) = socket.strip_suffix(']').and_then(|inode| inode.parse().ok())
        {
            owners.insert(inode, pid);
        }
    }
    owners
}

impl Processes<'_> {
    fn process(&self, pid: u32) -> Option<Process> {
        let stat = self.stats.get(&pid)?;
        Some(Process {
            pid,
            user: self.users.get(&pid).map(|user| cut(user)).unwrap_or_default(),
            program: stat.name.clone(),
            path: self.paths.get(&pid).map(|path| cut(path)),
            args: self.args.get(&pid).cloned().unwrap_or_default(),
            started_at_ms: stat.started_at_ms,
        })
    }

    fn owner(&self, inode: u64) -> Option<Process> {
        self.process(*self.owners.get(&inode)?)
    }
}

/// What listens, from `/proc/net/<protocol>`: sockets that listen, or wait for datagrams of anybody.
fn sockets(table: &str, protocol: &'static str, processes: &Processes<'_>) -> Vec<Listener> {
    let waits = if protocol == "tcp" { "0A" } else { "07" };
    let read = |line: &str| {
        let mut fields = line.split_whitespace();
        let (address, port) = fields.nth(1)?.split_once(':')?;
        if fields.nth(1)? != waits {
            return None;
        }
        let inode = fields.nth(5)?.parse().ok()?;
        Some(Listener {
            protocol,
            port: u16::from_str_radix(port, 16).ok()?,
            ip: address_of(address)?,
            process: processes.owner(inode),
        })
    };
    table.lines().skip(1).filter_map(read).take(ENTRIES_MAX).collect()
}

/// The kernel prints addresses as numbers of 32 bits in the order of its own octets.
fn address_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..(at + 1) * 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => word(0).map(IpAddr::from),
        32 => {
            let mut octets = Vec::with_capacity(16);
            for at in 0..4 {
                octets.extend(word(at)?);
            }
            let octets: [u8; 16] = octets.try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

fn terminals(processes: &Processes<'_>, pts: &str) -> Vec<Terminal> {
    let used: HashMap<&str, i64> = pts
        .lines()
        .filter_map(|line| {
            let (at, name) = line.split_once(" /dev/")?;
            Some((name, at.parse::<i64>().ok()?.saturating_mul(1000)))
        })
        .collect();
    let leads = |(pid, stat): (&u32, &Stat)| {
        let major = (stat.tty >> 8) & 0xfff;
        if stat.session != *pid || !(PTS_MAJOR..PTS_MAJOR + 8).contains(&major) {
            return None;
        }
        let minor = (stat.tty & 0xff) | ((stat.tty >> 12) & 0xf_ff00);
        let name = format!("pts/{}", (major - PTS_MAJOR) * 256 + minor);
        let last_activity_ms = used.get(name.as_str()).copied();
        Some(Terminal { process: processes.process(*pid)?, last_activity_ms, name })
    };
    let mut terminals: Vec<Terminal> = processes.stats.iter().filter_map(leads).collect();
    terminals.sort_by_key(|terminal| (terminal.process.started_at_ms, terminal.process.pid));
    terminals.truncate(ENTRIES_MAX);
    terminals
}

/// The sockets that X servers listen at, from `/proc/net/unix`.
fn displays(table: &str, processes: &Processes<'_>) -> Vec<Display> {
    let mut displays = BTreeMap::new();
    for line in table.lines() {
        let mut fields = line.split_whitespace();
        let (listens, inode) = (fields.nth(3) == Some("00010000"), fields.nth(2));
        let number = fields
            .next()
            .and_then(|path| path.rsplit_once("/.X11-unix/X"))
            .and_then(|(_, number)| number.parse::<u32>().ok());
        let (Some(number), true) = (number, listens) else { continue };
        let process = inode.and_then(|inode| processes.owner(inode.parse().ok()?));
        displays.entry(number).or_insert_with(|| Display { name: format!(":{number}"), process });
    }
    displays.into_values().take(ENTRIES_MAX).collect()
}

/// The answer of `systemctl show`: blocks of `Name=value` with an empty line between them.
fn units(text: &str) -> Vec<Unit> {
    let mut units: Vec<Unit> = text.split("\n\n").filter_map(unit).take(ENTRIES_MAX).collect();
    units.sort_by(|a, b| a.name.cmp(&b.name));
    units
}

fn unit(block: &str) -> Option<Unit> {
    let mut unit = Unit::default();
    for line in block.lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        let text = || cut(value);
        // What is not counted is a text in brackets, or the greatest number.
        let number = || value.parse::<u64>().ok().filter(|number| *number < u64::MAX);
        let time = || {
            let seconds = value.strip_prefix('@')?.parse::<i64>().ok()?;
            Some(seconds.saturating_mul(1000)).filter(|at_ms| *at_ms > 0)
        };
        match name {
            "Id" => unit.name = text(),
            "Description" => unit.description = text(),
            "LoadState" => unit.load = text(),
            "ActiveState" => unit.active = text(),
            "SubState" => unit.sub = text(),
            "UnitFileState" => unit.enabled = text(),
            "UnitFilePreset" => unit.preset = text(),
            "MainPID" => unit.pid = value.parse().ok().filter(|pid| *pid > 0),
            "ActiveEnterTimestamp" => unit.since_ms = time(),
            "ExecMainStartTimestamp" => unit.started_at_ms = time(),
            "MemoryCurrent" => unit.memory_bytes = number(),
            "CPUUsageNSec" => unit.cpu_ns = number(),
            "TasksCurrent" => unit.tasks = number(),
            "NRestarts" => unit.restarts = number(),
            "ControlGroup" => unit.control_group = text(),
            "DropInPaths" => unit.drop_ins = text(),
            "Documentation" => unit.docs = text(),
            "FragmentPath" => unit.fragment = text(),
            _ => {}
        }
    }
    (!unit.name.is_empty()).then_some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = include_str!("answer.txt");

    #[test]
    fn an_answer_tells_ports_with_their_programs() {
        let inside = inside(ANSWER, 10_000_000);
        let seen: Vec<_> = inside
            .listeners
            .iter()
            .map(|l| {
                let process = l.process.as_ref();
                (l.protocol, l.port, l.ip.to_string(), process.map(|p| (p.pid, p.program.as_str())))
            })
            .collect();
        let want = [
            ("udp", 53, "127.0.0.1".to_owned(), None),
            ("tcp", 3000, "0.0.0.0".to_owned(), Some((77, "odd ) name"))),
            ("tcp", 3000, "::1".to_owned(), Some((77, "odd ) name"))),
        ];
        assert_eq!(seen, want);
        let process = inside.listeners[1].process.as_ref().unwrap();
        assert_eq!(process.user, "app");
        assert_eq!(process.path.as_deref(), Some("/usr/bin/python3.13"));
        assert_eq!(process.args, "python3 -m http.server");
        // Up for 100 s, started 50 s after the boot.
        assert_eq!(process.started_at_ms, 9_950_000);
    }

    #[test]
    fn an_answer_tells_services_terminals_and_displays() {
        let inside = inside(ANSWER, 10_000_000);
        let names: Vec<_> = inside.services.iter().map(|unit| unit.name.as_str()).collect();
        assert_eq!(names, ["cron.service", "idle.service"]);
        let cron = &inside.services[0];
        assert_eq!((cron.active.as_str(), cron.sub.as_str()), ("active", "running"));
        assert_eq!((cron.pid, cron.tasks, cron.restarts), (Some(40), Some(1), Some(0)));
        assert_eq!(cron.since_ms, Some(1_700_000_000_000));
        let idle = &inside.services[1];
        assert_eq!(
            (idle.pid, idle.memory_bytes, idle.cpu_ns, idle.since_ms),
            (None, None, None, None)
        );
        let terminal = &inside.terminals[0];
        assert_eq!((terminal.name.as_str(), terminal.process.pid), ("pts/1", 90));
        assert_eq!(terminal.last_activity_ms, Some(9_000_000));
        assert_eq!(inside.terminals.len(), 1);
        assert_eq!(inside.displays.len(), 1, "a socket that does not listen is no display");
        assert_eq!(inside.displays[0].name, ":7");
        assert_eq!(inside.displays[0].process.as_ref().unwrap().pid, 91);
    }

    proptest::proptest! {
        /// A container may say what it likes.
        #[test]
        fn any_answer_is_read(at in 0..2000_usize, text in "(@@[a-z]{2,5}|[ -~\n\\x00]){0,40}") {
            let mut answer: String = ANSWER.chars().take(at).collect();
            answer.push_str(&text);
            inside(&answer, 0);
        }
    }
}
