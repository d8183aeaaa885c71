//! Calls of the reference API that this version does not have: 501 with what is missing, so that a
//! client can tell "not here yet" from "no such thing". They are not in the `OpenAPI` document,
//! which describes what exists.

use axum::{Router, routing::any};

use crate::{
    Front,
    problem::{Kind, Problem},
};

/// A family of calls and the paths that it has.
struct Family {
    what: &'static str,
    paths: &'static [&'static str],
}

const FAMILIES: [Family; 2] = [
    Family {
        what: "This part of accounts and tokens is",
        paths: &[
            "/api/v1/users/auth/identity-claim",
            "/api/v1/users/auth/2fa",
            "/api/v1/users/auth/2fa/{step}",
            "/api/v1/users/auth/2fa/backup-codes/regenerate",
            "/api/v1/users/me/onboarding",
            "/api/v1/auth/signup",
            "/api/v1/auth/verify-email",
            "/api/v1/auth/resend-verification",
            "/api/v1/auth/forgot-password",
            "/api/v1/auth/reset-password",
        ],
    },
    Family {
        what: "This part of servers, images and meta data is",
        paths: &[
            "/api/v1/images/user",
            "/api/v1/images/{id}/icon",
            "/api/v1/images/import/{id}",
            "/api/v1/images/purchase/{id}",
            "/api/v1/images/rate/{id}",
            "/api/v1/servers/{id}/runtime",
            "/api/v1/servers/{id}/rent",
            "/api/v1/servers/{id}/available-commands",
            "/api/v1/servers/{id}/execute-command",
            "/api/v1/rentals/{id}/runtime",
            "/api/v1/rentals/{id}/extend",
            "/api/v1/meta/social-stats",
            "/api/v1/notifications",
            "/api/v1/notifications/",
            "/api/v1/wallet/balances",
            "/api/v1/wallet/transactions",
            "/api/v1/wallet/invoices",
            "/api/v1/ai/models",
            "/api/v1/pools",
            "/api/v1/pools/{id}",
        ],
    },
];

/// The routes of everything that is not here yet.
pub(crate) fn routes() -> Router<Front> {
    let mut router = Router::new();
    for Family { what, paths } in FAMILIES {
        for path in paths {
            let refuse = move || async move {
                Problem::new(
                    Kind::NotImplemented,
                    format!("{what} not implemented by this version of Gantry"),
                )
            };
            router = router.route(path, any(refuse));
        }
    }
    router
}

#[cfg(test)]
pub(crate) fn paths() -> Vec<&'static str> {
    FAMILIES.iter().flat_map(|family| family.paths).copied().collect()
}
