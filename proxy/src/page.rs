//! The page that a browser shows for a failure: one small document, no outside resources, readable
//! without colours and by a screen reader.

use std::fmt::{self, Write};

use crate::{
    answer::Failure,
    deps::RequestId,
    guard::{self, Denied},
    wake::Waiting,
};

/// What the page may load: nothing but its own style.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The style of all pages.
pub(crate) const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.6 system-ui,sans-serif;margin:0;min-height:100vh;display:grid;place-items:center}\
main{max-width:34rem;padding:2rem}\
h1{font-size:1.5rem;line-height:1.3;margin:0 0 .5rem}\
p{margin:.5rem 0}\
code{font:.95em ui-monospace,monospace;background:#8882;padding:.1em .35em;border-radius:.25em;\
overflow-wrap:anywhere}\
small{opacity:.75}";

/// What the page of `failure` may load, and where it may send.
pub(crate) const fn policy(failure: &Failure) -> &'static str {
    if let Failure::Denied(Denied::SignIn { .. }) = failure {
        return guard::SIGN_IN_POLICY;
    }
    POLICY
}

/// The page of `failure`.
pub(crate) fn html(failure: &Failure, message: &str, id: RequestId) -> String {
    if let Failure::Denied(Denied::SignIn { page }) = failure {
        return page.clone().into();
    }
    let status = failure.status();
    let refresh = match failure {
        Failure::ContainerStarting
        | Failure::ContainerWaking(_)
        | Failure::ServiceNotStarted { retry: true, .. }
        | Failure::ServiceAbsent { fresh: true, .. }
        | Failure::PortClosed { fresh: true, .. } => "<meta http-equiv=refresh content=1>",
        Failure::Refused(_)
        | Failure::BadRequest(_)
        | Failure::HeadTooLarge
        | Failure::BodyLost
        | Failure::BodyTooLarge
        | Failure::HostMissing
        | Failure::HostInvalid
        | Failure::Misdirected
        | Failure::MethodNotSupported
        | Failure::MethodNotAllowed
        | Failure::ExpectationFailed
        | Failure::NotFound
        | Failure::SshOnly { .. }
        | Failure::ContainerStopped
        | Failure::ContainerPaused
        | Failure::ContainerFailed
        | Failure::ContainerNotWoken
        | Failure::ServiceNotProvided(_)
        | Failure::ServiceAbsent { fresh: false, .. }
        | Failure::ServiceNotStarted { retry: false, .. }
        | Failure::PortClosed { fresh: false, .. }
        | Failure::UpstreamUnreachable { .. }
        | Failure::UpstreamTimeout
        | Failure::UpstreamBroken
        | Failure::ApiUnavailable
        | Failure::HookFailed
        | Failure::HookTimeout
        | Failure::Denied(_)
        | Failure::EdgeBusy
        | Failure::CertificatePending
        | Failure::TooManyRequests { .. }
        | Failure::ContainerBusy
        | Failure::AliasPathPinned => "",
    };
    let (title, help) = words(failure);
    let mut page = String::with_capacity(2048);
    // Writing to a string cannot fail.
    _ = writeln!(
        page,
        "<!DOCTYPE html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta name=robots content=noindex>{refresh}<title>{title}</title><style>{STYLE}</style>\
         </head><body><main><h1>{title}</h1><p role=status>{}.</p>{help}\
         <p><small>Error {} · <code>{}</code> · request <code>{id}</code></small></p>\
         </main></body></html>",
        Escaped(message),
        status.as_u16(),
        failure.code().as_str(),
    );
    page
}

/// The heading, and what the reader can do.
fn words(failure: &Failure) -> (&'static str, String) {
    let (title, help) = match failure {
        Failure::Refused(_)
        | Failure::BadRequest(_)
        | Failure::HeadTooLarge
        | Failure::HostMissing
        | Failure::HostInvalid
        | Failure::ExpectationFailed => ("This request cannot be understood", ""),
        Failure::BodyTooLarge => ("Too large", "<p>This server takes no upload of this size.</p>"),
        Failure::BodyLost => ("The upload stopped", "<p>Please try again.</p>"),
        Failure::Misdirected => ("Wrong connection", "<p>Reload the page.</p>"),
        Failure::MethodNotSupported | Failure::MethodNotAllowed => ("Not supported", ""),
        Failure::NotFound => ("Nothing here", "<p>Check the address for a typing error.</p>"),
        Failure::SshOnly { hostname } => {
            let command = Escaped(hostname);
            let help = format!("<p>In a terminal: <code>ssh root@{command}</code></p>");
            return ("This is an SSH address", help);
        }
        Failure::ContainerStarting => {
            ("Starting", "<p>This page reloads by itself until the container is ready.</p>")
        }
        Failure::ContainerWaking(Waiting { stage, waited_s, within_s }) => {
            let help = format!(
                "<p><progress aria-label=\"Waking up\" max={within_s} value={waited_s}></progress></p>\
                 <p>{stage}: {waited_s} s so far, {within_s} s at most. This page opens by itself as soon as \
                 the container is awake.</p>"
            );
            return ("Waking up", help);
        }
        Failure::ContainerNotWoken => ("It did not wake up", "<p>Its owner sees the reason.</p>"),
        Failure::ContainerStopped => ("Stopped", "<p>Its owner can start it.</p>"),
        Failure::ContainerPaused => ("Paused", "<p>Its owner can resume it.</p>"),
        Failure::ContainerFailed => (
            "This container has failed",
            "<p>Its owner sees the reason and can start it again.</p>",
        ),
        Failure::ServiceNotProvided(_) => ("Not provided yet", ""),
        Failure::ServiceAbsent { port, .. } => {
            let help = format!(
                "<p>A program of your own can take its place: let it listen on <code>0.0.0.0:{port}</code> \
                 in the container.</p>"
            );
            return ("Not provided yet", help);
        }
        Failure::ServiceNotStarted { .. } => {
            ("This service did not start", "<p>Try again in a moment.</p>")
        }
        Failure::PortClosed { .. } => (
            "Nothing listens here",
            "<p>Start a program in the container that listens on this port on \
             <code>0.0.0.0</code>, not only on <code>127.0.0.1</code>.</p>",
        ),
        Failure::UpstreamUnreachable { .. } => ("The container cannot be reached", ""),
        Failure::UpstreamTimeout => ("No answer in time", "<p>Try again in a moment.</p>"),
        Failure::UpstreamBroken => ("The answer broke off", "<p>Try again in a moment.</p>"),
        Failure::TooManyRequests { .. } => {
            ("Too many requests", "<p>Wait a moment, then reload the page.</p>")
        }
        Failure::ContainerBusy => ("This container is busy", "<p>Try again in a moment.</p>"),
        Failure::ApiUnavailable => ("The API is not available", "<p>Try again in a moment.</p>"),
        Failure::HookFailed | Failure::HookTimeout => (
            "A hook did not decide",
            "<p>A script of this container looks at requests first. Its owner sees what it does.</p>",
        ),
        Failure::Denied(denied) => denied.words(),
        Failure::CertificatePending => ("Nearly there", "<p>Try again in a moment.</p>"),
        Failure::EdgeBusy => ("This server is busy", "<p>Try again in a moment.</p>"),
        Failure::AliasPathPinned => ("Nothing here", "<p>Start at <a href=\"/\">/</a>.</p>"),
    };
    (title, help.to_owned())
}

/// Text for an HTML element, or for an attribute between double quotes.
pub(crate) struct Escaped<'t>(pub(crate) &'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            other => f.write_char(other),
        })
    }
}
