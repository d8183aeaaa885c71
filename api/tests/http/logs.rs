//! Following the requests to a container.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Bytes;
use futures_util::{StreamExt, stream};
use gantry_api::{Events, NoTail, RequestLog, Tail};
use gantry_model::FieldError;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    lab::{Ask, PASSWORD},
    proxy::Scene,
};

/// Knows one event, and whoever asked for it; a query of `endless` ends only when it is ended.
#[derive(Clone, Default)]
pub(crate) struct FakeLog(Arc<Mutex<Vec<Tail>>>);

impl FakeLog {
    /// How often a log was asked for.
    pub(crate) fn readers(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl RequestLog for FakeLog {
    fn tail(&self, tail: Tail) -> Result<Events, NoTail> {
        let query = tail.query.clone();
        self.0.lock().unwrap().push(tail);
        let one = stream::iter([Bytes::from_static(b"data: []\n\n")]);
        match query.as_str() {
            "off" => Err(NoTail::Off),
            "busy" => Err(NoTail::Busy),
            "level=high" => Err(NoTail::Invalid(vec![FieldError::new("level", "must be low")])),
            "endless" => Ok(one.chain(stream::pending()).boxed()),
            _ => Ok(one.boxed()),
        }
    }
}

fn stream_of(container: &str, query: &str) -> Ask {
    Ask::new("GET", &format!("/api/v1/containers/{container}/logs/stream{query}"))
}

#[tokio::test]
async fn an_owner_follows_the_requests_to_a_container_and_nobody_else_does() {
    let scene = Scene::set().await;
    let ask = |query: &str| stream_of(&scene.container, query).by(&scene.token);
    let reply = scene.lab.send(ask("?last=5").header("last-event-id", "7")).await;
    assert_eq!((reply.status.as_u16(), reply.text.as_str()), (200, "data: []\n\n"));
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    let asked = scene.lab.logs.0.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].container.to_string(), scene.container);
    assert_eq!(asked[0].project.to_string(), scene.project);
    assert_eq!(
        (asked[0].query.as_str(), asked[0].last_event.as_deref()),
        ("last=5", Some(&b"7"[..]))
    );
    let bob = scene.lab.login("bob", PASSWORD).await;
    for (ask, status) in [
        (stream_of(&scene.container, "").by(&bob), 404),
        (stream_of("0123456789abcdef01234567", "").by(&scene.token), 404),
        (stream_of("x", "").by(&scene.token), 400),
        (stream_of(&scene.container, ""), 401),
        (ask("?off"), 501),
        (ask("?busy"), 429),
        (ask("?level=high"), 400),
    ] {
        let reply = scene.lab.send(ask.clone()).await;
        assert_eq!(reply.status, status, "{ask:?} {}", reply.text);
    }
    let reply = scene.lab.send(ask("?level=high")).await;
    assert_eq!(reply.json["data"], json!([{"field": "level", "message": "must be low"}]));
    let asked = scene.lab.logs.0.lock().unwrap().len();
    assert_eq!(asked, 5, "the log is not asked in the name of who may not see it");
}

#[tokio::test]
async fn a_token_that_is_deleted_follows_no_more() {
    let scene = Scene::set().await;
    let body = json!({"alias": "tap", "permission_template": "read_only"});
    let made =
        scene.lab.send(Ask::new("POST", "/api/v1/auth/tokens").by(&scene.token).body(&body)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let (token, id) = (&made.json["data"]["token"], made.json["data"]["id"].as_str().unwrap());
    let endless =
        scene.lab.send(stream_of(&scene.container, "?endless").by(token.as_str().unwrap()));
    let mut endless = Box::pin(endless);
    assert!(timeout(Duration::from_millis(1_200), &mut endless).await.is_err(), "it goes on");
    let path = format!("/api/v1/auth/tokens/{id}");
    let deleted = scene.lab.send(Ask::new("DELETE", &path).by(&scene.token)).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text);
    let reply = timeout(Duration::from_secs(5), endless).await.unwrap();
    assert_eq!(reply.text, "data: []\n\n");
}
