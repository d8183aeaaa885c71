//! Schemathesis reads the document and tries every operation: what the document allows and what it
//! does not, at its bounds and beside them. Each answer must be as the document says, nothing that is
//! wrong may be accepted, and nothing may fail inside.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use axum::body::Body;
use gantry_api::{ClientAddress, Realm};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpListener, process::Command, task::JoinSet};
use tower::ServiceExt as _;

use crate::lab::{Ask, Lab};

/// How long it may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);

/// Serves the router of a lab on a port of its own, until the tasks are dropped.
async fn serve(lab: &Lab) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = lab.router.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, client) = listener.accept().await.unwrap();
            let router = router.clone();
            let service = service_fn(move |request: http::Request<Incoming>| {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ClientAddress(client));
                request.extensions_mut().insert(Realm(None));
                router.clone().oneshot(request)
            });
            connections.spawn(async move {
                // A client that leaves in the middle is no fault.
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    (address, tasks)
}

/// The ids of one thing of each kind, by where they stand.
async fn ids(lab: &Lab, session: &str, project: &str) -> serde_json::Value {
    let container = lab.container(session, project, "tried").await;
    let post = async |path: String, body: serde_json::Value| {
        let reply = lab.send(Ask::new("POST", &path).by(session).body(&body)).await;
        assert!(reply.status.is_success(), "{path}: {}", reply.text);
        reply.json["data"]["id"].as_str().unwrap_or_default().to_owned()
    };
    let body = json!({ "container_id": container, "program": "terminal" });
    let alias = post("/api/v1/proxy/aliases".to_owned(), body).await;
    let token = post("/api/v1/auth/tokens".to_owned(), json!({ "alias": "tried" })).await;
    post(format!("/api/v1/containers/{container}/snapshots"), json!({ "alias": "kept" })).await;
    let me = lab.send(Ask::new("GET", "/api/v1/users/me").by(session)).await;
    let images = lab.send(Ask::new("GET", "/api/v1/images/public").by(session)).await;
    let server = lab.server.to_string();
    json!({
        "projects": project, "containers": container, "proxy/aliases": alias, "auth/tokens": token,
        "users": me.json["data"]["id"], "images/public": images.json["data"]["images"][0]["id"],
        "servers": server, "server_id": server, "container_id": container, "alias_id": alias,
        "target_project_id": project, "user_id": me.json["data"]["id"],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_no_answer_that_the_document_does_not_allow() {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python/bin/python3");
    let program = python.with_file_name("schemathesis");
    if !program.exists() {
        assert!(std::env::var_os("CI").is_none(), "no {}", program.display());
        eprintln!("not run: no {}", program.display());
        return;
    }
    let lab = Lab::start().await;
    let project = json!({ "alias": "tried" });
    let ask = Ask::new("POST", "/api/v1/projects").by(&lab.admin).body(&project);
    let project = lab.send(ask).await.json["data"]["id"].as_str().unwrap().to_owned();
    let ids = ids(&lab, &lab.admin, &project).await;
    let (address, _tasks) = serve(&lab).await;
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis");
    let storage = tempfile::tempdir().unwrap();
    let run = Command::new(&program)
        .arg("--config-file")
        .arg(home.join("schemathesis.toml"))
        .args(["run", &format!("http://{address}/openapi.json"), "--no-color"])
        .args(["-H", &format!("Authorization: Bearer {}", lab.admin)])
        .env("GANTRY_IDS", ids.to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HYPOTHESIS_STORAGE_DIRECTORY", storage.path())
        .env("no_proxy", "*")
        .current_dir(&home)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaints}");
}
