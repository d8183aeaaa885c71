//! What the machine of a server does now, and what its operator lets people have done there.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::extract::State;
use gantry_control::Error;
use gantry_model::{ServerId, id::kind};

use crate::{
    Front, Machine,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::{Field, Holds},
    problem::{Kind, Problem},
    surface::{Method, Operation, Surface},
    wire::{self, LoadMeans},
};

const TAG: &str = "Servers";
/// For how long one look is good.
const FRESH: Duration = Duration::from_secs(2);
/// Between which two looks the processors are counted: not longer ago, or it would not be now.
const COUNTED_MAX: Duration = Duration::from_secs(30);
/// How long they are counted where nobody has looked lately.
const COUNTED: Duration = Duration::from_millis(250);

static COMMAND: [Field; 6] = [
    Field::new("command_id", Holds::Id, "Which command, by its id").nullable(),
    Field::new("command_slug", Holds::Text { min: 1, max: 100 }, "The same, by its name")
        .nullable(),
    Field::new("parameters", Holds::Object, "What it is to be run with").nullable(),
    Field::new("wait", Holds::Flag, "Whether the answer waits for its end"),
    Field::new("timeout", Holds::Count, "How long it may take, in seconds"),
    Field::new("confirmation_token", Holds::Text { min: 1, max: 255 }, "That it is meant")
        .nullable(),
];

pub(crate) fn surface(surface: Surface) -> Surface {
    let get = &[Method::Get];
    surface
        .serve(
            get,
            &["/api/v1/servers/{id}/runtime", "/api/v1/rentals/{id}/runtime"],
            runtime,
            &Operation::new(
                "getServerRuntime",
                TAG,
                "Shows what the machine of a server does now, for whoever has logged in",
            )
            .answers::<wire::ServerRuntime>(200),
        )
        .serve(
            get,
            &["/api/v1/servers/{id}/available-commands"],
            commands,
            &Operation::new(
                "listServerCommands",
                TAG,
                "Lists what can be run on a server; operators cannot offer anything yet",
            )
            .answers::<wire::ServerCommands>(200),
        )
        .serve(
            &[Method::Post],
            &["/api/v1/servers/{id}/execute-command"],
            execute,
            &Operation::new(
                "executeServerCommand",
                TAG,
                "Runs one of the server's commands; 404, because there are none",
            )
            .takes(&COMMAND),
        )
}

async fn runtime(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Server>,
) -> Result<Answer<wire::ServerRuntime>, Problem> {
    actor.require_session().map_err(Error::from)?;
    let id: ServerId = id;
    front.control.server_view(&actor, id).await?;
    if !front.control.is_own_server(id) {
        let why =
            "what another machine than the one that answers does is not told here; ask that one";
        return Err(Problem::new(Kind::NotImplemented, why));
    }
    let (look, age) = front.gauge.look(front.control.clock().now_ms()).await.map_err(|error| {
        Problem::new(Kind::Internal, "Something went wrong inside; it was logged").caused_by(error)
    })?;
    let runtime = wire::ServerRuntime::new(&look, id, age);
    Ok(Answer::ok("Server runtime retrieved successfully", runtime))
}

async fn commands(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Server>,
) -> Result<Answer<wire::ServerCommands>, Problem> {
    actor.require_session().map_err(Error::from)?;
    let server = front.control.server_view(&actor, id).await?;
    let message = "This version of Gantry has no commands that operators could offer";
    Ok(Answer::ok(message, wire::ServerCommands::new(&server)))
}

async fn execute(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Server>,
    body: JsonObject,
) -> Result<Answer<()>, Problem> {
    actor.require_session().map_err(Error::from)?;
    let mut fields = body.fields(&COMMAND);
    fields.known();
    fields.finish(Some(()))?;
    front.control.server_view(&actor, id).await?;
    let why = "there is no such command: this version of Gantry has none that operators could offer; \
               GET /api/v1/servers/{id}/available-commands lists what there is";
    Err(Problem::new(Kind::ResourceNotFound, why))
}

/// How much of something is taken, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) used: u64,
    pub(crate) total: u64,
}

/// What a machine does at one moment; nothing where the host does not say.
#[derive(Debug, Default)]
pub(crate) struct Look {
    pub(crate) at_ms: i64,
    pub(crate) uptime_s: Option<u64>,
    pub(crate) cores: Option<u32>,
    /// The mean numbers of tasks that run or want to, of 1, 5 and 15 minutes.
    pub(crate) load: Option<LoadMeans>,
    pub(crate) busy_pct: Option<f64>,
    pub(crate) memory: Option<Fill>,
    pub(crate) swap: Option<Fill>,
    /// Of the servers whose containers lie on a disk of this machine.
    pub(crate) storage: BTreeMap<ServerId, Fill>,
}

/// Processor time since the start of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    all: u64,
}

struct Taken {
    at: Instant,
    ticks: Option<Ticks>,
    look: Arc<Look>,
}

/// Looks at the machine, at most every few seconds however many ask.
pub(crate) struct Gauge {
    /// The servers, and where their containers lie.
    machines: Arc<BTreeMap<ServerId, Machine>>,
    last: tokio::sync::Mutex<Option<Taken>>,
}

impl Gauge {
    pub(crate) fn new(machines: Arc<BTreeMap<ServerId, Machine>>) -> Self {
        Self { machines, last: tokio::sync::Mutex::default() }
    }

