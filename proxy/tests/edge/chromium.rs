//! What a real browser makes of the edge: signing in, cookies, pages of other tenants, reused names,
//! shared connections, HTTP/3.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use gantry_model::{Phase, Scheme, alias::AliasTarget};
use gantry_store::AliasRecord;
use serde_json::{Value, json};

use crate::{
    bed::{Bed, CONTAINER, host},
    browser::Browser,
    origin::{Origin, reply},
    python,
};

/// Another tenant's container.
const OTHER: &str = "cccccccccccccccccccccccc";

/// A browser that finds the bed's hosts; nothing if there is none here.
fn browser(bed: &Bed) -> Option<Browser> {
    browser_with(bed, None)
}

fn browser_with(bed: &Bed, http3: Option<&str>) -> Option<Browser> {
    let address = Ipv4Addr::new(127, 77, bed.number, 1);
    match Browser::start(&bed.ca_path, address, http3) {
        Ok(browser) => Some(browser),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "no browser: {error:?}");
            eprintln!("not run, no browser: {error:?}");
            None
        }
    }
}

/// A container whose pages may be read by every origin, as far as it is concerned.
fn container(bed: &Bed, id: &str, last: u8) -> Origin {
    let address = bed.container_address(last);
    bed.set_at(id, Phase::Running, 1, address, 0);
    Origin::start(SocketAddr::new(address, 3000), |seen, stream| {
        let path = seen.line().split(' ').nth(1).unwrap();
        let fields = "content-type: text/html\r\naccess-control-allow-origin: *";
        reply(stream, fields, &format!("<!DOCTYPE html><title>page {path}</title>"));
    })
}

fn url(bed: &Bed, name: &str, path: &str) -> String {
    format!("https://{name}:{}{path}", bed.https().port())
}

/// Runs a script to the end of its promise.
fn run(browser: &Browser, script: &str) -> Value {
    browser.script(script).unwrap()
}

/// The status of a fetch, or `failed` where the browser does not let its page see it.
fn fetch(browser: &Browser, url: &str, how: &str) -> Value {
    run(browser, &format!("return fetch('{url}', {how}).then((r) => r.status, () => 'failed')"))
}

fn sign_in(browser: &Browser, bed: &Bed, name: &str, path: &str) {
    browser.open(&url(bed, name, path)).unwrap();
    assert_eq!(browser.title().unwrap(), "Sign in");
    // The first field has the focus, and Tab leads to the next.
    browser.press("ann\u{e004}right\n").unwrap();
    let arrived = format!("return document.title === 'page {path}'");
    browser.wait_script("the page that was asked for", &arrived, Duration::from_secs(20)).unwrap();
}

