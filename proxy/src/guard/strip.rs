//! What a container may not see: the credentials that the edge reads in its place.
//!
//! Each place that a group of the policy reads is emptied, whatever stands there and whether or not it
//! proved something: a mistyped password is almost the right one. `Authorization`, which
//! applications use, too, is taken only where a group that says something about the service reads it,
//! and only of the Basic scheme if what it reads is a password.

use gantry_model::access::{GroupSet, Method, Place, Policy, Source};
use gantry_router::Gate;
use http::{HeaderMap, HeaderValue, Request, Uri, header, uri::PathAndQuery};

use super::{basic, credentials::methods, query};
use crate::cookies;

/// Takes the credentials out of a request. `speaking` are the groups that say something about the
/// service, `bare` those that are known to read nothing that the request holds.
pub(crate) fn strip<B>(
    request: &mut Request<B>,
    policy: &Policy,
    speaking: GroupSet,
    bare: GroupSet,
) {
    let reading = GroupSet::first(policy.groups().len()).difference(bare);
    let headers = request.headers_mut();
    let (mut cookies, mut params) = (false, false);
    for (proof, method) in methods(policy, reading) {
        let speaks = speaking.contains(proof.group);
        match method {
            Method::Ip(_) => {}
            Method::Password { .. } if speaks => remove_basic(headers),
            Method::Password { .. } => {}
            Method::Token { place: Place::Header(name), .. } => remove(headers, name, speaks),
            Method::Token { place: Place::Cookie(_), .. } => cookies = true,
            Method::Token { place: Place::Param(_), .. } => params = true,
            Method::Jwt { sources, .. } => {
                for source in sources {
                    match source {
                        Source::Header(name) => remove(headers, name, speaks),
                        Source::Cookie(_) => cookies = true,
                    }
                }
            }
        }
    }
    if cookies {
        cookies::remove(headers, |name| is_cookie(policy, name));
    }
    if params {
        let is_ours = |name: &[u8]| is_param(policy, name);
        strip_referer(headers, is_ours);
        strip_query(request.uri_mut(), is_ours);
    }
}

fn remove(headers: &mut HeaderMap, name: &str, speaks: bool) {
    if speaks || name != header::AUTHORIZATION.as_str() {
        headers.remove(name);
    }
}

fn remove_basic(headers: &mut HeaderMap) {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    if fields.any(|field| basic::is_basic(field.as_bytes())) {
        headers.remove(header::AUTHORIZATION);
    }
}

/// Whether a group of the gate reads the parameter with this name, whatever it stands for.
pub(crate) fn reads_param(gate: &Gate, name: &[u8]) -> bool {
    gate.policy.as_ref().is_some_and(|policy| is_param(policy, name))
}

fn is_cookie(policy: &Policy, name: &[u8]) -> bool {
    let all = GroupSet::first(policy.groups().len());
    methods(policy, all).any(|(_, method)| match method {
        Method::Token { place: Place::Cookie(own), .. } => own.as_bytes() == name,
        Method::Jwt { sources, .. } => sources.iter().any(|source| match source {
            Source::Cookie(own) => own.as_bytes() == name,
            Source::Header(_) => false,
        }),
        Method::Token { place: Place::Header(_) | Place::Param(_), .. }
        | Method::Password { .. }
        | Method::Ip(_) => false,
    })
}

fn is_param(policy: &Policy, name: &[u8]) -> bool {
    let all = GroupSet::first(policy.groups().len());
    methods(policy, all).any(|(_, method)| match method {
        Method::Token { place: Place::Param(own), .. } => own.as_bytes() == name,
        Method::Token { place: Place::Header(_) | Place::Cookie(_), .. }
        | Method::Jwt { .. }
        | Method::Password { .. }
        | Method::Ip(_) => false,
    })
}

fn strip_query(uri: &mut Uri, is_ours: impl Fn(&[u8]) -> bool) {
    let Some(path) = uri.path_and_query().and_then(|path| query::remove(path, is_ours)) else {
        return;
    };
    replace_path(uri, path);
}

/// Replaces path and query, and keeps the rest.
pub(crate) fn replace_path(uri: &mut Uri, path: PathAndQuery) {
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(path);
    // Parts that were valid with one path are valid with another.
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// A page that was opened with a credential in its address names it in all that it loads.
fn strip_referer(headers: &mut HeaderMap, is_ours: impl Fn(&[u8]) -> bool) {
    let Some(referer) = headers.get(header::REFERER) else { return };
    let text = referer.to_str().unwrap_or_default();
    let Some((page, query)) = text.split_once('?') else { return };
    let Some(kept) = query::kept(query, is_ours) else { return };
    let text = if kept.is_empty() { page.to_owned() } else { format!("{page}?{kept}") };
    match HeaderValue::try_from(text) {
        Ok(value) => drop(headers.insert(header::REFERER, value)),
        Err(_) => drop(headers.remove(header::REFERER)),
    }
}
