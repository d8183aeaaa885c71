//! CORS preflights (the Fetch standard): a browser asks, without credentials, whether a script of
//! another origin may make a request.
//!
//! Where anybody may pass, the container answers. Elsewhere a preflight cannot prove anything, and the
//! edge answers in its place: yes, if the request could prove itself by what the script adds (a
//! token in a field or in the query); then the request is tried and judged. Cookies and kept
//! passwords are allowed (`Access-Control-Allow-Credentials`) only to pages of the same container.

use gantry_model::access::{GroupSet, Method as Way, Place, Policy, Source};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::credentials::methods;
use crate::body::EdgeBody;

/// Whether a request is a preflight.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The edge's yes, or nothing. `own` says that the script is of a page of the same container.
pub(crate) fn answer(
    headers: &HeaderMap,
    policy: &Policy,
    speaking: GroupSet,
    own: bool,
) -> Option<Response<EdgeBody>> {
    if !own && !methods(policy, speaking).any(|(_, way)| can_be_added(way)) {
        return None;
    }
    let mut response = Response::new(EdgeBody::EMPTY);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let vary = "origin, access-control-request-method, access-control-request-headers";
    answer.insert(header::VARY, HeaderValue::from_static(vary));
    for (asked, allowed) in [
        (header::ORIGIN, header::ACCESS_CONTROL_ALLOW_ORIGIN),
        (header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_ALLOW_METHODS),
        (header::ACCESS_CONTROL_REQUEST_HEADERS, header::ACCESS_CONTROL_ALLOW_HEADERS),
    ] {
        if let Some(value) = headers.get(asked) {
            answer.insert(allowed, value.clone());
        }
    }
    if own {
        let name = header::ACCESS_CONTROL_ALLOW_CREDENTIALS;
        answer.insert(name, HeaderValue::from_static("true"));
    }
    Some(response)
}

/// Whether a script can prove something this way to another origin.
fn can_be_added(way: &Way) -> bool {
    match way {
        Way::Token { place: Place::Header(_) | Place::Param(_), .. } => true,
        Way::Jwt { sources, .. } => {
            sources.iter().any(|source| matches!(source, Source::Header(_)))
        }
        Way::Token { place: Place::Cookie(_), .. } | Way::Password { .. } | Way::Ip(_) => false,
    }
}