#[test]
fn a_person_signs_in_and_out_and_pages_of_others_gain_nothing() {
    let bed = Bed::new(210);
    let (origin, other) = (container(&bed, CONTAINER, 2), container(&bed, OTHER, 3));
    let (name, foreign) = (host(CONTAINER, "http-3000"), host(OTHER, "http-3000"));
    let groups = json!({
        "people": {"type": "password", "username": "ann", "password": "right", "salt": "pepper"},
        "scripts": {"type": "token", "header": "X-Key", "value": "s3cret"},
    });
    let cells = json!({"people": {"http": 3000}, "scripts": {"http": 3000}});
    bed.gate(CONTAINER, &json!({"groups": groups, "permissions": cells, "default": "deny"}));
    let Some(browser) = browser(&bed) else { return };
    browser.open(&url(&bed, &name, "/a?b=c")).unwrap();
    browser.press("ann\u{e004}wrong\n").unwrap();
    let told = "return document.querySelector('[role=alert]')?.textContent";
    browser.wait_script("a word about it", told, Duration::from_secs(20)).unwrap();
    sign_in(&browser, &bed, &name, "/a?b=c");
    assert_eq!(run(&browser, "return location.pathname + location.search"), "/a?b=c");
    assert_eq!(run(&browser, "return document.cookie"), "", "no script reads the session");
    assert_eq!(fetch(&browser, "/own", "{method: 'POST'}"), 200);
    assert!(origin.seen().iter().all(|seen| seen.values("cookie").is_empty()));

    // A page of another tenant, in the same browser, on the same connection if the browser likes.
    browser.open(&url(&bed, &foreign, "/")).unwrap();
    assert_eq!(other.last().values("cookie"), [""; 0]);
    let before = origin.seen().len();
    let there = url(&bed, &name, "/there");
    for how in [
        "{credentials: 'include'}",
        "{credentials: 'include', mode: 'no-cors'}",
        "{credentials: 'include', mode: 'no-cors', method: 'POST', body: 'x'}",
        "{credentials: 'include', method: 'PUT', body: 'x'}",
    ] {
        fetch(&browser, &there, how);
    }
    let tunnel = there.replace("https", "wss");
    run(
        &browser,
        &format!(
            "return new Promise((end) => {{ new WebSocket('{tunnel}').onerror = () => end(1); }})"
        ),
    );
    let frame = format!(
        "const frame = document.createElement('iframe'); frame.src = '{there}';
         const end = new Promise((end) => {{ frame.onload = () => end(1); }});
         document.body.append(frame); return end;"
    );
    run(&browser, &frame);
    assert_eq!(origin.seen().len(), before, "nothing of this reached the container");
    // What proves itself may come from everywhere: the edge answers the preflight, the container the
    // request.
    assert_eq!(fetch(&browser, &there, "{headers: {'X-Key': 's3cret'}}"), 200);
    assert_eq!(fetch(&browser, &there, "{headers: {'X-Key': 'wrong'}}"), "failed");
    assert_eq!(origin.seen().len(), before + 1);
    // A link leads there, signed in.
    run(&browser, &format!("location = '{there}'"));
    let arrived = "return document.title === 'page /there'";
    browser.wait_script("the page behind the link", arrived, Duration::from_secs(20)).unwrap();

    browser.open(&url(&bed, &name, "/.gantry/sign-out")).unwrap();
    run(&browser, "document.querySelector('button').click()");
    let out = "return document.title === 'Sign in'";
    browser.wait_script("signed out", out, Duration::from_secs(20)).unwrap();
    browser.open(&url(&bed, &name, "/a")).unwrap();
    assert_eq!(browser.title().unwrap(), "Sign in");
}

#[test]
fn a_browser_forgets_the_former_owner_of_a_name_once() {
    let bed = Bed::new(51);
    let origin = container(&bed, CONTAINER, 2);
    let name = "shop.local.containers.gantry.localhost";
    let mut alias = AliasRecord {
        label: "shop".to_owned(),
        hostnames: Vec::new(),
        target: AliasTarget::Port { scheme: Scheme::Http, port: 3000 },
        landing: None,
        enabled: true,
        expires_at_ms: None,
        clear_site_data: false,
    };
    bed.change(CONTAINER, |edge| edge.aliases = vec![alias.clone()]);
    let Some(browser) = browser(&bed) else { return };
    let keep = "document.cookie = 'kept=1; Secure'; localStorage.kept = 1";
    let kept = "return document.cookie + '|' + localStorage.kept";
    browser.open(&url(&bed, name, "/")).unwrap();
    run(&browser, keep);
    browser.open(&url(&bed, name, "/a")).unwrap();
    assert_eq!(run(&browser, kept), "kept=1|1");
    // Another owner has the name.
    alias.clear_site_data = true;
    bed.change(CONTAINER, |edge| edge.aliases = vec![alias]);
    browser.open(&url(&bed, name, "/b")).unwrap();
    assert_eq!(run(&browser, kept), "|undefined");
    assert_eq!(origin.last().values("cookie"), [""; 0]);
    // And what the new one keeps stays.
    run(&browser, keep);
    browser.open(&url(&bed, name, "/c")).unwrap();
    assert_eq!(run(&browser, kept), "kept=1|1");
}

