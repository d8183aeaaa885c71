//! Who has a process, and whether that may go on.

use std::{sync::Arc, time::Duration};

use gantry_control::{Actor, Error, Via};
use gantry_model::ContainerId;
use http::request::Parts;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::{Command, Running};
use crate::{
    Front,
    caller::Credential,
    logs::{LOOK, LOOK_AT_PASSWORD},
    problem::{Kind, Problem},
};

/// How long the start of a process may take.
const START: Duration = Duration::from_secs(15);

/// Whoever runs something in a container.
pub(super) struct Visit {
    front: Front,
    credential: Credential,
    actor: Actor,
    container: ContainerId,
    generation: u64,
    began: Instant,
    /// How often it is looked whether the credential is still good.
    look: Duration,
}

/// Why it may not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwelcome {
    /// Who it is may not do this any more, or the container does not run.
    #[error(transparent)]
    Refused(#[from] Error),
    /// The container has stopped and runs again.
    #[error("the container was started anew")]
    Restarted,
}

impl From<Unwelcome> for Problem {
    fn from(why: Unwelcome) -> Self {
        match why {
            Unwelcome::Refused(error) => error.into(),
            Unwelcome::Restarted => super::NotStarted::NotRunning.into(),
        }
    }
}

impl Visit {
    /// Lets an actor in who may run commands in a container that runs.
    pub(super) async fn begin(
        front: &Front,
        parts: &Parts,
        actor: Actor,
        container: ContainerId,
    ) -> Result<Self, Problem> {
        let generation = front.control.may_enter(&actor, container).await?;
        let look = if matches!(actor.via, Via::Password) { LOOK_AT_PASSWORD } else { LOOK };
        let credential = Credential::of(parts)?;
        let (front, began) = (front.clone(), Instant::now());
        Ok(Self { front, credential, actor, container, generation, began, look })
    }

    /// Starts what is asked for, unless that takes too long or may not be any more meanwhile.
    pub(super) async fn start(&self, command: Command) -> Result<Running, Problem> {
        let commands = Arc::clone(&self.front.commands);
        let starting = commands.start(self.container, self.generation, command);
        let started = tokio::select! {
            started = timeout(START, starting) => started,
            why = self.unwelcome() => return Err(why.into()),
        };
        let Ok(running) = started else {
            let message = "The container has not started the command in time";
            return Err(Problem::new(Kind::Unavailable, message).retry_after_s(5));
        };
        Ok(running?)
    }

    /// Whether it may go on now.
    async fn look(&self, actor: &Actor) -> Result<(), Unwelcome> {
        match self.front.control.may_enter(actor, self.container).await {
            Ok(generation) if generation == self.generation => Ok(()),
            Ok(_) => Err(Unwelcome::Restarted),
            // While the store is away, nothing can have been taken from anybody.
            Err(Error::Unavailable(_) | Error::NoRoom(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Why what has just ended by force has, if there is a reason.
    pub(super) async fn why(&self) -> Option<Unwelcome> {
        self.look(&self.actor).await.err()
    }

    /// The line of a session in the audit log, at its end.
    pub(super) fn log(&self, end: &str) {
        tracing::info!(
            target: "audit",
            user = self.actor.username,
            container = %self.container,
            seconds = self.began.elapsed().as_secs_f64(),
            end,
            "session ended"
        );
    }

    /// Waits until it may not go on.
    pub(super) async fn unwelcome(&self) -> Unwelcome {
        let mut looks = interval_at(Instant::now() + LOOK, LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut actor = self.actor.clone();
        let mut known = Instant::now();
        loop {
            looks.tick().await;
            if known.elapsed() + LOOK / 2 >= self.look {
                match self.credential.actor(&self.front).await {
                    Ok(now) => actor = now,
                    Err(Error::Unavailable(_) | Error::NoRoom(_)) => {}
                    Err(error) => return error.into(),
                }
                known = Instant::now();
            }
            if let Err(why) = self.look(&actor).await {
                return why;
            }
        }
    }
}
