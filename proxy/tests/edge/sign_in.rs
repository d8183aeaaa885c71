//! Signing in by a page, as a browser does it.

use serde_json::{Value, json};

use crate::{
    bed::{Bed, CONTAINER, SESSION_KEY, Setup, host},
    client::{Client, Reply},
    origin::Origin,
};

const NAVIGATE: &str = "Sec-Fetch-Mode: navigate\r\nAccept: text/html,*/*;q=0.8\r\n";

fn gated(password: &str) -> Value {
    let group =
        json!({"type": "password", "username": "ann", "password": password, "salt": "pepper"});
    json!({"groups": {"g": group}, "permissions": {"g": {"http": [3000, 3001]}}, "default": "deny"})
}

/// A browser, as far as these tests need one.
struct Browser<'b> {
    bed: &'b Bed,
    name: String,
}

impl Browser<'_> {
    fn client(&self) -> Client {
        self.bed.tls_client(&self.name)
    }

    fn open(&self, path: &str, fields: &str) -> Reply {
        self.client().get(&self.name, path, &format!("{NAVIGATE}{fields}"))
    }

    fn send(&self, path: &str, origin: &str, form: &str) -> Reply {
        let (mut client, name) = (self.client(), &self.name);
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: {name}\r\nOrigin: {origin}\r\n{NAVIGATE}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        ));
        client.reply()
    }

    fn origin(&self) -> String {
        format!("https://{}", self.name)
    }

    /// Fills in the page's form.
    fn fill(&self, page: &Reply, name: &str, password: &str) -> Reply {
        let form = format!(
            "name={name}&password={password}&to={}&state={}",
            hidden(page, "to"),
            hidden(page, "state")
        );
        self.send("/.gantry/sign-in", &self.origin(), &form)
    }

    /// Signs in from a path; returns the cookie and where the browser is led.
    fn sign_in(&self, path: &str) -> (String, String) {
        let page = self.open(path, "");
        let reply = self.fill(&page, "ann", "right");
        assert_eq!(reply.status, 303, "{reply:?}");
        let reply = self.open(reply.value("location").unwrap(), "");
        assert_eq!(reply.status, 303, "{reply:?}");
        let cookie = reply.value("set-cookie").unwrap();
        let (pair, attributes) = cookie.split_once(';').unwrap();
        assert_eq!(attributes, " Path=/; Max-Age=43200; Secure; HttpOnly; SameSite=Lax");
        (format!("Cookie: {pair}\r\n"), reply.value("location").unwrap().to_owned())
    }
}

/// The value of a hidden field of the page's form, as it is in the page.
fn hidden(page: &Reply, name: &str) -> String {
    let text = page.text();
    let (_, rest) = text.split_once(&format!("name={name} value=\"")).expect(&text);
    rest.split_once('"').unwrap().0.to_owned()
}

fn started(number: u8) -> (Bed, Origin) {
    let bed = Bed::new(number);
    let origin = bed.running();
    bed.gate(CONTAINER, &gated("right"));
    (bed, origin)
}

fn browser<'b>(bed: &'b Bed, service: &str) -> Browser<'b> {
    Browser { bed, name: host(CONTAINER, service) }
}

