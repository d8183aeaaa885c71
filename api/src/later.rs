//! Calls of the reference API that there are not here: 501 with the reason and what to do instead, so that a
//! client can tell that from "no such thing". They are not in the `OpenAPI` document,
//! which describes what exists.

use axum::{Router, routing::any};

use crate::{
    Front,
    problem::{Kind, Problem},
};

/// Some calls, why there are none of them here, and what to do instead.
struct Family {
    why: &'static str,
    paths: &'static [&'static str],
}

const NO_MAIL: &str = "This installation sends no e-mail, so that nobody signs up or gets a new password by it. An \
                       administrator makes accounts (POST /api/v1/users, `gantry users create`)";
const NO_OTHERS: &str = "Accounts are opened by name and password here (POST /api/v1/users/auth/login, `gantry login`), \
                         or by an auth token; there is no login by another service, browser or device";
const NO_MONEY: &str = "This installation belongs to its operator: nothing is sold or paid for. GET /api/v1/servers \
                        lists its servers, which may be used as they are";

const FAMILIES: [Family; 7] = [
    Family {
        why: NO_MAIL,
        paths: &[
            "/api/v1/auth/signup",
            "/api/v1/auth/verify-email",
            "/api/v1/auth/resend-verification",
            "/api/v1/auth/forgot-password",
            "/api/v1/auth/reset-password",
            "/api/v1/users/me/retry-setup",
            "/api/v1/waitlist",
        ],
    },
    Family {
        why: NO_OTHERS,
        paths: &[
            "/api/v1/auth/github",
            "/api/v1/auth/github/callback",
            "/api/v1/auth/google",
            "/api/v1/auth/google/callback",
            "/api/v1/auth/authorize",
            "/api/v1/auth/exchange",
            "/api/v1/auth/launch/{step}",
            "/api/v1/auth/intent/cancel",
            "/api/v1/auth/device/{step}",
            "/api/v1/auth/config",
            "/api/v1/auth/available-regions",
        ],
    },
    Family {
        why: NO_MONEY,
        paths: &[
            "/api/v1/servers/{id}/rent",
            "/api/v1/rentals/{id}/extend",
            "/api/v1/offers",
            "/api/v1/offers/{id}/reserve",
            "/api/v1/reservations",
            "/api/v1/reservations/{id}",
            "/api/v1/wallet/{*rest}",
            "/api/v1/users/me/redeem-invite",
            "/api/v1/users/me/free-tier-status",
        ],
    },
    Family {
        why: "All images are free here, so that none is bought; POST /api/v1/images/import/{id} takes one into the \
              user's list",
        paths: &["/api/v1/images/purchase/{id}"],
    },
    Family {
        why: "There are no pools of accounts; a project is shared by its permissions \
              (POST /api/v1/projects/{id}/permissions)",
        paths: &["/api/v1/pools", "/api/v1/pools/{*rest}"],
    },
    Family {
        why: "There is no inbox of notifications; what happens is told by GET /api/v1/events and its streams",
        paths: &[
            "/api/v1/notifications",
            "/api/v1/notifications/",
            "/api/v1/notifications/{*rest}",
        ],
    },
    Family {
        why: "This installation offers no models of its own and has no social counters",
        paths: &["/api/v1/ai/models", "/api/v1/meta/social-stats"],
    },
];

/// The routes of everything that is not here yet.
pub(crate) fn routes() -> Router<Front> {
    let mut router = Router::new();
    for Family { why, paths } in FAMILIES {
        for path in paths {
            let refuse = move || async move { Problem::new(Kind::NotImplemented, why) };
            router = router.route(path, any(refuse));
        }
    }
    router
}

#[cfg(test)]
pub(crate) fn paths() -> Vec<&'static str> {
    FAMILIES.iter().flat_map(|family| family.paths).copied().collect()
}
