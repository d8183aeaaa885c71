//! Signing in by a page: for browsers, where a password opens a service.
//!
//! The page is served in the place of whatever was asked for. It sends name and password to
//! [`PATH`] on the same host, with a sealed state that is good once. A right password is answered by a
//! redirect with a sealed one-time code to the same path, which is exchanged there for the session:
//! a `__Host-` cookie that is sealed for this host, this container and this very password, so that a
//! password that is changed ends its sessions. The code keeps the page apart from the cookie; one
//! day the page may live on a host of its own. Nothing needs a script.

use std::{fmt::Write, sync::Arc, time::Duration};

use gantry_model::{
    ContainerId,
    access::{Caller, Decision, Demand, GroupSet, Method as Way, Policy},
};
use gantry_router::Gate;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

use super::{
    Denied,
    basic::Credentials,
    browser,
    credentials::{self, Evidence, Proof, SESSION, methods, session_of},
    query,
    seal::{Bound, SESSION_S, Use},
};
use crate::{
    answer::Failure,
    body::{ClientBody, EdgeBody},
    forward::Downstreams,
    page::{Escaped, STYLE},
    pipeline::Ask,
};

/// Where the page sends its form, and where a code is exchanged.
pub(crate) const PATH: &str = "/.gantry/sign-in";
/// Where a session is ended.
pub(crate) const OUT: &str = "/.gantry/sign-out";

/// What the pages may load and where they may send: nothing, and here.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'";

/// A challenge that no browser has a dialogue for; a 401 needs one (RFC 9110, 15.5.2).
pub(crate) const CHALLENGE: &str = "Cookie realm=\"Gantry\", form-action=\"/.gantry/sign-in\", cookie-name=\"__Host-gantry-session\"";

/// The longest form.
const FORM_MAX: usize = 8 * 1024;
/// A form must arrive within this.
const FORM_TIME: Duration = Duration::from_secs(10);
/// The longest path to come back to.
const TO_MAX: usize = 2048;

/// The service that somebody signs in to.
pub(crate) struct Service<'s> {
    pub(crate) container: ContainerId,
    pub(crate) gate: &'s Arc<Gate>,
    pub(crate) policy: &'s Policy,
    pub(crate) demand: Demand,
    /// The groups that say something about it.
    pub(crate) speaking: GroupSet,
}

/// What went wrong at the last try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Wrong,
    Stale,
}

impl Service<'_> {
    /// Whether a password opens it.
    pub(crate) fn has_passwords(&self) -> bool {
        self.passwords().next().is_some()
    }

    fn passwords(&self) -> impl Iterator<Item = (Proof, (&str, &str, &[u8; 32]))> {
        methods(self.policy, self.speaking).filter_map(|(proof, way)| match way {
            Way::Password { username, salt, hash } => Some((proof, (&**username, &**salt, hash))),
            Way::Jwt { .. } | Way::Token { .. } | Way::Ip(_) => None,
        })
    }
}

/// The page, which leads back to what was asked for.
pub(crate) fn page(
    ask: &Ask<'_>,
    service: &Service<'_>,
    method: &Method,
    path: Option<&PathAndQuery>,
) -> Failure {
    let again = matches!(*method, Method::GET | Method::HEAD);
    let to = path.map(PathAndQuery::as_str).filter(|_| again).filter(|path| is_local(path));
    form(ask, service, to.unwrap_or("/"), None)
}

/// Answers a request to one of the reserved paths; nothing for any other path.
pub(crate) async fn serve(
    ask: &Ask<'_>,
    service: &Service<'_>,
    request: Downstreams<'_>,
) -> Option<Result<Response<EdgeBody>, Failure>> {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let post = *request.method() == Method::POST;
    match request.uri().path() {
        PATH if get => Some(exchange(ask, service, request.uri().query().unwrap_or_default())),
        PATH if post => Some(submit(ask, service, request).await),
        OUT if get => Some(Ok(sign_out_page(ask))),
        OUT if post => Some(sign_out(ask, request.headers())),
        PATH | OUT => Some(Err(Failure::NotFound)),
        _ => None,
    }
}