#[test]
fn a_cookie_for_the_parent_of_a_host_reaches_no_sibling_and_one_of_its_own_stays() {
    let bed = Bed::new(0);
    let address = bed.container_address(2);
    bed.set_at(CONTAINER, Phase::Running, 1, address, 0);
    let name = host(CONTAINER, "http-3000");
    let own = name.clone();
    let origin = Origin::start(SocketAddr::new(address, 3000), move |_, stream| {
        let labels: Vec<&str> = own.split('.').collect();
        let parents = (1..labels.len()).map(|first| labels[first..].join("."));
        // As wide as can be, and of all spellings; the last ones are the host's own.
        let wide = parents.flat_map(|parent| {
            let spellings =
                ["Domain=", "Domain=.", "domain =\t", "DOMAIN= .", "Path=/; Secure; Domain="];
            spellings.map(|domain| format!("Set-Cookie: wide=1; {domain}{parent}\r\n"))
        });
        let fields: String = wide.collect();
        let fields = fields
            + &format!("Set-Cookie: whole=1; Domain={own}; Secure\r\n")
            + "Set-Cookie: own=1; Secure\r\nContent-Type: text/html";
        reply(stream, &fields, "<!DOCTYPE html><title>cookies</title>");
    });
    let other = container(&bed, OTHER, 3);
    let Some(browser) = browser(&bed) else { return };
    browser.open(&url(&bed, &name, "/set")).unwrap();
    assert_eq!(run(&browser, "return document.cookie.split('; ').sort().join()"), "own=1,whole=1");
    browser.open(&url(&bed, &name, "/again")).unwrap();
    let sent = origin.last().values("cookie").join("; ");
    let mut sent: Vec<_> = sent.split("; ").collect();
    sent.sort_unstable();
    assert_eq!(sent, ["own=1", "whole=1"]);
    browser.open(&url(&bed, &host(OTHER, "http-3000"), "/sibling")).unwrap();
    assert_eq!(run(&browser, "return document.cookie"), "");
    let seen = other.seen();
    assert!(
        !seen.is_empty() && seen.iter().all(|seen| seen.values("cookie").is_empty()),
        "{seen:?}"
    );
}

/// A fetch that keeps to the connections of pages with cookies; how it ended.
fn fetch_from_other(browser: &Browser, url: &str) -> Value {
    fetch_kind(browser, url, "{mode: 'no-cors', credentials: 'include', cache: 'no-store'}")
}

fn fetch_kind(browser: &Browser, url: &str, how: &str) -> Value {
    run(browser, &format!("return fetch('{url}', {how}).then((r) => r.type, () => 'failed')"))
}

fn accepted(bed: &Bed) -> f64 {
    bed.metric("gantry_proxy_connections_accepted_total")
}

#[test]
fn containers_share_a_connection_of_a_browser_and_no_requests() {
    let bed = Bed::new(52);
    let (origin, other) = (container(&bed, CONTAINER, 2), container(&bed, OTHER, 3));
    let (name, foreign) = (host(CONTAINER, "http-3000"), host(OTHER, "http-3000"));
    let Some(browser) = browser(&bed) else { return };
    browser.open(&url(&bed, &name, "/page")).unwrap();
    let before = accepted(&bed);
    for number in 0..3 {
        let path = format!("/other-{number}");
        assert_eq!(fetch_from_other(&browser, &url(&bed, &foreign, &path)), "opaque");
        assert_eq!(fetch_kind(&browser, &format!("/own-{number}"), "{}"), "basic");
    }
    assert!((accepted(&bed) - before).abs() < f64::EPSILON, "one connection carries both names");
    for (origin, name, own) in [(&origin, &name, "/own-"), (&other, &foreign, "/other-")] {
        let seen = origin.seen();
        let asked = seen.iter().filter(|seen| seen.line().contains(own)).count();
        assert_eq!(asked, 3, "{seen:?}");
        let host = format!("{name}:{}", bed.https().port());
        assert!(seen.iter().all(|seen| seen.values("host") == [&host]), "{seen:?}");
    }
    assert!(!other.seen().iter().any(|seen| seen.line().contains("/own-")));
    let lines = bed.finish();
    assert!(lines.iter().all(|line| line["protocol"] == "http2"), "{lines:?}");
}

