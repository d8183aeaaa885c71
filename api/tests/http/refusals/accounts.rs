//! Wrong values of accounts, sessions and tokens.

use serde_json::json;

use super::Row;

pub(super) fn of_accounts() -> Vec<Row> {
    [of_users(), of_sessions(), of_tokens()].concat()
}

fn of_users() -> Vec<Row> {
    vec![
        (
            "POST",
            "users",
            json!({ "username": "a b", "password": "Passw0rd!carol" }),
            "username",
            "letters",
        ),
        ("PUT PATCH", "users/{id}", json!({ "public_key": "xyz" }), "public_key", "64"),
        (
            "POST",
            "users/auth/login",
            json!({ "username": "alice", "password": 7 }),
            "password",
            "must be a string",
        ),
        (
            "POST",
            "users/auth/refresh",
            json!({ "refreshToken": 7 }),
            "refreshToken",
            "must be a string",
        ),
    ]
}

fn of_sessions() -> Vec<Row> {
    vec![
        ("POST", "users/me/onboarding", json!({ "milestone": "x" }), "milestone", "hub_tour_v"),
        (
            "POST",
            "users/auth/identity-claim",
            json!({ "audience": "a b" }),
            "audience",
            "printable",
        ),
        (
            "POST",
            "users/auth/2fa/verify",
            json!({ "temp_token": 7, "code": "123456" }),
            "temp_token",
            "must be a string",
        ),
        ("POST", "users/auth/2fa/setup", json!({ "password": 7 }), "password", "must be a string"),
        ("POST", "users/auth/2fa/verify-setup", json!({ "code": 7 }), "code", "must be a string"),
        (
            "DELETE",
            "users/auth/2fa",
            json!({ "password": "Passw0rd!alice", "code": 7 }),
            "code",
            "must be a string",
        ),
        (
            "POST",
            "users/auth/2fa/backup-codes/regenerate",
            json!({ "password": "Passw0rd!alice", "code": 7 }),
            "code",
            "must be a string",
        ),
        (
            "PUT PATCH",
            "users/auth/2fa/token-gate",
            json!({ "enabled": "yes" }),
            "enabled",
            "true or false",
        ),
    ]
}

fn of_tokens() -> Vec<Row> {
    vec![
        ("POST", "auth/tokens", json!({ "alias": "a/b" }), "alias", "1 to 254"),
        (
            "PUT PATCH",
            "auth/tokens/{id}",
            json!({ "ip_whitelist": ["x"] }),
            "ip_whitelist[0]",
            "address",
        ),
        (
            "POST",
            "auth/tokens/{id}/copy",
            json!({ "expires_at": "soon" }),
            "expires_at",
            "ISO 8601",
        ),
        (
            "POST",
            "auth/tokens/{id}/add-realm",
            json!({ "realm_id": "X" }),
            "realm_id",
            "24 lower-case",
        ),
        (
            "POST",
            "auth/tokens/{id}/remove-realm",
            json!({ "realm_id": "X" }),
            "realm_id",
            "24 lower-case",
        ),
        (
            "PUT PATCH",
            "auth/tokens/me/public-profile",
            json!({ "public_key": "x" }),
            "public_key",
            "64 lower-case",
        ),
        ("PUT PATCH", "vault/keys/{key}", json!({}), "value", "required"),
        ("POST", "images/rate/{id}", json!({ "rating": 6 }), "rating", "0 to 5"),
        ("POST", "servers/{id}/execute-command", json!({ "wait": "yes" }), "wait", "true or false"),
        ("DELETE", "events", json!({ "before_date": "soon" }), "before_date", "ISO 8601"),
        ("POST", "events/cleanup", json!({ "retention_days": 0 }), "retention_days", "1 to 365"),
    ]
}
