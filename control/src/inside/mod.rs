//! What runs inside a container: services, listening ports, terminals, displays.
//!
//! The container is asked itself, by a command that every runtime can run. What it answers is its own
//! word: it is bounded and read with care, and shown to nobody but who may see the container.

mod read;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use gantry_model::{Chain, ContainerId, Phase, UserId};
use gantry_runtime::{Exec, Runtime};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::task::TaskTracker;

use crate::{containers::ContainerView, controller::Controller};

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(2);
/// How long it counts that a container did not answer.
const SILENT: Duration = Duration::from_secs(10);
/// How long a container may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long is waited for the containers of one request, all together.
const WAIT: Duration = Duration::from_secs(5);
/// How many containers are asked at the same time.
const AT_ONCE: usize = 8;
/// How many of them may be one owner's, whose silent ones would else leave no turn for others.
const AT_ONCE_OF_OWNER: usize = 2;
/// How much of an answer is read, in octets.
const ANSWER_MAX: usize = 1 << 20;

/// Prints what is to be known, in sections. One process for each, however many there are inside.
const SCRIPT: &str = r#"exec 2>/dev/null
for t in tcp tcp6 udp udp6; do echo "@@$t"; cat /proc/net/$t; done
echo @@unix; grep X11-unix /proc/net/unix
echo @@stat; cat /proc/[0-9]*/stat
echo @@uid; grep '^Uid:' /proc/[0-9]*/status
echo @@exe; ls -l /proc/[0-9]*/exe
echo @@fd; ls -l /proc/[0-9]*/fd
echo @@uptime; cat /proc/uptime
echo @@users; cat /etc/passwd
echo @@pts; stat -c '%X %n' /dev/pts/[0-9]*
echo @@units; systemctl show '*.service' --timestamp=unix -p Id,Description,LoadState,ActiveState,SubState,MainPID,ActiveEnterTimestamp,MemoryCurrent,CPUUsageNSec,TasksCurrent,NRestarts,ExecMainStartTimestamp,UnitFileState,UnitFilePreset,ControlGroup,DropInPaths,Documentation,FragmentPath
echo @@cmd; grep -az '' /proc/[0-9]*/cmdline
exit 0
"#;

/// What runs inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// The services of its init, by name.
    pub services: Vec<Unit>,
    /// What listens, by port.
    pub listeners: Vec<Listener>,
    /// Its terminals, the oldest first.
    pub terminals: Vec<Terminal>,
    /// Its displays, by number.
    pub displays: Vec<Display>,
}

/// A service of systemd. Empty texts and absent numbers are what it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// The name with its suffix.
    pub name: String,
    /// A sentence about it.
    pub description: String,
    /// Whether its file is there, such as `loaded`.
    pub load: String,
    /// What it does, such as `active`.
    pub active: String,
    /// The same in detail, such as `running`.
    pub sub: String,
    /// Whether it starts with the container, such as `enabled`.
    pub enabled: String,
    /// What its maker suggests for that.
    pub preset: String,
    /// Its main process.
    pub pid: Option<u32>,
    /// Since when it is active, in milliseconds since the epoch.
    pub since_ms: Option<i64>,
    /// When its main process started, in milliseconds since the epoch.
    pub started_at_ms: Option<i64>,
    /// Memory, in octets.
    pub memory_bytes: Option<u64>,
    /// Processor time, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// How often it was started again by itself.
    pub restarts: Option<u64>,
    /// Its control group.
    pub control_group: String,
    /// Files that change its own one.
    pub drop_ins: String,
    /// Where it is documented.
    pub docs: String,
    /// Its own file.
    pub fragment: String,
}

/// A port that somebody listens at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The port.
    pub port: u16,
    /// The address.
    pub ip: IpAddr,
    /// The process; unknown if it is hidden or has just gone.
    pub process: Option<Process>,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its number in the container.
    pub pid: u32,
    /// Whose it is, by name or number.
    pub user: String,
    /// Its name.
    pub program: String,
    /// Its file, where that can be read.
    pub path: Option<String>,
    /// Its arguments with its name, with spaces between them.
    pub args: String,
    /// When it started, in milliseconds since the epoch.
    pub started_at_ms: i64,
}

/// A terminal, by the process that leads its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Its name, such as `pts/0`.
    pub name: String,
    /// The process that leads its session.
    pub process: Process,
    /// When it was last typed on, in milliseconds since the epoch.
    pub last_activity_ms: Option<i64>,
}

/// A display of the X Window System.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Display {
    /// Its name, such as `:1`.
    pub name: String,
    /// The process that serves it.
    pub process: Option<Process>,
}

/// What a container has said.
#[derive(Clone)]
enum Answer {
    /// It is being asked.
    None,
    /// What it said then, if it said anything.
    Said(Instant, Option<Arc<Inside>>),
}

