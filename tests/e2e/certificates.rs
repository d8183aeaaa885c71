//! Certificates by ACME, with the real binary: pebble asks, Knot DNS knows the names, curl and OpenSSL look.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use gantry_tests::{Gantry, Options, walk_on};

use crate::{
    certs::run,
    knot::{Key, Knot, Place},
    pebble::{Pebble, Setup},
    wait_until,
};

pub(crate) const DOMAIN: &str = "gantry.test";
/// How long a certificate may take, on a machine with much else to do.
const SOON: Duration = Duration::from_mins(1);

#[test]
fn names_of_the_installation_and_of_customers_get_certificates_and_keep_them() -> Result<()> {
    // Its address is needed before it starts: the CA finds it by name.
    let address = Gantry::prepare(Options::fake())?.address();
    let place = Place::new()?;
    let key = Key::new("acme-key", "hmac-sha256")?;
    // One zone for both: this CA follows no alias from one answer to another. The second wildcard goes on
    // where a proof makes a name of what the first stands for.
    let names = format!(
        "@ NS ns1\nns1 A {}\n*.gantry A {address}\n*.local.containers.gantry A {address}\n\
         plainfront.local.containers.gantry A {plain}\n\
         plain.customer CNAME plainfront.local.containers.{DOMAIN}.\n\
         www.customer CNAME shopfront.local.containers.{DOMAIN}.\n",
        place.host(1),
        plain = place.host(3),
    );
    let knot = Knot::primary(place.at(1), &key, &[("test", &names)])?;
    let pebble = Pebble::start(&Setup { http: 8080, tls: 8443, ..Setup::new(place.at(1))? })?;
    let authority = format!("directory = \"{}\"\nduplicates_per_week = 2", pebble.directory());
    let file = configuration(&authority, &pebble, place, &key);
    let issued_by = tempfile::NamedTempFile::new()?;
    std::fs::write(issued_by.path(), pebble.issued_by()?)?;
    let options = Options::fake().file(file).domain(DOMAIN, issued_by.path());
    // Where CAs ask in the world, besides where this one does.
    let options = options
        .set(&format!(
            "edge.http=[\"{address}:8080\", \"{address}:80\", \"{}:8080\"]",
            place.host(3)
        ))
        .set(&format!("edge.https=[\"{address}:8443\", \"{address}:443\"]"));
    walk_on(Gantry::prepare(options), |gantry| {
        let own = format!("x.local.containers.{DOMAIN}");
        wait_until("a certificate of the CA", SOON, || is_of_pebble(gantry, &own))?;
        let ca = ["--cacert".to_owned(), issued_by.path().display().to_string()];
        gantry.curl().with(ca.clone()).fetch(&gantry.api_url("meta/config"))?.expect(200)?;
        told(gantry)?;
        let proofs = || knot.dig(&format!("_acme-challenge.{DOMAIN}"), "TXT");
        wait_until("no proof is left", SOON, || proofs().is_ok_and(|left| left.is_empty()))?;

        customer(gantry, "shop", "www.customer.test")?;
        has_come(gantry, "www.customer.test")?;
        over_http(gantry)?;
        let www = "https://www.customer.test:8443/";
        let answer = gantry.curl().with(ca.clone()).fetch(www)?;
        ensure!(answer.status != 0, "{}", answer.complaint);
        by_hand(gantry)?;
        revoked(gantry, &pebble)?;

        // After kill -9 the same is shown, from the first moment.
        let before = serial(gantry, &own)?;
        gantry.kill()?;
        gantry.spawn()?;
        gantry.wait_ready()?;
        ensure!(serial(gantry, &own)? == before, "another certificate is shown");
        ensure!(gantry.curl().with(ca).fetch(www)?.status != 0, "the customer's is not shown");
        Ok(())
    });
    Ok(())
}

/// Prometheus is told of the certificate and of the CA.
fn told(gantry: &Gantry) -> Result<()> {
    let url = format!("http://{}:9090/metrics", gantry.address());
    let output = Command::new("curl").args(["-fsS", &url]).output()?;
    ensure!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let zone = format!("*.local.containers.{DOMAIN}");
    for want in [
        format!("gantry_certificate_not_after_timestamp_seconds{{name=\"{zone}\"}} "),
        format!("gantry_certificate_due_timestamp_seconds{{name=\"{DOMAIN}\"}} "),
        "gantry_acme_issued_total{ca=\"https://localhost:".to_owned(),
        "gantry_acme_budget_left{ca=\"https://localhost:".to_owned(),
    ] {
        ensure!(text.contains(&want), "{want} in\n{text}");
    }
    Ok(())
}