    /// What the machine does, and how old that is.
    async fn look(&self, now_ms: i64) -> Result<(Arc<Look>, Duration), tokio::task::JoinError> {
        let mut last = self.last.lock().await;
        if let Some(taken) = last.as_ref().filter(|taken| taken.at.elapsed() < FRESH) {
            return Ok((Arc::clone(&taken.look), taken.at.elapsed()));
        }
        let recent = last.as_ref().filter(|taken| taken.at.elapsed() < COUNTED_MAX);
        let before = if let Some(taken) = recent {
            taken.ticks
        } else {
            let before = tokio::task::spawn_blocking(ticks).await?;
            // It takes time to see how much of it is used.
            tokio::time::sleep(COUNTED).await;
            before
        };
        let machines = Arc::clone(&self.machines);
        let (ticks, look) =
            tokio::task::spawn_blocking(move || (ticks(), look(&machines, now_ms))).await?;
        let busy_pct = before.zip(ticks).and_then(|(before, after)| busy(before, after));
        let look = Arc::new(Look { busy_pct, ..look });
        *last = Some(Taken { at: Instant::now(), ticks, look: Arc::clone(&look) });
        Ok((look, Duration::ZERO))
    }
}

fn look(machines: &BTreeMap<ServerId, Machine>, now_ms: i64) -> Look {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
    let cores = std::thread::available_parallelism().ok();
    let memory = read("meminfo");
    let storage = machines.iter().filter_map(|(server, machine)| {
        let disk = rustix::fs::statvfs(machine.disk.as_ref()?).ok()?;
        let fill = Fill {
            used: disk.f_blocks.saturating_sub(disk.f_bfree).saturating_mul(disk.f_frsize),
            total: disk.f_blocks.saturating_mul(disk.f_frsize),
        };
        Some((*server, fill))
    });
    Look {
        at_ms: now_ms,
        uptime_s: read("uptime").split('.').next().and_then(|seconds| seconds.parse().ok()),
        cores: cores.and_then(|cores| u32::try_from(cores.get()).ok()),
        load: load(&read("loadavg")),
        busy_pct: None,
        memory: fill(&memory, "MemTotal:", "MemAvailable:"),
        swap: fill(&memory, "SwapTotal:", "SwapFree:"),
        storage: storage.collect(),
    }
}

fn ticks() -> Option<Ticks> {
    parse_ticks(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal; guests are in
/// user and nice already.
fn parse_ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let counts: Vec<u64> =
        line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = counts.get(3)?.saturating_add(*counts.get(4)?);
    Some(Ticks { idle, all: counts.iter().sum() })
}

/// The share of the time between two moments in which processors were busy; nothing if none has passed.
fn busy(before: Ticks, after: Ticks) -> Option<f64> {
    let all = after.all.checked_sub(before.all).filter(|all| *all > 0)?;
    let idle = after.idle.saturating_sub(before.idle).min(all);
    Some(wire::percent(all - idle, all))
}

fn load(text: &str) -> Option<LoadMeans> {
    let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
    Some(LoadMeans { one: numbers.next()?, five: numbers.next()?, fifteen: numbers.next()? })
}

/// Of two lines of `/proc/meminfo`, in KiB.
fn fill(meminfo: &str, total: &str, free: &str) -> Option<Fill> {
    let line = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let total = line(total)?;
    Some(Fill { used: total.saturating_sub(line(free)?), total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_figures_are_read_by_their_names() {
        let stat = "cpu  100 0 50 800 50 0 0 0 70 0\ncpu0 1 2 3\n";
        let before = parse_ticks(stat).unwrap();
        assert_eq!(before, Ticks { idle: 850, all: 1000 });
        let after = parse_ticks("cpu  175 0 50 825 50 0 0 0 0 0\n").unwrap();
        assert_eq!(busy(before, after), Some(75.0));
        assert_eq!(busy(before, before), None, "no time has passed");
        assert_eq!(parse_ticks("intr 1"), None);
        let meminfo = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\nSwapTotal: 0 kB\n";
        let want = Fill { used: 600 * 1024, total: 1000 * 1024 };
        assert_eq!(fill(meminfo, "MemTotal:", "MemAvailable:"), Some(want));
        assert_eq!(fill(meminfo, "SwapTotal:", "SwapFree:"), None);
        let want = LoadMeans { one: 0.5, five: 1.25, fifteen: 2.0 };
        assert_eq!(load("0.50 1.25 2.00 1/99 1234\n"), Some(want));
        assert_eq!(load("0.50 x"), None);
    }

    #[tokio::test]
    async fn a_look_is_kept_for_a_moment() {
        let [here, there, nowhere] = [1, 2, 3].map(|byte| ServerId::from_bytes([byte; 12]));
        let on = |disk: &str| Machine { disk: Some(disk.into()), ..Machine::default() };
        let machines = [(here, on("/")), (there, on("/proc")), (nowhere, Machine::default())];
        let gauge = Gauge::new(Arc::new(machines.into()));
        let (first, age) = gauge.look(5).await.unwrap();
        assert_eq!(age, Duration::ZERO);
        let busy = first.busy_pct.unwrap();
        assert!((0.0..=100.0).contains(&busy), "{busy}");
        let memory = first.memory.unwrap();
        assert!(memory.used > 0 && memory.used <= memory.total, "{memory:?}");
        assert!(first.storage[&here].total > 0 && first.uptime_s.unwrap() > 0);
        // No disk, but one that everybody has.
        assert_eq!(first.storage[&there], Fill { used: 0, total: 0 });
        assert_eq!(first.storage.get(&nowhere), None);
        let (again, _) = gauge.look(5).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again), "the same look");
    }
}
