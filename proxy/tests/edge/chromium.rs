//! What a real browser makes of the edge: signing in, cookies, pages of other tenants, reused names.

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
};

/// Another tenant's container.
const OTHER: &str = "cccccccccccccccccccccccc";

/// A browser that finds the bed's hosts; nothing if there is none here.
fn browser(bed: &Bed) -> Option<Browser> {
    let address = Ipv4Addr::new(127, 77, bed.number, 1);
    match Browser::start(&bed.ca_path, address) {
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
    let bed = Bed::new(211);
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
