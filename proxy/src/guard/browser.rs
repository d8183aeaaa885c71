//! What a browser says about where a request comes from. Only browsers send these fields, and no
//! page can choose them; whoever sends a request by other means cannot make anybody else send it.

use gantry_model::{ContainerId, Hostname, RouteKey};
use http::{HeaderMap, HeaderValue, Method, header};

use crate::pipeline::Ask;

/// What `Sec-Fetch-Site` and its kin say.
const SITE: &str = "sec-fetch-site";
const DEST: &str = "sec-fetch-dest";
const MODE: &str = "sec-fetch-mode";

/// Whether the request opens a page in a browser.
pub(crate) fn is_navigation(ask: &Ask<'_>) -> bool {
    match ask.survey.mode.as_ref().map(HeaderValue::as_bytes) {
        Some(mode) => mode == b"navigate" || mode == b"nested-navigate",
        // Browsers that do not say it yet, but say that they want a page.
        None => {
            ask.survey.accept.as_ref().is_some_and(|accept| {
                accept.to_str().is_ok_and(|accept| accept.contains("text/html"))
            })
        }
    }
}

/// Whether the request comes from a script of a page, to which a dialogue would be no answer.
pub(crate) fn is_script(headers: &HeaderMap) -> bool {
    headers.contains_key(MODE)
}

/// Whether a request that brings cookies, or a password that a browser keeps, may have been made by
/// a page of somebody else to do something in its user's name: one that changes something, or
/// opens a tunnel, and says that it comes from elsewhere.
pub(crate) fn is_forged(
    ask: &Ask<'_>,
    container: ContainerId,
    method: &Method,
    headers: &HeaderMap,
) -> bool {
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if safe && ask.survey.upgrade.is_none() {
        return false;
    }
    headers.get(header::ORIGIN).is_some_and(|origin| !is_own(ask, container, origin))
}

/// Whether a session counts for a request. The hosts of all tenants are one site, so that `SameSite`
/// does not keep the pages of others from loading this one's; a page of another container may only lead
/// its user here.
pub(crate) fn may_use_session(
    ask: &Ask<'_>,
    container: ContainerId,
    method: &Method,
    headers: &HeaderMap,
) -> bool {
    match headers.get(SITE).map(HeaderValue::as_bytes) {
        None | Some(b"same-origin" | b"none") => return true,
        Some(_) => {}
    }
    let safe = matches!(*method, Method::GET | Method::HEAD);
    if safe && is_navigation(ask) && headers.get(DEST).is_none_or(|dest| dest == "document") {
        return true;
    }
    let from = headers.get(header::ORIGIN).or_else(|| headers.get(header::REFERER));
    from.is_some_and(|from| is_own(ask, container, from))
}

/// Whether an address (`https://host[:port][/…]`) is of this host or another one of this container.
pub(crate) fn is_own(ask: &Ask<'_>, container: ContainerId, address: &HeaderValue) -> bool {
    let Some(hostname) = hostname(ask, address) else { return false };
    if hostname == *ask.hostname {
        return true;
    }
    let table = ask.worker.deps().routes.current();
    let alias = match RouteKey::parse(&hostname, &ask.worker.config().domain) {
        Ok(RouteKey::Container { server, container: other, .. }) => {
            return other == container && table.is_on(server, container);
        }
        Ok(RouteKey::Alias { server, label }) => table.alias(server, label),
        Ok(RouteKey::Custom(hostname)) => table.custom(hostname.as_str()),
        Ok(RouteKey::Api { .. } | RouteKey::SshGate { .. }) | Err(_) => None,
    };
    alias.is_some_and(|to| to.container == container && to.is_live(ask.worker.now_ms()))
}

/// Whether an origin is exactly the one that the request is for, with its port.
pub(crate) fn is_same(ask: &Ask<'_>, origin: &HeaderValue) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| strip_scheme(ask, origin));
    let (Some(origin), Ok(authority)) = (origin, ask.authority.to_str()) else { return false };
    origin.eq_ignore_ascii_case(authority)
}

fn hostname<'h>(ask: &Ask<'_>, address: &'h HeaderValue) -> Option<Hostname<'h>> {
    let rest = strip_scheme(ask, address.to_str().ok()?)?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(Hostname::parse_authority(authority).ok()?.0)
}

/// A connection without TLS comes from a terminator, or from this machine.
fn strip_scheme<'h>(ask: &Ask<'_>, address: &'h str) -> Option<&'h str> {
    let plain = || address.strip_prefix("http://").filter(|_| !ask.downstream.secure);
    address.strip_prefix("https://").or_else(plain)
}
