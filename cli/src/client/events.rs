//! `gantry events …`.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::{
    Client,
    view::{self, field, text},
};
use crate::{
    args::{EventsCommand, EventsRemoved},
    exit::Failure,
    output,
};

/// How often it is looked for new events.
const POLL: Duration = Duration::from_secs(1);

impl Client {
    pub(super) async fn events(&self, command: EventsCommand) -> Result<(), Failure> {
        match command {
            EventsCommand::List { event_type, container_id, project_id, offset, limit } => {
                let mut query = vec![("offset", offset.to_string()), ("limit", limit.to_string())];
                query.extend(event_type.map(|kind| ("event_type", kind)));
                query.extend(container_id.map(|id| ("container_id", id.to_string())));
                query.extend(project_id.map(|id| ("project_id", id.to_string())));
                let data = self.api.get("events", &query).await?;
                self.list(&data, field(&data, "events"), view::EVENT)
            }
            EventsCommand::Get { id } => {
                self.show(&self.api.get(&format!("events/{id}"), &[]).await?)
            }
            EventsCommand::Delete { id } => {
                self.confirm(&format!("event {id}"))?;
                self.api.delete(&format!("events/{id}")).await?;
                output::note(&format!("Deleted event {id}."));
                Ok(())
            }
            EventsCommand::DeleteMany(which) => {
                self.confirm(if which.all { "all events" } else { "these events" })?;
                let EventsRemoved { event_type, resource_id, before, all: _ } = which;
                let filters = [
                    ("event_type", event_type),
                    ("resource_id", resource_id),
                    ("before_date", before),
                ];
                let given = filters.into_iter().filter_map(|(name, value)| Some((name, value?)));
                let body = given.map(|(name, value)| (name.to_owned(), Value::String(value)));
                let body = Value::Object(body.collect());
                self.show(&self.api.delete_with("events", &body).await?)
            }
            EventsCommand::CleanUp { retention_days } => {
                self.confirm(&format!("events older than {retention_days} days"))?;
                let body = serde_json::json!({ "retention_days": retention_days });
                self.show(&self.api.post("events/cleanup", &[], Some(&body)).await?)
            }
            EventsCommand::Stats => self.show(&self.api.get("events/stats", &[]).await?),
            EventsCommand::Follow => tokio::select! {
                result = self.follow_events() => result,
                _ = tokio::signal::ctrl_c() => Ok(()),
            },
        }
    }

    /// Asks again and again for what comes after the last event that was printed.
    async fn follow_events(&self) -> Result<(), Failure> {
        let start = self.api.get("events", &[("bootstrap", "true".to_owned())]).await?;
        // Where nothing has happened so far, every id is greater than this.
        let cursor = field(&start, "next_cursor").as_str().map(str::to_owned);
        let mut cursor = cursor.unwrap_or_else(|| "0".repeat(24));
        loop {
            let query = [("after", cursor.clone()), ("limit", "500".to_owned())];
            match self.api.get("events", &query).await {
                Ok(data) => {
                    for event in field(&data, "events").as_array().into_iter().flatten() {
                        output::line(&event.to_string())?;
                    }
                    cursor = text(field(&data, "next_cursor"));
                    if field(&data, "pagination").get("has_more") == Some(&Value::Bool(true)) {
                        continue;
                    }
                }
                Err(failure) if failure.may_pass() => {}
                Err(failure) => return Err(failure),
            }
            sleep(POLL).await;
        }
    }
}