/// The latest looks into containers, at most one into each.
pub(crate) struct Looks {
    answers: Mutex<HashMap<ContainerId, watch::Receiver<Answer>>>,
    turns: Semaphore,
    /// The turns of each owner, present only while some are taken or waited for.
    own_turns: Mutex<HashMap<UserId, Weak<Semaphore>>>,
    /// A look that has begun goes on without whoever asked for it, so that its turn is not free before
    /// its command is gone.
    tasks: TaskTracker,
}

impl Default for Looks {
    fn default() -> Self {
        let turns = Semaphore::new(AT_ONCE);
        let (answers, own_turns) = (Mutex::default(), Mutex::default());
        Self { answers, turns, own_turns, tasks: TaskTracker::new() }
    }
}

impl Looks {
    /// The look that counts, or a new one and where it is to say what it sees.
    fn join(&self, id: ContainerId) -> (watch::Receiver<Answer>, Option<watch::Sender<Answer>>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, answer| counts(answer));
        if let Some(answer) = answers.get(&id) {
            return (answer.clone(), None);
        }
        let (says, answer) = watch::channel(Answer::None);
        answers.insert(id, answer.clone());
        (answer, Some(says))
    }

    fn turns_of(&self, owner: UserId) -> Arc<Semaphore> {
        let mut all = self.own_turns.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, turns| turns.strong_count() > 0);
        all.get(&owner).and_then(Weak::upgrade).unwrap_or_else(|| {
            let turns = Arc::new(Semaphore::new(AT_ONCE_OF_OWNER));
            all.insert(owner, Arc::downgrade(&turns));
            turns
        })
    }
}

fn counts(answer: &watch::Receiver<Answer>) -> bool {
    match &*answer.borrow() {
        // Unless it was given up.
        Answer::None => answer.has_changed().is_ok(),
        Answer::Said(at, Some(_)) => at.elapsed() < FRESH,
        Answer::Said(at, None) => at.elapsed() < SILENT,
    }
}

impl Controller {
    /// Until when the containers of one request are waited for.
    pub fn inside_deadline() -> std::time::Instant {
        std::time::Instant::now() + WAIT
    }

    /// What runs inside a container that the actor was shown, at most two seconds old; nothing if it does
    /// not run or has not answered until then, or did not answer when it was last asked, up to ten seconds
    /// ago. Whoever asks meanwhile waits for the same answer.
    pub async fn inside(
        &self,
        view: &ContainerView,
        until: std::time::Instant,
    ) -> Option<Arc<Inside>> {
        if view.record.status.phase != Phase::Running {
            return None;
        }
        let id = view.record.id;
        let runtime = Arc::clone(self.inner.servers.runtime(view.record.server)?);
        let looks = &self.inner.looks;
        let (mut answer, says) = looks.join(id);
        if let Some(says) = says {
            let owner = view.record.owner;
            looks.tasks.spawn(self.clone().look_inside(runtime, id, owner, says));
        }
        let said = answer.wait_for(|answer| matches!(answer, Answer::Said(..)));
        match tokio::time::timeout_at(until.into(), said).await.ok()?.as_deref() {
            Ok(Answer::Said(_, inside)) => inside.clone(),
            Ok(Answer::None) | Err(_) => None,
        }
    }

    /// Asks a container when it is its turn, unless nobody waits for it any more.
    async fn look_inside(
        self,
        runtime: Arc<dyn Runtime>,
        id: ContainerId,
        owner: UserId,
        says: watch::Sender<Answer>,
    ) {
        let own_turns = self.inner.looks.turns_of(owner);
        let Ok(_own_turn) = own_turns.acquire().await else { return };
        let Ok(_turn) = self.inner.looks.turns.acquire().await else { return };
        // One receiver is the map's own.
        if says.receiver_count() > 1 {
            let said = self.ask_inside(&*runtime, id).await;
            says.send_replace(Answer::Said(Instant::now(), said));
        }
    }

    /// Ends the looks into containers: whoever waits for a turn gets nothing, and this waits for the
    /// commands under way, which may take four seconds.
    pub async fn close_looks(&self) {
        let looks = &self.inner.looks;
        looks.turns.close();
        looks.tasks.close();
        looks.tasks.wait().await;
    }

    async fn ask_inside(&self, runtime: &dyn Runtime, id: ContainerId) -> Option<Arc<Inside>> {
        let command =
            Exec { timeout: PATIENCE, output_max: ANSWER_MAX, ..Exec::new(["sh", "-c", SCRIPT]) };
        match runtime.exec(id, &command).await {
            Ok(output) => {
                let answer = String::from_utf8_lossy(&output.stdout);
                Some(Arc::new(read::inside(&answer, self.now_ms())))
            }
            Err(error) => {
                let error = Chain(&error).to_string();
                tracing::debug!(container = %id, error, "it does not say what runs inside");
                None
            }
        }
    }
}
