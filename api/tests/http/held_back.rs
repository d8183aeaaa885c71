//! Requests whose bodies are held back while what their callers may do changes.

use serde_json::{Value, json};

use crate::lab::{Ask, Lab, PASSWORD};

const TOKENS: &str = "/api/v1/auth/tokens";

/// Makes a token that may make and change tokens; gives its secret and its path.
async fn maker(lab: &Lab, session: &str) -> (String, String) {
    let rights = json!({ "resources": { "create_tokens": true } });
    let body = json!({ "alias": "maker", "permissions": rights, "vault_access": true });
    let made = lab.send(Ask::new("POST", TOKENS).by(session).body(&body)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let text = |name: &str| made.json["data"][name].as_str().unwrap().to_owned();
    (text("token"), format!("{TOKENS}/{}", text("id")))
}

async fn change(lab: &Lab, session: &str, path: &str, body: Value) {
    let changed = lab.send(Ask::new("PATCH", path).by(session).body(&body)).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
}

async fn count(lab: &Lab, session: &str) -> usize {
    let all = lab.send(Ask::new("GET", TOKENS).by(session)).await;
    all.json["data"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_switched_off_or_narrowed_before_its_request_is_whole_makes_no_other() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let (token, path) = maker(&lab, &session).await;
    let ask = Ask::new("POST", TOKENS).by(&token).body(&json!({ "alias": "child" }));

    let whole = lab.send_while(ask.clone(), async {}).await;
    assert_eq!(whole.status, 201, "{}", whole.text);
    let narrowed = change(&lab, &session, &path, json!({ "vault_access": false }));
    let refused = lab.send_while(ask.clone(), narrowed).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    let off = change(&lab, &session, &path, json!({ "is_enabled": false }));
    let refused = lab.send_while(ask.header("idempotency-key", "again"), off).await;
    assert_eq!(refused.status, 401, "{}", refused.text);
    assert_eq!(count(&lab, &session).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_before_its_request_is_whole_makes_no_token() {
    let lab = Lab::start().await;
    let (session, _) = lab.alice().await;
    let ask = Ask::new("POST", TOKENS).by(&session).body(&json!({ "alias": "kept" }));
    let refused = lab
        .send_while(ask, async {
            let ended = lab.send(Ask::new("POST", "/api/v1/users/auth/logout").by(&session)).await;
            assert!(ended.status.is_success(), "{}", ended.text);
        })
        .await;
    assert_eq!(refused.status, 401, "{}", refused.text);
    let session = lab.login("alice", PASSWORD).await;
    assert_eq!(count(&lab, &session).await, 0);
}
