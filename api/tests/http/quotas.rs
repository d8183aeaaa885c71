//! How much accounts and servers may have.

use std::sync::Arc;

use gantry_control::{Limits, Signing};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::lab::{Ask, Lab, PASSWORD, Reply};

async fn lab(limits: Limits) -> Lab {
    Lab::start_with(limits, Signing::Claims).await
}

fn creation(lab: &Lab, token: &str, project: &str, name: &str) -> Ask {
    let body = json!({ "server_id": lab.server.to_string(), "name": name });
    Ask::new("POST", &format!("/api/v1/projects/{project}/containers")).by(token).body(&body)
}

async fn ask(lab: &Lab, token: &str, method: &str, path: &str, body: Value) -> Reply {
    let ask = Ask::new(method, &format!("/api/v1/{path}")).by(token);
    lab.send(if body.is_null() { ask } else { ask.body(&body) }).await
}

async fn me(lab: &Lab, token: &str) -> Value {
    ask(lab, token, "GET", "users/me", Value::Null).await.json["data"].take()
}

fn refused(reply: &Reply, status: u16, want: &Value) {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.text);
    assert_eq!(&reply.json["data"], want, "{}", reply.text);
}

fn quota(field: &str, quota: &str, count: u64, limit: u64) -> Value {
    json!({ "field": field, "quota": quota, "current_count": count, "limit": limit })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_parallel_creations_exactly_as_many_succeed_as_may() {
    const MAX: usize = 7;
    let max = u32::try_from(MAX).unwrap();
    let lab = Arc::new(lab(Limits { containers_per_user_max: max, ..Limits::default() }).await);
    let (alice, project) = lab.alice().await;
    // A member makes what counts for the owner.
    let bob = lab.login("bob", PASSWORD).await;
    let id = me(&lab, &bob).await["id"].clone();
    let member = json!({ "user_id": id, "permission_level": "edit" });
    ask(&lab, &alice, "POST", &format!("projects/{project}/permissions"), member).await;
    let first = lab.container(&alice, &project, "first").await;
    let mut tasks = JoinSet::new();
    for number in 0..MAX + 5 {
        let by = if number % 2 == 0 { &alice } else { &bob };
        let made = creation(&lab, by, &project, &format!("new-{number}"));
        let copy = Ask::new("POST", &format!("/api/v1/containers/{first}/copy"))
            .by(by)
            .body(&json!({ "target_project_id": project, "name": format!("copy-{number}") }));
        let lab = Arc::clone(&lab);
        let ask = if number % 3 == 0 { copy } else { made };
        tasks.spawn(async move { lab.send(ask).await });
    }
    let replies = tasks.join_all().await;
    let (made, over): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 201);
    assert_eq!((made.len(), over.len()), (MAX - 1, 6), "{replies:?}");
    for reply in over {
        refused(reply, 422, &quota("max_containers", "containers_per_user", 7, 7));
        assert_eq!(reply.json["error"], "QUOTA_EXCEEDED", "{}", reply.text);
        assert!(reply.json["message"].as_str().unwrap().contains("delete one"), "{}", reply.text);
    }
    let quotas = me(&lab, &alice).await["quotas"].take();
    assert_eq!(quotas["containers"], json!({ "limit": 7, "used": 7, "is_default": true }));
    assert_eq!(me(&lab, &bob).await["quotas"]["containers"]["used"], 0);
    // One goes, and then there is room for one.
    assert_eq!(
        ask(&lab, &alice, "DELETE", &format!("containers/{first}?wait=deleted"), Value::Null)
            .await
            .status,
        200
    );
    lab.container(&alice, &project, "again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_or_is_paused_counts_until_it_is_stopped() {
    let lab = lab(Limits { running_containers_per_user_max: 2, ..Limits::default() }).await;
    let (alice, project) = lab.alice().await;
    let one = lab.container(&alice, &project, "one").await;
    let two = lab.container(&alice, &project, "two").await;
    let operate = async |id: &str, what: &str| {
        ask(&lab, &alice, "POST", &format!("containers/{id}/{what}"), Value::Null).await
    };
    let full = quota("max_running_containers", "running_containers_per_user", 2, 2);
    refused(&lab.send(creation(&lab, &alice, &project, "three")).await, 422, &full);
    assert_eq!(operate(&two, "pause").await.status, 200);
    refused(&lab.send(creation(&lab, &alice, &project, "three")).await, 422, &full);
    assert_eq!(operate(&two, "resume").await.status, 200, "it holds its memory, it may go on");
    assert_eq!(operate(&two, "restart").await.status, 200);
    assert_eq!(operate(&two, "stop").await.status, 200);
    let three = lab.container(&alice, &project, "three").await;
    let over = operate(&two, "start").await;
    refused(&over, 422, &full);
    assert!(over.json["message"].as_str().unwrap().contains("stop one"), "{}", over.text);
    refused(&operate(&two, "restart").await, 422, &full);
    let shown = me(&lab, &alice).await;
    assert_eq!(
        shown["quotas"]["running_containers"],
        json!({ "limit": 2, "used": 2, "is_default": true })
    );
    assert_eq!(shown["quotas"]["containers"]["used"], 3);
    // A restoration of one that is stopped leaves it stopped, of one that runs it running.
    for (id, status) in [(&one, "running"), (&two, "stopped")] {
        let path = format!("containers/{id}/snapshots");
        let taken = ask(&lab, &alice, "POST", &path, json!({})).await;
        assert!(taken.status.is_success(), "{}", taken.text);
        let name = taken.json["data"]["snapshot"]["name"].as_str().unwrap();
        let restored = ask(&lab, &alice, "PATCH", &format!("{path}/{name}"), Value::Null).await;
        assert_eq!(restored.status, 200, "{}", restored.text);
        let shown = ask(&lab, &alice, "GET", &format!("containers/{id}"), Value::Null).await;
        assert_eq!(shown.json["data"]["status"], status, "{}", shown.text);
    }
    assert_eq!(operate(&three, "force-stop").await.status, 200);
    assert_eq!(operate(&two, "start").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_counts_for_its_account_and_what_waits_for_the_server_only() {
    let limits = Limits {
        containers_per_user_max: 1,
        running_containers_per_user_max: 1,
        containers_per_server_max: 3,
        ..Limits::default()
    };
    let lab = lab(limits).await;
    let (alice, project) = lab.alice().await;
    let containers = format!("projects/{project}/containers?wait=running&timeout=20");
    let warm = json!({ "server_id": lab.server.to_string(), "prespawn": true });
    let waiting = ask(&lab, &alice, "POST", &containers, warm.clone()).await;
    assert_eq!(waiting.status, 201, "{}", waiting.text);
    assert_eq!(me(&lab, &alice).await["quotas"]["containers"]["used"], 0);
    let claimed = lab.container(&alice, &project, "one").await;
    assert_eq!(json!(claimed), waiting.json["data"]["id"]);
    let over = lab.send(creation(&lab, &alice, &project, "two")).await;
    refused(&over, 422, &quota("max_containers", "containers_per_user", 1, 1));

    // There are two on the server: the claimed one, and what waits in its place.
    assert_eq!(ask(&lab, &alice, "POST", &containers, warm.clone()).await.status, 201);
    let full = quota("server_id", "containers_per_server", 3, 3);
    let over = ask(&lab, &alice, "POST", &containers, warm).await;
    refused(&over, 400, &full);
    let message = over.json["message"].as_str().unwrap();
    assert!(message.starts_with("This server has reached its container limit."), "{message}");
    let bob = lab.login("bob", PASSWORD).await;
    let made = ask(&lab, &bob, "POST", "projects", json!({ "alias": "his" })).await;
    let his = made.json["data"]["id"].as_str().unwrap().to_owned();
    refused(&lab.send(creation(&lab, &bob, &his, "one")).await, 400, &full);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_gives_one_account_other_limits() {
    let lab = lab(Limits { projects_per_user_max: 1, ..Limits::default() }).await;
    let (alice, _) = lab.alice().await;
    let id = me(&lab, &alice).await["id"].as_str().unwrap().to_owned();
    let path = format!("users/{id}");
    let project =
        async |alias: &str| ask(&lab, &alice, "POST", "projects", json!({ "alias": alias })).await;
    let over = project("two").await;
    refused(&over, 422, &quota("max_projects", "projects_per_user", 1, 1));
    let own = ask(&lab, &alice, "PATCH", &path, json!({ "max_projects": 9 })).await;
    assert_eq!(own.status, 403, "{}", own.text);
    let token = ask(&lab, &lab.admin, "POST", "auth/tokens", json!({})).await;
    let token = token.json["data"]["token"].as_str().unwrap().to_owned();
    let by_token = ask(&lab, &token, "PATCH", &path, json!({ "max_projects": 9 })).await;
    assert_eq!(by_token.status, 403, "{}", by_token.text);
    let bad = ask(&lab, &lab.admin, "PATCH", &path, json!({ "max_projects": -1 })).await;
    assert_eq!((bad.status.as_u16(), &bad.json["data"][0]["field"]), (400, &json!("max_projects")));
    let foreign = json!({ "max_projects": 3, "alias": "mine" });
    let foreign = ask(&lab, &lab.admin, "PATCH", &path, foreign).await;
    assert_eq!(foreign.status, 404, "what an account says of itself is its own: {}", foreign.text);
    assert_eq!(project("two").await.status, 422, "and then nothing was changed");

    let set = json!({ "max_projects": 2, "max_containers": 0 });
    let set = ask(&lab, &lab.admin, "PATCH", &path, set).await;
    assert_eq!(set.status, 200, "{}", set.text);
    let quotas = &set.json["data"]["quotas"];
    assert_eq!(quotas["projects"], json!({ "limit": 2, "used": 1, "is_default": false }));
    assert_eq!(quotas["containers"]["limit"], 0);
    let two = project("two").await;
    assert_eq!(two.status, 201, "{}", two.text);
    refused(&project("three").await, 422, &quota("max_projects", "projects_per_user", 2, 2));
    let two = two.json["data"]["id"].as_str().unwrap();
    let none = lab.send(creation(&lab, &alice, two, "one")).await;
    refused(&none, 422, &quota("max_containers", "containers_per_user", 0, 0));
    let back = json!({ "max_projects": null, "max_containers": null });
    let back = ask(&lab, &lab.admin, "PATCH", &path, back).await;
    assert_eq!(
        back.json["data"]["quotas"]["projects"],
        json!({ "limit": 1, "used": 2, "is_default": true })
    );
    let nobody = format!("users/{}", "0".repeat(24));
    let nobody = ask(&lab, &lab.admin, "PATCH", &nobody, json!({ "max_projects": 2 })).await;
    assert_eq!(nobody.status, 404, "{}", nobody.text);
    // Those of Bob are as before.
    let bob = lab.login("bob", PASSWORD).await;
    assert_eq!(me(&lab, &bob).await["quotas"]["projects"]["limit"], 1);
}