#[test]
fn a_browser_signs_in_by_a_page_and_comes_back_to_where_it_was() {
    let (bed, origin) = started(195);
    let browser = browser(&bed, "http-3000");
    let page = browser.open("/a?b=c", "");
    assert_eq!((page.status, page.code()), (401, Some("AUTHENTICATION_REQUIRED")), "{page:?}");
    assert!(page.value("www-authenticate").unwrap().starts_with("Cookie "), "no dialogue");
    let policy = page.value("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert_eq!(page.value("cache-control"), Some("no-store"));
    assert!(!page.text().contains("<script") && page.text().contains("<label for=password>"));
    let (cookie, to) = browser.sign_in("/a?b=c");
    assert_eq!(to, "/a?b=c");
    let reply = browser.open(&to, &cookie.replace("Cookie: ", "Cookie: a=1; "));
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello\n"));
    assert_eq!(origin.last().values("cookie"), ["a=1"], "the session stays at the edge");
    // So it counts for scripts of its pages, and for no other host of the container.
    let scripts = "Sec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\n";
    let fetch = |name: &str, fields: &str| {
        bed.tls_client(name).get(name, "/", &format!("{cookie}{fields}")).status
    };
    assert_eq!(fetch(&browser.name, scripts), 200);
    assert_eq!(fetch(&host(CONTAINER, "http-3001"), scripts), 401);
    // Signing out forgets it.
    let page = browser.open("/.gantry/sign-out", &cookie);
    assert!(page.text().contains("action=\"/.gantry/sign-out\""));
    let reply = browser.send("/.gantry/sign-out", &browser.origin(), "");
    assert_eq!((reply.status, reply.value("location")), (303, Some("/")));
    assert!(
        reply
            .value("set-cookie")
            .unwrap()
            .starts_with("__Host-gantry-session=; Path=/; Max-Age=0;")
    );
}

#[test]
fn a_session_ends_with_its_password_and_is_nobody_elses() {
    let (bed, _origin) = started(196);
    let browser = browser(&bed, "http-3000");
    let (cookie, _) = browser.sign_in("/");
    assert_eq!(browser.open("/", &cookie).status, 200);
    let value = cookie.trim().strip_prefix("Cookie: ").unwrap();
    for (what, fields) in [
        ("twice", format!("Cookie: {value}; {value}\r\n")),
        ("tampered", cookie.replace("session=A", "session=B")),
        ("another name", cookie.replace("__Host-", "__host-")),
    ] {
        assert_eq!(browser.open("/", &fields).status, 401, "{what}");
    }
    let foreign = host("cccccccccccccccccccccccc", "http-3000");
    for (fields, status) in [
        // A page of another tenant may lead here, and nothing else.
        ("Sec-Fetch-Site: same-site\r\nSec-Fetch-Dest: document\r\n".to_owned(), 200),
        ("Sec-Fetch-Site: same-site\r\nSec-Fetch-Dest: iframe\r\n".to_owned(), 401),
        (
            format!(
                "Sec-Fetch-Site: same-site\r\nSec-Fetch-Dest: iframe\r\nReferer: https://{foreign}/\r\n"
            ),
            401,
        ),
        (
            format!(
                "Sec-Fetch-Site: same-site\r\nSec-Fetch-Dest: iframe\r\nReferer: https://{}/\r\n",
                host(CONTAINER, "http-4000")
            ),
            200,
        ),
    ] {
        assert_eq!(browser.open("/", &format!("{cookie}{fields}")).status, status, "{fields}");
    }
    let image = format!("{cookie}Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Site: same-site\r\n");
    assert_eq!(browser.client().get(&browser.name, "/", &image).status, 401);
    // Another change of the document does not end it, another password does.
    let mut document = gated("right");
    document["permissions"]["g"]["terminal"] = true.into();
    bed.gate(CONTAINER, &document);
    assert_eq!(browser.open("/", &cookie).status, 200);
    bed.gate(CONTAINER, &gated("changed"));
    assert_eq!(browser.open("/", &cookie).status, 401);
}

#[test]
fn a_sign_in_is_good_once_and_only_from_its_own_page() {
    let (bed, origin) = started(197);
    let browser = browser(&bed, "http-3000");
    let page = browser.open("/", "");
    let form = format!("name=ann&password=right&to=/&state={}", hidden(&page, "state"));
    for from in
        ["null", "https://evil.example", &format!("https://{}", host(CONTAINER, "http-3001"))]
    {
        let reply = browser.send("/.gantry/sign-in", from, &form);
        assert_eq!((reply.status, reply.code()), (403, Some("ORIGIN_REFUSED")), "{from}");
    }
    let wrong = browser.fill(&browser.open("/", ""), "ann", "wrong");
    assert_eq!(wrong.status, 401);
    assert!(
        wrong.text().contains("role=alert>The name or the password is wrong"),
        "{}",
        wrong.text()
    );
    // The state belongs to the place to come back to, and to one try.
    let elsewhere = form.replace("to=/", "to=/b");
    assert!(
        browser.send("/.gantry/sign-in", &browser.origin(), &elsewhere).text().contains("too old")
    );
    let reply = browser.send("/.gantry/sign-in", &browser.origin(), &form);
    let exchange = reply.value("location").unwrap().to_owned();
    assert!(browser.send("/.gantry/sign-in", &browser.origin(), &form).text().contains("too old"));
    // So does the code, and to its host.
    let other = host(CONTAINER, "http-3001");
    let reply = bed.tls_client(&other).get(&other, &exchange, NAVIGATE);
    assert_eq!((reply.status, reply.value("set-cookie")), (401, None));
    let moved = exchange.replace("to=%2F", "to=%2Fb");
    assert_eq!(browser.open(&moved, "").value("set-cookie"), None);
    assert!(browser.open(&exchange, "").value("set-cookie").is_some());
    assert_eq!(browser.open(&exchange, "").value("set-cookie"), None);
    // Nobody is led elsewhere.
    for path in ["//evil.example/", "/\\evil.example/"] {
        assert_eq!(hidden(&browser.open(path, ""), "to"), "/", "{path}");
    }
    assert_eq!(hidden(&browser.open("/?a=%22%3E&b=1", ""), "to"), "/?a=%22%3E&amp;b=1");
    for form in ["", "name=ann", "name=ann&name=ann&password=right", &"x".repeat(9000)] {
        assert!(browser.send("/.gantry/sign-in", &browser.origin(), form).status >= 400);
    }
    assert_eq!(origin.seen().len(), 0);
}

#[test]
fn passwords_are_not_guessed_by_the_page_either() {
    let (bed, _origin) = started(198);
    let browser = browser(&bed, "http-3000");
    for number in 0..10 {
        let reply = browser.fill(&browser.open("/", ""), "ann", &format!("guess{number}"));
        assert_eq!(reply.status, 401);
    }
    let reply = browser.fill(&browser.open("/", ""), "ann", "right");
    assert_eq!((reply.status, reply.code()), (429, Some("TOO_MANY_ATTEMPTS")));
}

#[test]
fn where_no_password_opens_anything_the_paths_are_the_containers() {
    let bed = Bed::new(199);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let group = json!({"type": "token", "header": "X-Key", "value": "s3cret"});
    let document =
        json!({"groups": {"g": group}, "permissions": {"g": {"http": 3000}}, "default": "deny"});
    bed.gate(CONTAINER, &document);
    let reply = bed.client().get(&name, "/.gantry/sign-in", "X-Key: s3cret\r\n");
    assert_eq!(reply.status, 200);
    assert_eq!(origin.last().line(), "GET /.gantry/sign-in HTTP/1.1");
    let reply = bed.client().get(&name, "/", NAVIGATE);
    assert_eq!((reply.status, reply.code()), (403, Some("ACCESS_DENIED")));
}

#[test]
fn a_session_survives_a_restart_with_its_key_and_no_other() {
    let (bed, origin) = started(56);
    let (cookie, _) = browser(&bed, "http-3000").sign_in("/");
    let page = browser(&bed, "http-3000").open("/", "");
    drop((origin, bed));
    for (session_key, want) in [(SESSION_KEY, 200), ([8; 32], 401)] {
        let bed = Bed::with(56, Setup { session_key, ..Setup::default() });
        let _origin = bed.running();
        bed.gate(CONTAINER, &gated("right"));
        let browser = browser(&bed, "http-3000");
        assert_eq!(browser.open("/", &cookie).status, want);
        // What counts once is remembered by a process, so that it counts in no other.
        let reply = browser.fill(&page, "ann", "right");
        assert_eq!(reply.status, 401);
        assert!(reply.text().contains("too old"), "{reply:?}");
    }
}