/// A form was sent in.
async fn submit(
    ask: &Ask<'_>,
    service: &Service<'_>,
    request: Downstreams<'_>,
) -> Result<Response<EdgeBody>, Failure> {
    check_origin(ask, request.headers())?;
    if let Some(interims) = ask.interims {
        interims.ask();
    }
    let form = read(request.body_mut().take()).await?;
    let field = |name| {
        let value = query::find(&form, name).one().unwrap_or_default();
        String::from_utf8(value.into_owned()).unwrap_or_default()
    };
    let to = field("to");
    let to = if is_local(&to) { to.as_str() } else { "/" };
    let guard = ask.worker.guard();
    let now_ms = ask.worker.now_ms();
    let parts = [to.as_bytes()];
    let bound = bound(ask, service, &parts);
    let state = guard.shared.seal.check(Use::State, &bound, field("state").as_bytes(), now_ms);
    if !state.is_some_and(|state| guard.shared.used().once(state.nonce)) {
        return Err(self::form(ask, service, to, Some(Problem::Stale)));
    }
    let given = Credentials::new(&field("name"), &field("password"));
    let held = match &given {
        Some(given) => {
            let evidence = Evidence {
                container: service.container,
                gate: service.gate,
                policy: service.policy,
                wants: service.speaking,
                speaking: service.speaking,
                headers: request.headers(),
                uri: request.uri(),
                method: None,
            };
            credentials::passwords(ask, &evidence, given).await?.held
        }
        None => Vec::new(),
    };
    if held.is_empty() {
        return Err(self::form(ask, service, to, Some(Problem::Wrong)));
    }
    let opens = |proof: &Proof| {
        let mut groups = GroupSet::EMPTY;
        groups.insert(proof.group);
        service.demand.decide(service.policy, groups, Caller::Known) == Decision::Allow
    };
    let is_held = |proof: &Proof| held.iter().any(|held| held.proof == *proof);
    let mut ways = service.passwords().filter(|(proof, _)| is_held(proof) && opens(proof));
    let (proof, password) = ways.next().ok_or(Denied::Access)?;
    let [group, name, salt, hash] = session_of(service.policy, proof.group, password);
    let parts = [group, name, salt, hash, to.as_bytes()];
    let bound = self::bound(ask, service, &parts);
    let code = guard.shared.seal.issue(Use::Code, &bound, ask.worker.next_id().0, now_ms);
    redirect(&format!("{PATH}?code={code}&to={}", query::encode(to)), None)
}

/// A one-time code is exchanged for a session. Without one the page is shown.
fn exchange(
    ask: &Ask<'_>,
    service: &Service<'_>,
    query: &str,
) -> Result<Response<EdgeBody>, Failure> {
    let to = query::find(query, "to").one().unwrap_or_default();
    let to = std::str::from_utf8(&to).ok().filter(|to| is_local(to)).unwrap_or("/");
    let Some(code) = query::find(query, "code").one() else {
        return Err(form(ask, service, to, None));
    };
    let (guard, now_ms) = (ask.worker.guard(), ask.worker.now_ms());
    for (proof, password) in service.passwords() {
        let session @ [group, name, salt, hash] = session_of(service.policy, proof.group, password);
        let parts = [group, name, salt, hash, to.as_bytes()];
        let bound = bound(ask, service, &parts);
        let Some(code) = guard.shared.seal.check(Use::Code, &bound, &code, now_ms) else {
            continue;
        };
        if !guard.shared.used().once(code.nonce) {
            break;
        }
        let bound = self::bound(ask, service, &session);
        let session = guard.shared.seal.issue(Use::Session, &bound, ask.worker.next_id().0, now_ms);
        return redirect(to, Some(&cookie(&session, SESSION_S)));
    }
    Err(form(ask, service, to, Some(Problem::Stale)))
}

fn sign_out(ask: &Ask<'_>, headers: &HeaderMap) -> Result<Response<EdgeBody>, Failure> {
    check_origin(ask, headers)?;
    redirect("/", Some(&cookie("", 0)))
}

/// Forms come from our own pages, and browsers say so.
fn check_origin(ask: &Ask<'_>, headers: &HeaderMap) -> Result<(), Failure> {
    let origin = headers.get(header::ORIGIN);
    if origin.is_some_and(|origin| browser::is_same(ask, origin)) {
        Ok(())
    } else {
        Err(Denied::Origin.into())
    }
}

