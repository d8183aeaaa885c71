//! Names that somebody has chosen: aliases below the server's zone, and hostnames elsewhere that are
//! bound to one. They lead to one service of one container, and from there on everything is as with
//! its own hostname; the container sees the name that the client typed.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use gantry_model::{
    RouteKey, Target,
    alias::{Landed, Landing},
};
use gantry_router::AliasRoute;
use http::{HeaderValue, Response, header, uri::PathAndQuery};

use crate::{
    account::Account,
    answer::{self, Failure},
    body::EdgeBody,
    cookies::{self, CLEAR_SITE_DATA},
    form::Form,
    forward::Downstreams,
    guard,
    pipeline::{self, Ask, Place},
    worker::Worker,
};

/// Notes in a browser whose the name was when it last forgot what it kept of it.
const SEEN: &str = "__Host-gantry-seen";

/// What makes a browser forget (Clear Site Data, W3C). Cookies are taken back one by one: `"cookies"`
/// would take those of all tenants.
const FORGET: &str = "\"cache\", \"storage\"";

/// So many cookies of a former owner are taken back.
const COOKIES_MAX: usize = 64;

/// Where a chosen name leads now; nothing for one that is unknown, off or over.
pub(crate) fn find(worker: &Worker, key: &RouteKey<'_>) -> Option<Arc<AliasRoute>> {
    let table = worker.deps().routes.current();
    let route = match key {
        RouteKey::Alias { server, label } => table.alias(server, label),
        RouteKey::Custom(hostname) => table.custom(hostname.as_str()),
        RouteKey::Container { .. } | RouteKey::SshGate { .. } | RouteKey::Api { .. } => None,
    };
    route.filter(|route| route.is_live(worker.now_ms()))
}

/// Answers a request to a chosen name.
pub(crate) async fn serve(
    ask: &mut Ask<'_>,
    key: &RouteKey<'_>,
    request: Downstreams<'_>,
    account: &mut Account,
) -> Result<Response<EdgeBody>, Failure> {
    // One certificate and one policy do not cover it and others: a connection is for it alone.
    let own = ask.downstream.sni.as_deref() == Some(ask.hostname.as_str());
    if matches!(key, RouteKey::Custom(_)) && ask.downstream.secure && !own {
        return Err(Failure::Misdirected);
    }
    let route = find(ask.worker, key).ok_or(Failure::NotFound)?;
    let place = Place {
        server: None,
        project: route.project,
        container: route.container,
        target: Target::from(route.target),
        landing: route.landing.as_ref(),
        is_chosen: true,
    };
    if !route.clear_site_data {
        return pipeline::to_container(ask, &place, request, account).await;
    }
    // A hash, since the id is half of what opens the container.
    let owner = digest(&SHA256, route.container.as_bytes());
    let owner = hex::encode(owner.as_ref().get(..8).unwrap_or_default());
    if cookies::find(request.headers(), SEEN).one() == Some(owner.as_bytes()) {
        return pipeline::to_container(ask, &place, request, account).await;
    }
    let stale: Vec<HeaderValue> =
        cookies::names(request.headers()).take(COOKIES_MAX).filter_map(taken_back).collect();
    // What the former owner's service had set is nothing for the present one's.
    request.headers_mut().remove(header::COOKIE);
    let response = pipeline::to_container(ask, &place, request, account).await;
    let mut response = response.unwrap_or_else(|failure| {
        account.failed(failure.code(), failure.status().as_u16());
        let form = Form::choose(ask.survey.mode.as_ref(), ask.survey.accept.as_ref());
        answer::answer(&failure, form, ask.id, ask.downstream.protocol)
    });
    let headers = response.headers_mut();
    headers.insert(&CLEAR_SITE_DATA, HeaderValue::from_static(FORGET));
    let seen = format!("{SEEN}={owner}; Path=/; Max-Age=34560000; Secure; HttpOnly; SameSite=Lax");
    for cookie in stale.into_iter().chain(HeaderValue::try_from(seen)) {
        headers.append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// What makes a browser forget a cookie. One that was for a deeper path only it keeps.
fn taken_back(name: &[u8]) -> Option<HeaderValue> {
    let cookie = [name, b"=; Path=/; Max-Age=0; Secure"].concat();
    HeaderValue::from_maybe_shared(Bytes::from(cookie)).ok()
}

/// Leads a request to where the name's owner wants it.
pub(crate) fn land(landing: &Landing, request: Downstreams<'_>) -> Result<(), Failure> {
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    match landing.apply(path) {
        Landed::Unchanged => Ok(()),
        Landed::Pinned404 => Err(Failure::AliasPathPinned),
        Landed::Rewritten(path) => {
            let path = PathAndQuery::try_from(path).or(Err(Failure::NotFound))?;
            guard::replace_path(request.uri_mut(), path);
            Ok(())
        }
    }
}
