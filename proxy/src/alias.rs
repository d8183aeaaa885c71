//! Names that somebody has chosen: aliases below the server's zone, and hostnames elsewhere that are
//! bound to one. They lead to one service of one container, and from there on everything is as with
//! its own hostname; the container sees the name that the client typed.

use std::sync::Arc;

use gantry_model::{
    RouteKey, Target,
    alias::{Landed, Landing},
};
use gantry_router::AliasRoute;
use http::{HeaderValue, Response, header, uri::PathAndQuery};

use crate::{
    account::Account,
    answer::{self, Failure, Form},
    body::EdgeBody,
    forward::Downstreams,
    guard,
    pipeline::{self, Ask, Place},
    worker::Worker,
};

/// Notes in a browser that it has forgotten what it kept of the name's former owner.
const SEEN: &str = "__Host-gantry-seen";

/// A response that makes a browser forget everything of this host (Clear Site Data, W3C). Its cookies
/// go with those of the hosts beside it, which is the lesser evil.
const FORGET: &str = "\"cache\", \"cookies\", \"storage\"";

/// Where a chosen name leads now; nothing for one that is unknown, off or over.
pub(crate) fn find(worker: &Worker, key: &RouteKey<'_>) -> Option<Arc<AliasRoute>> {
    let table = worker.deps().routes.current();
    let route = match key {
        RouteKey::Alias { label, .. } => table.alias(label),
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
        project: route.project,
        container: route.container,
        target: Target::from(route.target),
        landing: route.landing.as_ref(),
    };
    let cookie = |name| guard::find_cookie(request.headers(), name).one().is_some();
    if !route.clear_site_data || cookie(SEEN) {
        return pipeline::to_container(ask, &place, request, account).await;
    }
    // What the former owner's service had set is nothing for the present one's.
    request.headers_mut().remove(header::COOKIE);
    let response = pipeline::to_container(ask, &place, request, account).await;
    let mut response = response.unwrap_or_else(|failure| {
        account.failed(failure.code(), failure.status().as_u16());
        let form = Form::choose(ask.survey.mode.as_ref(), ask.survey.accept.as_ref());
        answer::answer(&failure, form, ask.id, ask.downstream.protocol)
    });
    let headers = response.headers_mut();
    headers.insert("clear-site-data", HeaderValue::from_static(FORGET));
    let seen = format!("{SEEN}=1; Path=/; Max-Age=34560000; Secure; HttpOnly; SameSite=Lax");
    if let Ok(seen) = HeaderValue::try_from(seen) {
        headers.append(header::SET_COOKIE, seen);
    }
    Ok(response)
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