async fn read(body: Option<ClientBody>) -> Result<String, Failure> {
    let Some(body) = body else { return Ok(String::new()) };
    let read = timeout(FORM_TIME, Limited::new(body, FORM_MAX).collect()).await;
    match read {
        Ok(Ok(octets)) => String::from_utf8(octets.to_bytes().into())
            .or(Err(Failure::BadRequest("the form is not UTF-8"))),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Failure::BadRequest("the form is too long"))
        }
        Ok(Err(_)) | Err(_) => Err(Failure::BodyLost),
    }
}

/// Whether a redirect to this stays on its host: a path, and none that browsers read as a host.
fn is_local(to: &str) -> bool {
    to.len() <= TO_MAX
        && to.starts_with('/')
        && !to.starts_with("//")
        && to.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'\\')
        && ![PATH, OUT].into_iter().any(|own| to.starts_with(own))
}

fn bound<'b>(ask: &'b Ask<'_>, service: &Service<'_>, rest: &'b [&'b [u8]]) -> Bound<'b> {
    Bound { hostname: ask.hostname.as_str(), container: service.container, rest }
}

fn cookie(value: &str, seconds: i64) -> String {
    format!("{SESSION}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax")
}

fn redirect(to: &str, cookie: Option<&str>) -> Result<Response<EdgeBody>, Failure> {
    let mut response = Response::new(EdgeBody::EMPTY);
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    let value = |text: &str| HeaderValue::from_str(text).or(Err(Failure::NotFound));
    headers.insert(header::LOCATION, value(to)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if let Some(cookie) = cookie {
        headers.insert(header::SET_COOKIE, value(cookie)?);
    }
    Ok(response)
}

fn form(ask: &Ask<'_>, service: &Service<'_>, to: &str, problem: Option<Problem>) -> Failure {
    let bound = bound(ask, service, &[]);
    let bound = Bound { rest: &[to.as_bytes()], ..bound };
    let (seal, id) = (&ask.worker.guard().shared.seal, ask.worker.next_id());
    let state = seal.issue(Use::State, &bound, id.0, ask.worker.now_ms());
    let problem = match problem {
        None => "",
        Some(Problem::Wrong) => "<p role=alert>The name or the password is wrong.</p>",
        Some(Problem::Stale) => "<p role=alert>This page was too old. Please try again.</p>",
    };
    let body = format!(
        "{problem}<form method=post action=\"{PATH}\">\
         <p><label for=name>Name</label><br>\
         <input id=name name=name autocomplete=username autocapitalize=none spellcheck=false \
         required autofocus></p>\
         <p><label for=password>Password</label><br>\
         <input id=password name=password type=password autocomplete=current-password required></p>\
         <input type=hidden name=to value=\"{}\"><input type=hidden name=state value=\"{state}\">\
         <p><button>Sign in</button></p></form>",
        Escaped(to),
    );
    Denied::SignIn { page: document(ask, "Sign in", &body).into() }.into()
}

fn sign_out_page(ask: &Ask<'_>) -> Response<EdgeBody> {
    let body =
        format!("<form method=post action=\"{OUT}\"><p><button>Sign out</button></p></form>");
    let page = document(ask, "Sign out", &body);
    let mut response = Response::new(EdgeBody::full(page.into()));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn document(ask: &Ask<'_>, title: &str, body: &str) -> String {
    let mut page = String::with_capacity(2048);
    // Writing to a string cannot fail.
    _ = writeln!(
        page,
        "<!DOCTYPE html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta name=robots content=noindex><title>{title}</title><style>{STYLE}\
         input,button{{font:inherit;padding:.4em .6em;box-sizing:border-box}}\
         input{{width:100%}}</style></head><body><main><h1>{title}</h1>\
         <p>to <code>{}</code></p>{body}</main></body></html>",
        Escaped(ask.hostname.as_str()),
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_never_leaves_its_host() {
        for (to, want) in [
            ("/", true),
            ("/a?b=c&d=%2F%2F", true),
            ("/a//b", true),
            ("", false),
            ("//evil.example/", false),
            ("/\\evil.example/", false),
            ("\\\\evil.example", false),
            ("https://evil.example/", false),
            ("/a\r\nSet-Cookie: x=y", false),
            ("/\tevil", false),
            ("/é", false),
            ("/.gantry/sign-in?code=x", false),
            ("/.gantry/sign-out", false),
        ] {
            assert_eq!(is_local(to), want, "{to:?}");
        }
        assert!(!is_local(&format!("/{}", "a".repeat(TO_MAX))));
    }
}
