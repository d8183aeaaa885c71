//! The second factor of logins and claims about who somebody is, held against libraries that know nothing of Gantry.

use std::{path::Path, process::Command, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gantry_control::{Clock, Limits, Signing};
use serde_json::{Value, json};

use crate::lab::{Ask, Lab, PASSWORD, Reply};

/// What a Python library says; nothing (only at the desk) if there are no libraries.
fn foreign(args: &[&str]) -> Option<Result<String, String>> {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python/bin/python3");
    if !python.exists() {
        assert!(std::env::var_os("CI").is_none(), "no {}", python.display());
        eprintln!("not run: no {}", python.display());
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/proofs.py");
    let output = Command::new(python).arg("-B").arg(script).args(args).output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap().trim().to_owned();
    let good = output.status.success();
    Some(if good { Ok(text(output.stdout)) } else { Err(text(output.stderr)) })
}

struct Scene {
    lab: Lab,
    username: String,
    password: String,
    session: String,
    id: String,
}

/// An account with a second factor.
struct Enrolled {
    url: String,
    backup_codes: Vec<String>,
    /// The half minute that the first code was of; later ones must be of later ones.
    step: i64,
}

impl Scene {
    async fn set() -> Self {
        Self::set_in(Lab::start().await).await
    }

    async fn set_in(lab: Lab) -> Self {
        Self::set_for(lab, "alice".to_owned(), PASSWORD.to_owned()).await
    }

    async fn set_for(lab: Lab, username: String, password: String) -> Self {
        let session = lab.login(&username, &password).await;
        let me = lab.send(Ask::new("GET", "/api/v1/users/me").by(&session)).await;
        let id = me.json["data"]["id"].as_str().unwrap().to_owned();
        Self { lab, username, password, session, id }
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Reply {
        let ask = Ask::new(method, &format!("/api/v1/{path}")).by(&self.session);
        self.lab.send(if body.is_null() { ask } else { ask.body(body) }).await
    }

    async fn ok(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut reply = self.send(method, path, body).await;
        assert!(reply.status.is_success(), "{method} {path}: {}", reply.text);
        reply.json["data"].take()
    }

    async fn login(&self) -> Value {
        let body = json!({ "username": self.username, "password": self.password });
        let mut reply =
            self.lab.send(Ask::new("POST", "/api/v1/users/auth/login").body(&body)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json["data"].take()
    }

    /// What half a login answers, for its other half.
    async fn half_login(&self) -> String {
        self.login().await["temp_token"].as_str().unwrap().to_owned()
    }

    /// Five wrong codes, of which the last one locks; for how long.
    async fn lock(&self, temp_token: &str) -> u64 {
        for _ in 0..4 {
            says(&self.verify(temp_token, "000000").await, 401, "INVALID_2FA_CODE");
        }
        let locked = self.verify(temp_token, "000000").await;
        says(&locked, 429, "TWO_FACTOR_LOCKED");
        locked.json["data"]["lockout_seconds"].as_u64().unwrap()
    }

    /// The security history's paths and statuses, newest first.
    async fn history(&self) -> Vec<(String, u64)> {
        let history = self.ok("GET", "users/me/security-history", &Value::Null).await;
        let entries = history.as_array().unwrap().iter();
        let shown = |entry: &Value| {
            let path = entry["path"].as_str().unwrap().trim_start_matches("/api/v1/users/auth/");
            (path.to_owned(), entry["status_code"].as_u64().unwrap())
        };
        entries.map(shown).collect()
    }

    async fn verify(&self, temp_token: &str, code: &str) -> Reply {
        let body = json!({ "temp_token": temp_token, "code": code });
        self.lab.send(Ask::new("POST", "/api/v1/users/auth/2fa/verify").body(&body)).await
    }

    fn step(&self) -> i64 {
        self.lab.control.clock().now_ms().div_euclid(30_000)
    }

    /// Sets the second factor up; the session is the new one then. `None` without the libraries.
    async fn enroll(&mut self) -> Option<Enrolled> {
        let password = json!({ "password": self.password });
        let made = self.ok("POST", "users/auth/2fa/setup", &password).await;
        let url = made["otpauth_url"].as_str().unwrap().to_owned();
        assert!(url.contains(made["manual_entry_key"].as_str().unwrap()), "{made}");
        let picture = made["qr_code"].as_str().unwrap();
        let picture = picture.strip_prefix("data:image/svg+xml;base64,").unwrap();
        assert!(String::from_utf8(STANDARD.decode(picture).unwrap()).unwrap().contains("<svg"));
        let codes = made["backup_codes"].as_array().unwrap();
        assert_eq!(codes.len(), 10);
        let backup_codes = codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect();
        // Until a code was shown, all is as before.
        assert!(self.login().await["token"].is_string());
        let status = self.ok("GET", "users/auth/2fa/status", &Value::Null).await;
        assert_eq!(status["enabled"], false);
        // The earliest that is taken, so that there are two more to come.
        let step = self.step() - 1;
        let code = code(&url, step)?;
        let body = json!({ "code": code });
        let enabled = self.ok("POST", "users/auth/2fa/verify-setup", &body).await;
        assert_eq!(
            (&enabled["enabled"], &enabled["sessions_revoked"]),
            (&json!(true), &json!(true))
        );
        assert_eq!(self.send("GET", "users/me", &Value::Null).await.status, 401, "it has ended");
        enabled["token"].as_str().unwrap().clone_into(&mut self.session);
        self.ok("GET", "users/me", &Value::Null).await;
        Some(Enrolled { url, backup_codes, step })
    }
}

/// The code of a half minute.
pub(crate) fn code(url: &str, step: i64) -> Option<String> {
    foreign(&["totp", url, &(step * 30).to_string()]).map(Result::unwrap)
}

fn says(reply: &Reply, status: u16, code: &str) {
    assert_eq!(
        (reply.status.as_u16(), &reply.json["code"]),
        (status, &json!(code)),
        "{}",
        reply.text
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_needs_a_code_which_is_good_once() {
    let mut scene = Scene::set().await;
    let refreshed = scene.login().await["refreshToken"].clone();
    let Some(Enrolled { url, backup_codes, step }) = scene.enroll().await else { return };

    let asked = scene.login().await;
    assert_eq!((&asked["requires_2fa"], &asked["method"]), (&json!(true), &json!("totp")));
    assert!(asked["token"].is_null(), "{asked}");
    let pending = asked["temp_token"].as_str().unwrap().to_owned();
    // It opens nothing, and neither does what there was before.
    let me = Ask::new("GET", "/api/v1/users/me").by(&pending);
    says(&scene.lab.send(me).await, 401, "INVALID_TOKEN");
    let old =
        Ask::new("POST", "/api/v1/users/auth/refresh").body(&json!({ "refreshToken": refreshed }));
    assert_eq!(scene.lab.send(old).await.status, 401);
    let basic = format!("Basic {}", STANDARD.encode(format!("alice:{PASSWORD}")));
    let basic = Ask::new("GET", "/api/v1/users/me").header("authorization", &basic);
    says(&scene.lab.send(basic).await, 403, "TWO_FACTOR_REQUIRED");

    says(&scene.verify("nonsense", "123456").await, 401, "INVALID_TOKEN");
    says(&scene.verify(&scene.session, "123456").await, 401, "INVALID_TOKEN");
    // The code that has enabled it is used up, those of three half minutes ago are too old.
    for old in [step, step - 3] {
        says(&scene.verify(&pending, &code(&url, old).unwrap()).await, 401, "INVALID_2FA_CODE");
    }
    let next = code(&url, step + 1).unwrap();
    let (half, rest) = next.split_at(3);
    let spaced = format!("{half} {rest}");
    let opened = scene.verify(&pending, &spaced).await;
    assert_eq!(opened.status, 200, "{}", opened.text);
    assert_eq!(opened.json["data"]["user"]["username"], "alice");
    let session = opened.json["data"]["token"].as_str().unwrap();
    let me = scene.lab.send(Ask::new("GET", "/api/v1/users/me").by(session)).await;
    assert_eq!(me.status, 200, "{}", me.text);
    says(&scene.verify(&pending, &next).await, 401, "INVALID_2FA_CODE");

    // A backup code, once, too; of two at the same time one gets in.
    let backup = backup_codes[0].to_uppercase();
    let (one, two) = tokio::join!(scene.verify(&pending, &backup), scene.verify(&pending, &backup));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401], "{} {}", one.text, two.text);
    let status = scene.ok("GET", "users/auth/2fa/status", &Value::Null).await;
    assert_eq!(
        (&status["enabled"], &status["backup_codes_remaining"], &status["require_for_tokens"]),
        (&json!(true), &json!(9), &json!(true))
    );
    let history = scene.ok("GET", "users/me/security-history", &Value::Null).await;
    let paths: Vec<_> = history.as_array().unwrap().iter().map(|entry| &entry["path"]).collect();
    assert!(paths.contains(&&json!("/api/v1/users/auth/2fa/verify")), "{history}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_codes_lock_the_second_factor_and_strangers_cannot() {
    let mut scene = Scene::set().await;
    let Some(Enrolled { url, backup_codes, step }) = scene.enroll().await else { return };
    let pending = scene.half_login().await;
    for _ in 0..20 {
        says(&scene.verify("nonsense", "123456").await, 401, "INVALID_TOKEN");
    }
    // Guesses at the same time are no more than guesses one after the other: five, and the fifth one locks.
    for odd in ["abcdef", "7654321", "99999999", "éééééé", "lo1lo1lo1l"] {
        let reply = scene.verify(&pending, odd).await;
        assert_eq!(reply.status, 400, "{odd}: {}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], "code", "{odd}: {}", reply.text);
    }
    let guesses =
        ["000000", "00 00 00", "0000000000", "ABCDE-FGH22", "999999", "222222", "111 111"];
    let replies =
        futures_util::future::join_all(guesses.map(|guess| scene.verify(&pending, guess)));
    let replies = replies.await;
    let those = |code: &str| replies.iter().filter(|reply| reply.json["code"] == code).count();
    let counts = (those("INVALID_2FA_CODE"), those("TWO_FACTOR_LOCKED"));
    assert_eq!(counts, (4, 3), "{replies:?}");
    let right = code(&url, step + 1).unwrap();
    for code in [&right, &backup_codes[0]] {
        let reply = scene.verify(&pending, code).await;
        says(&reply, 429, "TWO_FACTOR_LOCKED");
        let left = reply.json["data"]["lockout_seconds"].as_u64().unwrap();
        assert!((890..=900).contains(&left), "{left}");
        assert_eq!(reply.headers["retry-after"], left.to_string().as_str());
    }
    // What a session may do is not locked by that.
    let with = json!({ "alias": "made", "otp_code": backup_codes[0] });
    scene.ok("POST", "auth/tokens", &with).await;
    // An administrator helps; then the password is enough.
    let path = format!("/api/v1/users/{}/2fa", scene.id);
    let by_herself = scene.lab.send(Ask::new("DELETE", &path).by(&scene.session)).await;
    says(&by_herself, 403, "INSUFFICIENT_PERMISSIONS");
    let removed = scene.lab.send(Ask::new("DELETE", &path).by(&scene.lab.admin)).await;
    assert_eq!(removed.status, 200, "{}", removed.text);
    says(
        &scene.lab.send(Ask::new("DELETE", &path).by(&scene.lab.admin)).await,
        409,
        "TWO_FACTOR_STATE",
    );
    assert!(scene.login().await["token"].is_string());
    says(&scene.verify(&pending, &right).await, 401, "INVALID_TOKEN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_tells_of_whole_logins_and_of_wrong_codes() {
    let mut scene = Scene::set().await;
    let Some(Enrolled { url, backup_codes, step }) = scene.enroll().await else { return };
    let before = scene.history().await;
    let told = |history: &[(String, u64)]| history[..history.len() - before.len()].to_vec();
    let entry = |path: &str, status| (path.to_owned(), status);

    let pending = scene.half_login().await;
    says(&scene.verify("nonsense", "123456").await, 401, "INVALID_TOKEN");
    assert_eq!(
        told(&scene.history().await),
        [],
        "half a login is none, and of strangers nobody knows"
    );
    says(&scene.verify(&pending, "000000").await, 401, "INVALID_2FA_CODE");
    let opened = scene.verify(&pending, &code(&url, step + 1).unwrap()).await;
    let want = [entry("2fa/verify", 200), entry("2fa/verify", 401)];
    assert_eq!(told(&scene.history().await), want);
    // The logins of before: two by the password alone, and then the one with a code.
    let before = |opened: &Reply| opened.json["data"]["recent_login_ips"].as_array().unwrap().len();
    assert_eq!(before(&opened), 2, "{}", opened.text);
    scene.half_login().await;
    let opened = scene.verify(&pending, &backup_codes[0]).await;
    assert_eq!(before(&opened), 3, "{}", opened.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_by_a_session_lock_what_it_may_do_and_never_the_login() {
    let mut scene = Scene::set().await;
    let Some(Enrolled { url, backup_codes, step }) = scene.enroll().await else { return };
    let make = async |code: &str| {
        scene.send("POST", "auth/tokens", &json!({ "alias": "made", "otp_code": code })).await
    };
    // What cannot be a code is no guess.
    for odd in ["", "12345", "1234567", "abcdef", "éééééé", "١٢٣٤٥٦", "lo1lo1lo1l", "+12345"]
    {
        let reply = make(odd).await;
        assert_eq!(reply.status, 400, "{odd}: {}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], "otp_code", "{odd}: {}", reply.text);
    }
    for _ in 0..4 {
        says(&make("000000").await, 401, "INVALID_2FA_CODE");
    }
    says(&make("000000").await, 429, "TWO_FACTOR_LOCKED");
    says(&make(&backup_codes[0]).await, 429, "TWO_FACTOR_LOCKED");
    let pending = scene.half_login().await;
    let opened = scene.verify(&pending, &code(&url, step + 1).unwrap()).await;
    assert_eq!(opened.status, 200, "{}", opened.text);
    // That was another door; with the password besides, this one is taken away.
    says(&make(&backup_codes[0]).await, 429, "TWO_FACTOR_LOCKED");
    let off = json!({ "enabled": false, "password": PASSWORD, "otp_code": backup_codes[0] });
    scene.ok("PUT", "users/auth/2fa/token-gate", &off).await;
    assert_eq!(make("").await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_becomes_longer_each_time_until_a_code_is_right() {
    let clock = Clock::manual(Clock::system().now_ms());
    let mut scene = Scene::set_in(Lab::start_by(clock.clone()).await).await;
    let Some(Enrolled { url, backup_codes, .. }) = scene.enroll().await else { return };
    for seconds in [900, 1_800, 3_600] {
        assert_eq!(scene.lock(&scene.half_login().await).await, seconds);
        clock.advance(Duration::from_secs(seconds - 1));
        let early = scene.verify(&scene.half_login().await, &backup_codes[0]).await;
        says(&early, 429, "TWO_FACTOR_LOCKED");
        assert_eq!(early.json["data"]["lockout_seconds"], 1);
        clock.advance(Duration::from_secs(1));
    }
    let pending = scene.half_login().await;
    let opened = scene.verify(&pending, &code(&url, scene.step()).unwrap()).await;
    assert_eq!(opened.status, 200, "{}", opened.text);
    assert_eq!(scene.lock(&pending).await, 900);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_takes_the_own_one_away_by_password_and_code_only() {
    let lab = Lab::start().await;
    let (username, password) = lab.admin_login.clone();
    let mut scene = Scene::set_for(lab, username, password).await;
    let Some(Enrolled { backup_codes, .. }) = scene.enroll().await else { return };
    let refused = scene.send("DELETE", &format!("users/{}/2fa", scene.id), &Value::Null).await;
    says(&refused, 403, "INSUFFICIENT_PERMISSIONS");
    assert_eq!(
        refused.json["message"],
        "this is your own account: DELETE /api/v1/users/auth/2fa, with password and code"
    );
    let status = scene.ok("GET", "users/auth/2fa/status", &Value::Null).await;
    assert_eq!(status["enabled"], true);
    let proof = json!({ "password": scene.password, "code": backup_codes[0] });
    let disabled = scene.ok("DELETE", "users/auth/2fa", &proof).await;
    assert_eq!(disabled["sessions_revoked"], true, "{disabled}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_need_a_code_and_it_is_switched_off_by_password_and_code() {
    let mut scene = Scene::set().await;
    for (method, path, body) in [
        ("POST", "verify-setup", json!({ "code": "123456" })),
        ("POST", "backup-codes/regenerate", json!({ "password": PASSWORD, "code": "123456" })),
        ("PUT", "token-gate", json!({ "enabled": true })),
    ] {
        let reply = scene.send(method, &format!("users/auth/2fa/{path}"), &body).await;
        says(&reply, 409, "TWO_FACTOR_STATE");
    }
    let may = json!({ "resources": { "create_tokens": true, "read_account": true } });
    let before = json!({ "alias": "before", "permissions": may });
    let before = scene.ok("POST", "auth/tokens", &before).await;
    let wrong = json!({ "password": "Passw0rd!wrong" });
    says(&scene.send("POST", "users/auth/2fa/setup", &wrong).await, 401, "INVALID_CREDENTIALS");
    let Some(Enrolled { url, backup_codes, step }) = scene.enroll().await else { return };
    let again = json!({ "password": PASSWORD });
    says(&scene.send("POST", "users/auth/2fa/setup", &again).await, 409, "TWO_FACTOR_STATE");

    // A session needs a code, a token has none to show.
    let id = before["id"].as_str().unwrap();
    let realm = json!({ "realm_id": "64a2c4e9f3d5e2b6a8c7d8e1" });
    for (method, path, body) in [
        ("POST", "auth/tokens".to_owned(), json!({ "alias": "after" })),
        ("PATCH", format!("auth/tokens/{id}"), json!({ "alias": "after" })),
        ("POST", format!("auth/tokens/{id}/copy"), json!({})),
        ("POST", format!("auth/tokens/{id}/add-realm"), realm),
    ] {
        let reply = scene.send(method, &path, &body).await;
        assert_eq!(reply.status, 400, "{method} {path}: {}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], "otp_code", "{}", reply.text);
    }
    let with = |code: &str| json!({ "alias": "after", "otp_code": code });
    says(&scene.send("POST", "auth/tokens", &with("000000")).await, 401, "INVALID_2FA_CODE");
    scene.ok("POST", "auth/tokens", &with(&backup_codes[0])).await;
    let secret = before["token"].as_str().unwrap();
    let by_token =
        Ask::new("POST", "/api/v1/auth/tokens").by(secret).body(&json!({ "alias": "c" }));
    assert_eq!(scene.lab.send(by_token).await.status, 201);
    for path in ["users/auth/2fa/status", "users/me"] {
        let reply = scene.lab.send(Ask::new("GET", &format!("/api/v1/{path}")).by(secret)).await;
        assert_eq!(reply.status, if path == "users/me" { 200 } else { 403 }, "{}", reply.text);
    }

    // Without the gate a session is enough.
    let off = json!({ "enabled": false });
    let reply = scene.send("PUT", "users/auth/2fa/token-gate", &off).await;
    assert_eq!((reply.status.as_u16(), &reply.json["data"][0]["field"]), (400, &json!("password")));
    let off = json!({ "enabled": false, "password": PASSWORD, "otp_code": backup_codes[1] });
    let gate = scene.ok("PATCH", "users/auth/2fa/token-gate", &off).await;
    assert_eq!(gate, json!({ "require_for_tokens": false }));
    scene.ok("POST", "auth/tokens", &json!({ "alias": "easy" })).await;

    // New backup codes void the old ones.
    let proof = json!({ "password": PASSWORD, "code": code(&url, step + 1).unwrap() });
    let renewed = scene.ok("POST", "users/auth/2fa/backup-codes/regenerate", &proof).await;
    let renewed = renewed["backup_codes"].as_array().unwrap().clone();
    assert_eq!(renewed.len(), 10);
    let both = |code: &Value| json!({ "password": PASSWORD, "code": code });
    let old = both(&json!(backup_codes[2]));
    says(&scene.send("DELETE", "users/auth/2fa", &old).await, 401, "INVALID_2FA_CODE");
    let wrong = json!({ "password": "Passw0rd!wrong", "code": renewed[0] });
    says(&scene.send("DELETE", "users/auth/2fa", &wrong).await, 401, "INVALID_CREDENTIALS");
    let disabled = scene.ok("DELETE", "users/auth/2fa", &both(&renewed[0])).await;
    assert_eq!(disabled["sessions_revoked"], true);
    disabled["token"].as_str().unwrap().clone_into(&mut scene.session);
    let status = scene.ok("GET", "users/auth/2fa/status", &Value::Null).await;
    assert_eq!(status["enabled"], false);
    assert!(scene.login().await["token"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_says_who_somebody_is_to_one_audience() {
    let scene = Scene::set().await;
    let path = "users/auth/identity-claim";
    let body = json!({ "audience": "app.example.org", "expires_in": 120 });
    let made = scene.ok("POST", path, &body).await;
    assert_eq!((&made["expires_in"], &made["audience"]), (&json!(120), &json!("app.example.org")));
    let keys = scene.ok("GET", "meta/public-key", &Value::Null).await;
    let key = keys["keys"][0]["public_key_hex"].as_str().unwrap();
    let claim = &made["identity_claim"];
    assert_eq!(claim["kid"], keys["active_kid"]);
    let (payload, signature) =
        (claim["payload_b64"].as_str().unwrap(), claim["signature_hex"].as_str().unwrap());
    if let Some(said) = foreign(&["claim", key, payload, signature]) {
        let said: Value = serde_json::from_str(&said.unwrap()).unwrap();
        let want = (&json!(scene.id), &json!("app.example.org"), &json!("user"), &json!("alice"));
        assert_eq!((&said["sub"], &said["aud"], &said["type"], &said["username"]), want);
        assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 120);
        // One octet of another claim, or another key, and it is worth nothing.
        let other = scene.ok("POST", path, &json!({ "audience": "other" })).await;
        assert_eq!(other["expires_in"], 3600);
        let other = other["identity_claim"]["payload_b64"].as_str().unwrap().to_owned();
        let forged = foreign(&["claim", key, &other, signature]).unwrap();
        assert!(forged.unwrap_err().contains("InvalidSignature"));
    }
    for (body, field) in [
        (json!({}), "audience"),
        (json!({ "audience": "" }), "audience"),
        (json!({ "audience": "a b" }), "audience"),
        (json!({ "audience": "a\"b" }), "audience"),
        (json!({ "audience": "é" }), "audience"),
        (json!({ "audience": "a".repeat(257) }), "audience"),
        (json!({ "audience": "a", "expires_in": 59 }), "expires_in"),
        (json!({ "audience": "a", "expires_in": 86_401 }), "expires_in"),
    ] {
        let reply = scene.send("POST", path, &body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], field, "{}", reply.text);
    }
    // Not beyond the session, which is good for a day.
    let long = scene.ok("POST", path, &json!({ "audience": "a", "expires_in": 86_400 })).await;
    assert!((86_300..=86_400).contains(&long["expires_in"].as_i64().unwrap()), "{long}");
    let token = scene.ok("POST", "auth/tokens", &json!({})).await["token"].clone();
    let basic = STANDARD.encode(format!("alice:{PASSWORD}"));
    for credential in [format!("Bearer {}", token.as_str().unwrap()), format!("Basic {basic}")] {
        let ask = Ask::new("POST", &format!("/api/v1/{path}")).header("authorization", &credential);
        let reply = scene.lab.send(ask.body(&json!({ "audience": "a" }))).await;
        assert_eq!(reply.status, 403, "{}", reply.text);
        assert!(reply.text.contains("auth tokens are not allowed here"), "{}", reply.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_claimed_where_nothing_is_signed() {
    let lab = Lab::start_with(Limits::default(), Signing::Off).await;
    let session = lab.login("alice", PASSWORD).await;
    let ask = Ask::new("POST", "/api/v1/users/auth/identity-claim").by(&session);
    let reply = lab.send(ask.body(&json!({ "audience": "a" }))).await;
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert_eq!(reply.json["error"], "SIGNING_NOT_CONFIGURED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn milestones_are_kept_from_the_first_time_on() {
    let scene = Scene::set().await;
    let path = "users/me/onboarding";
    let first = scene.ok("POST", path, &json!({ "milestone": "hub_tour_v1" })).await;
    let at = first["onboarding"]["hub_tour_v1"].as_str().unwrap().to_owned();
    let second = scene.ok("POST", path, &json!({ "milestone": "dashboard_a_1" })).await;
    assert_eq!(second["onboarding"]["hub_tour_v1"], at.as_str());
    scene.ok("POST", path, &json!({ "milestone": "hub_tour_v1" })).await;
    let me = scene.ok("GET", "users/me", &Value::Null).await;
    assert_eq!(me["onboarding"], second["onboarding"]);
    for name in
        ["", "hub_tour_v", "hub_tour_v1234", "hub_tour_vx", "dashboard_", "dashboard_A", "x"]
    {
        let reply = scene.send("POST", path, &json!({ "milestone": name })).await;
        assert_eq!(reply.status, 400, "{name}: {}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], "milestone", "{name}");
    }
    for number in 2..100 {
        scene.ok("POST", path, &json!({ "milestone": format!("dashboard_{number}") })).await;
    }
    let more = scene.send("POST", path, &json!({ "milestone": "dashboard_more" })).await;
    assert_eq!(more.status, 400, "{}", more.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_there_is_not_says_why_and_what_to_do() {
    let scene = Scene::set().await;
    for (method, path, hint) in [
        ("POST", "auth/signup", "gantry users create"),
        ("POST", "auth/forgot-password", "administrator"),
        ("GET", "auth/github", "gantry login"),
        ("POST", "auth/device/code", "auth token"),
        ("POST", "auth/launch/exchange", "gantry login"),
        ("GET", "wallet/balances", "nothing is sold"),
        ("GET", "wallet/balances/general", "nothing is sold"),
        ("GET", "reservations", "/api/v1/servers"),
        ("GET", "pools/invitations/pending", "permissions"),
        ("PUT", "notifications/read-all", "/api/v1/events"),
    ] {
        let reply = scene.send(method, path, &Value::Null).await;
        says(&reply, 501, "NOT_IMPLEMENTED");
        assert!(reply.json["message"].as_str().unwrap().contains(hint), "{path}: {}", reply.text);
    }
}