/// A hostname of a customer's is bound and asked for.
fn customer(gantry: &Gantry, name: &str, hostname: &str) -> Result<()> {
    let project = gantry.create_project(name)?;
    let container = gantry.create(&project, &["--name", name])?;
    let front = format!("{name}front");
    let new = ["proxy", "create", "--container-id", &container.id, "--program", "http"];
    let rest = ["--port", "3000", "--alias", &front];
    let alias = gantry.json(&[&new[..], &rest].concat())?;
    let alias = alias["id"].as_str().context("no id")?;
    let bind = ["hostnames", "bind", &container.id, hostname, "--alias-id", alias];
    let output = gantry.cli(&bind)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plain = gantry.curl_plain();
    let url = format!("http://{hostname}/");
    wait_until("the name is known", SOON, || plain.status(&url) != 404)?;
    let first = plain.fetch(&url)?;
    if first.status == 503 {
        ensure!(first.header("x-gantry-error") == Some("CERTIFICATE_PENDING"), "{first:?}");
        ensure!(first.header("retry-after").is_some(), "{first:?}");
    }
    // Whose name nobody has bound gets none, and no redirect either.
    plain.fetch("http://other.customer.test/")?.expect(404)?;
    Ok(())
}

fn has_come(gantry: &Gantry, hostname: &str) -> Result<()> {
    let (plain, url) = (gantry.curl_plain(), format!("http://{hostname}/"));
    wait_until("the customer's certificate", SOON, || plain.status(&url) == 308)?;
    ensure!(is_of_pebble(gantry, hostname), "another CA's is shown");
    Ok(())
}

/// Where nobody listens for TLS the CA asks over HTTP, with the next attempt.
fn over_http(gantry: &Gantry) -> Result<()> {
    let name = "plain.customer.test";
    customer(gantry, "plain", name)?;
    let state = gantry.state().display().to_string();
    let list = || gantry.json(&["certs", "list", name, "--state", &state]);
    let has_failed = || {
        list().is_ok_and(|list| {
            let why = list["certificates"][0]["last_error"].as_str();
            why.is_some_and(|why| why.contains("for the tls-alpn-01 challenge"))
        })
    };
    wait_until("it was asked over TLS in vain", SOON, has_failed)?;
    gantry.json(&["certs", "renew", name, "--state", &state])?;
    has_come(gantry, name)
}

/// The operator looks at the customer's certificate, has it renewed, and is told when that is too often.
fn by_hand(gantry: &Gantry) -> Result<()> {
    let state = gantry.state().display().to_string();
    let name = "www.customer.test";
    // Not before the answers to the CA are taken away, which is a moment after the certificate has come.
    let is_asked = || {
        let answered = [":443 answers as a CA wants it", ":80 answers as a CA wants it"];
        run(gantry, &["doctor", name, "--state", &state])
            .is_ok_and(|(code, said)| code == 0 && answered.iter().all(|it| said.contains(it)))
    };
    wait_until("the doctor asks the edge", SOON, is_asked)?;
    let (code, said) = run(gantry, &["doctor", "other.customer.test", "--state", &state])?;
    ensure!(code == 1 && said.contains("bound to no alias"), "{code}: {said}");
    let list = gantry.json(&["certs", "list", "www.customer", "--state", &state])?;
    let only = &list["certificates"][0];
    ensure!(list["total"] == 1 && only["kind"] == "ordered" && only["is_shown"] == true, "{list}");
    let before = serial(gantry, name)?;
    let renewed = gantry.json(&["certs", "renew", name, "--state", &state])?;
    ensure!(renewed["serial"].is_string() && renewed["serial"] != only["serial"], "{renewed}");
    ensure!(serial(gantry, name)? != before, "the old one is shown");
    let (code, said) = run(gantry, &["certs", "renew", name, "--state", &state])?;
    let is_told = said.contains("takes at most 2 certificates for exactly these names");
    ensure!(code == 5 && is_told && said.contains("again from 20"), "{code}: {said}");
    let (code, said) = run(gantry, &["certs", "trust", "--state", &state])?;
    ensure!(code == 5 && said.contains("nothing to trust"), "{code}: {said}");
    Ok(())
}

