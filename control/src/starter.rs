//! Starts a Kit service inside a container when the first request for it comes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gantry_model::{ContainerId, Service};
use gantry_runtime::Exec;
use gantry_store::Store;
use tokio::{sync::watch, time::Instant};
use tokio_util::task::TaskTracker;

use crate::servers::Servers;

/// Why a service was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// This installation has nothing that starts the service.
    #[error("this service is not provided")]
    NotProvided,
    /// The container does not run, or does not exist.
    #[error("the container is not running")]
    NotRunning,
    /// Too many services are being started at the same time.
    #[error("too many services are being started; try again")]
    Busy,
    /// The command that starts it took too long.
    #[error("starting the service took too long")]
    TimedOut,
    /// The command that starts it failed; the text is from inside the container, or safe to show.
    #[error("the service did not start: {reason}")]
    Failed {
        /// What it said, at most a few lines.
        reason: String,
    },
}

/// How patient a [`Starter`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StarterConfig {
    /// How long the command that starts a service may take.
    pub timeout: Duration,
    /// How long an outcome, good or bad, is given to later callers before the command runs again.
    pub rest: Duration,
    /// How many services may be being started, or have an outcome at rest, at the same time.
    pub flights_max: usize,
}

impl Default for StarterConfig {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), rest: Duration::from_secs(1), flights_max: 4096 }
    }
}

/// The command that starts a service, to be run as root inside the container; it does nothing when
/// the service runs already. `None` when nothing starts it.
pub type StartCommand = fn(Service, u16) -> Option<Vec<String>>;

/// Starts services: one command at a time for each service of a container, however many ask.
///
/// A cheap handle. A start that has begun goes on when its callers go away, since the next one will
/// want it; [`Starter::close`] waits for those under way.
#[derive(Clone)]
pub struct Starter {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Starter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Starter").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

type Key = (ContainerId, Service, u16);
type Outcome = Result<(), StartError>;

struct Inner {
    store: Store,
    servers: Servers,
    command: StartCommand,
    config: StarterConfig,
    /// Starts under way and outcomes at rest. Short sections only, never held across an await.
    flights: Mutex<HashMap<Key, Flight>>,
    tasks: TaskTracker,
}

struct Flight {
    /// `None` until it has ended.
    outcome: watch::Receiver<Option<Outcome>>,
    /// From then on the command may run again; unknown while it runs.
    rests_until: Option<Instant>,
}

impl Starter {
    /// Starts services in the containers of these servers by these commands; the store knows where
    /// each container is.
    pub fn new(
        store: Store,
        servers: Servers,
        command: StartCommand,
        config: StarterConfig,
    ) -> Self {
        let flights = Mutex::new(HashMap::new());
        let tasks = TaskTracker::new();
        Self { inner: Arc::new(Inner { store, servers, command, config, flights, tasks }) }
    }

    /// Starts a service of a running container and returns when the command that does it has
    /// ended; the service may need a moment longer until it listens. Cancel-safe: the start goes on.
    pub async fn start_service(
        &self,
        container: ContainerId,
        service: Service,
        index: u16,
    ) -> Result<(), StartError> {
        let argv = (self.inner.command)(service, index).ok_or(StartError::NotProvided)?;
        let mut outcome = self.board((container, service, index), argv)?;
        let outcome = match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_task_ended) => None,
        };
        outcome.unwrap_or(Err(StartError::Busy))
    }

    /// Waits until no start is under way. No new ones are tracked reliably after this was called.
    pub async fn close(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Joins the start under way or the outcome at rest; begins a new one when there is neither.
    fn board(
        &self,
        key: Key,
        argv: Vec<String>,
    ) -> Result<watch::Receiver<Option<Outcome>>, StartError> {
        let now = Instant::now();
        let mut flights = self.inner.lock();
        if let Some(flight) = flights.get(&key)
            && flight.rests_until.is_none_or(|until| now < until)
        {
            return Ok(flight.outcome.clone());
        }
        if flights.len() >= self.inner.config.flights_max {
            flights.retain(|_, flight| flight.rests_until.is_none_or(|until| now < until));
            if flights.len() >= self.inner.config.flights_max {
                return Err(StartError::Busy);
            }
        }
        let (ended, outcome) = watch::channel(None);
        flights.insert(key, Flight { outcome: outcome.clone(), rests_until: None });
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.spawn(async move {
            let landing = Landing { inner: &inner, key };
            let outcome = inner.start(key, argv).await;
            drop(landing);
            ended.send_replace(Some(outcome));
        });
        Ok(outcome)
    }
}

/// Ends a flight even when its task is dropped or panics: nobody joins a flight without a pilot.
struct Landing<'i> {
    inner: &'i Inner,
    key: Key,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let until = Instant::now() + self.inner.config.rest;
        if let Some(flight) = self.inner.lock().get_mut(&self.key) {
            flight.rests_until = Some(until);
        }
    }
}

impl Inner {
    /// A poisoned lock guards a map that is whole after each operation.
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn start(&self, (container, service, index): Key, argv: Vec<String>) -> Outcome {
        let runtime = match self.store.container(container).await {
            Ok(record) => record.and_then(|record| self.servers.runtime(record.server)),
            Err(error) => {
                let error = gantry_model::Chain(&error).to_string();
                tracing::warn!(%container, error, "it is not known where a container is");
                let reason = "the installation does not know where the container is".to_owned();
                return Err(StartError::Failed { reason });
            }
        };
        let runtime = runtime.ok_or(StartError::NotRunning)?;
        let mut command = Exec::new(argv);
        command.timeout = self.config.timeout;
        command.output_max = 4096;
        let ran =
            tokio::time::timeout(self.config.timeout, runtime.exec(container, &command)).await;
        let outcome = match ran {
            Err(_elapsed) => Err(StartError::TimedOut),
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => Err(StartError::Failed { reason: last_words(&output.stderr) }),
            Ok(Err(gantry_runtime::Error::Timeout { .. })) => Err(StartError::TimedOut),
            Ok(Err(
                gantry_runtime::Error::NotFound { .. } | gantry_runtime::Error::NotRunning { .. },
            )) => Err(StartError::NotRunning),
            Ok(Err(error)) => {
                let chain = gantry_model::Chain(&error).to_string();
                tracing::warn!(%container, service = service.slug(), index, error = chain,
                    "a service could not be started");
                Err(StartError::Failed { reason: error.reason() })
            }
        };
        tracing::debug!(%container, service = service.slug(), index, ?outcome, "service start");
        outcome
    }
}

/// The last lines of a complaint, printable and short.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("; ");
    let words: String = tail.chars().filter(|c| !c.is_control()).take(500).collect();
    if words.is_empty() { "its command failed without a word".to_owned() } else { words }
}