#[test]
fn a_browser_that_is_misdirected_tries_another_connection() {
    let bed = Bed::new(53);
    let _origin = container(&bed, CONTAINER, 2);
    // A certificate that carries more names than it is shown for, such as one that is not new.
    bed.certify_besides("api.gantry.localhost");
    let Some(browser) = browser(&bed) else { return };
    browser.open(&url(&bed, &host(CONTAINER, "http-3000"), "/page")).unwrap();
    let misdirected = "gantry_proxy_errors_total{code=\"MISDIRECTED\"}";
    let (before, refused) = (accepted(&bed), bed.metric(misdirected));
    let api = url(&bed, "api.gantry.localhost", "/asked");
    assert_eq!(fetch_from_other(&browser, &api), "opaque");
    let new = (accepted(&bed) - before, bed.metric(misdirected) - refused);
    assert!(new == (1.0, 1.0), "{new:?} connections and refusals");
    let lines = bed.finish();
    let asked: Vec<_> = lines.iter().filter(|line| line["path"] == "/asked").collect();
    let statuses: Vec<_> = asked.iter().map(|line| &line["status"]).collect();
    assert_eq!(statuses, [421, 200], "{asked:?}");
}

#[test]
fn a_browser_opens_websockets_as_streams_of_its_connection() {
    let bed = Bed::new(54);
    bed.set(CONTAINER, Phase::Running, 1);
    let address = SocketAddr::new(bed.container_address(2), 3000);
    let Some(_origin) = python::serve("websocket_origin.py", address) else { return };
    let Some(browser) = browser(&bed) else { return };
    let name = host(CONTAINER, "http-3000");
    browser.open(&url(&bed, &name, "/page")).unwrap();
    let before = accepted(&bed);
    let socket = url(&bed, &name, "/socket").replace("https", "wss");
    let script = format!(
        "return new Promise((end) => {{
            const socket = new WebSocket('{socket}', ['chat', 'other']);
            socket.onerror = () => end('failed');
            socket.onopen = () => socket.send('from a browser');
            socket.onmessage = (message) => {{ end(message.data + socket.protocol); socket.close(); }};
        }})"
    );
    assert_eq!(run(&browser, &script), "from a browserchat");
    assert!((accepted(&bed) - before).abs() < f64::EPSILON, "no connection of its own");
    bed.wait_metric("gantry_proxy_tunnels_open", 0.0);
    let lines = bed.finish();
    let line = lines.iter().find(|line| line["path"] == "/socket").unwrap();
    let told = (&line["method"], &line["protocol"], &line["status"]);
    assert_eq!(told, (&"CONNECT".into(), &"http2".into(), &200.into()));
}

#[test]
fn a_browser_speaks_http3() {
    let bed = Bed::new(55);
    let origin = container(&bed, CONTAINER, 2);
    let name = host(CONTAINER, "http-3000");
    let by_http3 = format!("{name}:{}", bed.https().port());
    let Some(browser) = browser_with(&bed, Some(&by_http3)) else { return };
    browser.open(&url(&bed, &name, "/page")).unwrap();
    assert_eq!(browser.title().unwrap(), "page /page");
    let body = "{method: 'POST', body: 'x'.repeat(1000000)}";
    assert_eq!(fetch(&browser, "/post", body), 200);
    let seen = origin.seen();
    let post = seen.iter().find(|seen| seen.line().contains("/post")).unwrap();
    assert_eq!(post.body.len(), 1_000_000);
    let protocol = "return performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(run(&browser, protocol), "h3");
    let lines = bed.finish();
    assert!(lines.iter().all(|line| line["protocol"] == "http3"), "{lines:?}");
}