/// The operator has the installation's certificate revoked: the CA knows, and another one is shown.
fn revoked(gantry: &Gantry, pebble: &Pebble) -> Result<()> {
    let state = gantry.state().display().to_string();
    let revoke = |name: &str, reason: &str| {
        run(gantry, &["certs", "revoke", name, "--reason", reason, "--state", &state])
    };
    let (code, said) = revoke(DOMAIN, "boredom")?;
    ensure!(code == 2 && said.contains("must be one of unspecified, key-comp"), "{code}: {said}");
    let (code, said) = revoke("nobody.test", "superseded")?;
    ensure!(
        code == 4 && said.contains("there is no certificate for nobody.test"),
        "{code}: {said}"
    );
    // What a wildcard stands for is not its name.
    let own = format!("x.local.containers.{DOMAIN}");
    let (code, said) = revoke(&own, "superseded")?;
    ensure!(code == 5 && said.contains("has no certificate of its own"), "{code}: {said}");
    let before = serial(gantry, &own)?;
    let list = gantry.json(&["certs", "list", DOMAIN, "--state", &state])?;
    let entries = list["certificates"].as_array().context("no list")?;
    let old = entries.iter().find(|entry| entry["kind"] == "ordered").context("none")?;
    let old = old["serial"].as_str().context("no serial")?;
    let (code, said) = revoke(DOMAIN, "superseded")?;
    ensure!(code == 0 && said.contains(old) && said.contains("In its place"), "{code}: {said}");
    let status = pebble.status(old)?;
    ensure!(status["Status"] == "Revoked" && status["Reason"] == 4, "{status}");
    ensure!(is_of_pebble(gantry, &own) && serial(gantry, &own)? != before, "no other is shown");
    // Whoever repeats that does not mean what has come in its place.
    let after = serial(gantry, &own)?;
    let (code, said) = revoke(DOMAIN, "superseded")?;
    ensure!(code == 5 && said.contains("has come in its place; --serial"), "{code}: {said}");
    // Nor is one taken away whose place would stay empty.
    let (code, said) = revoke("www.customer.test", "superseded")?;
    ensure!(code == 5 && said.contains("; --force has it shown no more"), "{code}: {said}");
    ensure!(serial(gantry, &own)? == after, "the new one is shown");
    Ok(())
}

/// The configuration for certificates from an authority, of which these lines say more, with proofs by the name
/// server of this place.
pub(crate) fn configuration(authority: &str, pebble: &Pebble, place: Place, key: &Key) -> String {
    format!(
        "[control]\nresolver = \"{dns}\"\n[certificates]\nissuer = \"acme\"\n\
         [[certificates.authorities]]\n{authority}\nroots = \"{roots}\"\n\
         [certificates.dns]\nprovider = \"rfc2136\"\nservers = [\"{dns}\"]\n\
         key_name = \"{name}\"\nkey_secret = \"{secret}\"\n\
         [certificates.propagation]\nresolvers = [\"{dns}\"]\nport = {port}\n",
        dns = place.at(1),
        roots = pebble.roots_path().display(),
        name = key.name,
        secret = key.secret,
        port = place.port,
    )
}

pub(crate) fn is_of_pebble(gantry: &Gantry, name: &str) -> bool {
    shown(gantry, name, "-issuer").is_ok_and(|issuer| issuer.contains("Pebble"))
}

fn serial(gantry: &Gantry, name: &str) -> Result<String> {
    shown(gantry, name, "-serial")
}

/// What OpenSSL says of the certificate that is shown for a name.
fn shown(gantry: &Gantry, name: &str, what: &str) -> Result<String> {
    let address = format!("{}:8443", gantry.address());
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let handshake = client.stdout.take().context("no output")?;
    let output = Command::new("openssl").args(["x509", "-noout", what]).stdin(handshake).output();
    client.wait()?;
    let output = output?;
    ensure!(output.status.success(), "no certificate for {name}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
