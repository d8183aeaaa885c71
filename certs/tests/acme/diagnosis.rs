//! What is said of names: those with wrong records, closed ports, limits that are reached, and good ones.

use std::{
    collections::HashMap, net::IpAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use gantry_certs::{
    Leaf, Seal, SealError, Source,
    acme::{Authority, Dns, Limits, Transport, TransportError},
    diagnosis::{Finding, Grounds, Ports, Verdict},
    dns::{DnsConfig, Propagation, PropagationConfig},
};
use gantry_store::{OrderRecord, Store, Use};
use http::{Request, Response};
use rustls::sign::CertifiedKey;
use serde_json::json;
use tempfile::TempDir;
use time::{OffsetDateTime, macros::format_description};

use crate::{
    bench::{DOMAIN, Edge, Edges},
    knot::{Key, Knot, Place},
    pebble::{Setup, free_port},
};

const DIRECTORY: &str = "https://ca.test/dir";

/// One zone above all names, so that a climb for CAA records ends at a server that answers.
const ZONE: &str = "\
example A 127.0.0.1
api.example A 127.0.0.1
_acme-challenge.api.example CNAME a.loop.example.test.
a.loop.example CNAME b.loop.example.test.
b.loop.example CNAME a.loop.example.test.
closed.example A 127.0.0.1
closed.example CAA 0 issue \"ca.test\"
closed.example CAA 0 issuewild \";\"
*.closed.example A 127.0.0.1
shop.customer A 127.0.0.1
away.customer A 127.0.0.9
six.customer A 127.0.0.1
six.customer AAAA ::1
caa.customer A 127.0.0.1
customer CAA 0 issue \"other.test\"
caa.customer CAA 0 issue \"ca.test\"
account.customer A 127.0.0.1
account.customer CAA 0 issue \"ca.test; accounturi=https://ca.test/acct/8\"
method.customer A 127.0.0.1
method.customer CAA 128 issue \"ca.test; validationmethods=dns-01\"
";

/// A CA that has nothing but a directory, and a clock.
#[derive(Debug)]
struct Ca {
    ahead: time::Duration,
    is_away: bool,
    identity: &'static str,
}

/// One with which all is well.
const GOOD: Ca = Ca { ahead: time::Duration::ZERO, is_away: false, identity: "ca.test" };
const AWAY: Ca = Ca { is_away: true, ..GOOD };

#[async_trait::async_trait]
impl Transport for Ca {
    async fn send(&self, _request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        if self.is_away {
            return Err(TransportError("the line is cut".to_owned()));
        }
        let form = format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
        );
        let date = (OffsetDateTime::now_utc() + self.ahead).format(form).unwrap();
        let directory = json!({"newNonce": "x", "meta": {"caaIdentities": [self.identity]}});
        let answer = Response::builder().header("date", date);
        Ok(answer.body(Bytes::from(directory.to_string())).unwrap())
    }
}

/// An installation in a world with mistakes.
struct Lab {
    knot: Knot,
    edge: Edge,
    setup: Setup,
    dns: Dns,
    authorities: Vec<Authority>,
    _dir: TempDir,
}

impl Lab {
    async fn new() -> Result<Self> {
        let (place, key) = (Place::new()?, Key::new("acme-key", "hmac-sha256")?);
        let zone = format!("@ NS ns1\nns1 A {}\n{ZONE}", place.host(1));
        let knot = Knot::primary(place.at(1), &key, &[("test", &zone)])?;
        let provider = json!({
            "provider": "rfc2136", "servers": [place.at(1).to_string()],
            "key_name": key.name, "key_secret": key.secret,
        });
        let config = PropagationConfig {
            resolvers: vec![place.at(1)],
            port: place.port,
            ..PropagationConfig::default()
        };
        let propagation = Propagation::new(&config).map_err(|it| anyhow::anyhow!("{it:?}"))?;
        let provider: DnsConfig = serde_json::from_value(provider)?;
        let provider = provider.provider(&propagation).map_err(|it| anyhow::anyhow!("{it:?}"))?;
        let dir = tempfile::tempdir()?;
        let store = dir.path().join("store.db");
        note_failures(&store).await?;
        let mut edge = Edge::start(&store, Edges::new(Vec::new(), None, &[])).await?;
        let setup = Setup::new(place.at(1))?;
        edge.open_doors(&setup).await?;
        let authorities = vec![authority(GOOD)];
        Ok(Self { knot, edge, setup, dns: Dns { provider, propagation }, authorities, _dir: dir })
    }

    async fn diagnose(&self, name: &str, change: impl FnOnce(&mut Grounds<'_>)) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.look(change, async |grounds| grounds.diagnose(name, &mut findings).await).await;
        findings
    }

    async fn look(
        &self,
        change: impl FnOnce(&mut Grounds<'_>),
        look: impl AsyncFnOnce(&Grounds<'_>),
    ) {
        let domain = DOMAIN.parse().unwrap();
        let wanted = [DOMAIN, "api.example.test", "closed.example.test", "*.closed.example.test"];
        let wanted = wanted.map(str::to_owned);
        let permits = |name: &str| name != "unbound.customer.test";
        let is_here = |address: IpAddr| address == IpAddr::from([127, 0, 0, 1]);
        let mut grounds = Grounds {
            store: Some(&self.edge.store),
            seal: None,
            resolver: Some(&self.edge.resolver),
            shelf: Some(&self.edge.shelf),
            domain: &domain,
            wanted: &wanted,
            authorities: &self.authorities,
            dns: Some(&self.dns),
            names: &self.dns.propagation,
            permits: &permits,
            is_here: &is_here,
            now: OffsetDateTime::now_utc(),
            ports: Ports { http: self.setup.http, tls: self.setup.tls },
            patience: Duration::from_secs(5),
        };
        change(&mut grounds);
        look(&grounds).await;
    }

    /// What is said of all certificates, so many days from now.
    async fn certificates(&self, in_days: i64) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.look(
            |grounds| grounds.now += time::Duration::days(in_days),
            async |grounds| findings = grounds.certificates().await,
        )
        .await;
        findings
    }
}

/// What earlier attempts have left: too many failed proofs for one name, and few for another.
async fn note_failures(path: &Path) -> Result<()> {
    let store = Store::open(path).await?;
    let now = i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000)?;
    let name = "blog.customer.test".to_owned();
    let failed = |subject: &str| Use {
        directory: DIRECTORY.to_owned(),
        kind: "failures",
        subject: subject.to_owned(),
    };
    store.note_acme_uses(&vec![failed(&name); 5], 0, now).await?;
    store.note_acme_uses(&[failed("shop.customer.test")], 0, now).await?;
    note_failure(&store, &name, "the CA says: no valid A records found").await?;
    store.close().await;
    Ok(())
}

/// A certificate that is wanted and was not to be had.
async fn note_failure(store: &Store, name: &str, why: &str) -> Result<()> {
    let now = i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000)?;
    let wanted = store.want_certificate(name, &[name.to_owned()], now).await?;
    let lease = store.take_lease(&format!("test {name}"), [1; 16], Duration::from_secs(30)).await?;
    let lease = lease.context("somebody has it")?;
    store
        .note_failed_certificate((name, wanted.version), why, now + 3_600_000, &lease, now)
        .await?;
    Ok(())
}

fn authority(ca: Ca) -> Authority {
    Authority {
        directory: DIRECTORY.to_owned(),
        contact: Vec::new(),
        external_account: None,
        profile: None,
        limits: Limits::default(),
        transport: Arc::new(ca),
    }
}

/// Whether there is a finding of this check and verdict with these words in what was found or would be right.
fn says(findings: &[Finding], (check, verdict, words): Said) -> bool {
    findings.iter().any(|it| {
        let is_said =
            it.found.contains(words) || it.right.as_ref().is_some_and(|it| it.contains(words));
        it.check == check && it.verdict == verdict && is_said
    })
}

/// A check, how bad what it has found is, and words of that or of what would be right.
type Said = (&'static str, Verdict, &'static str);

const ROWS: &[(&str, Said)] = &[
    ("shop.customer.test", ("certificate", Verdict::Failure, "none is shown")),
    ("shop.customer.test", ("name", Verdict::Ok, "bound to an alias")),
    ("shop.customer.test", ("addresses", Verdict::Ok, "A record 127.0.0.1, an address of this")),
    ("shop.customer.test", ("clock", Verdict::Ok, "dir answers; the clock here is")),
    (
        "shop.customer.test",
        ("CAA", Verdict::Failure, "at customer.test let other.test issue alone"),
    ),
    ("shop.customer.test", ("CAA", Verdict::Failure, "customer.test CAA 0 issue \"ca.test\"")),
    ("shop.customer.test", ("limits", Verdict::Ok, "within its limits")),
    ("shop.customer.test", ("http-01", Verdict::Ok, "asked from this machine")),
    ("shop.customer.test", ("tls-alpn-01", Verdict::Ok, "answers as a CA wants it")),
    ("unbound.customer.test", ("name", Verdict::Failure, "gantry hostnames bind")),
    ("unbound.customer.test", ("addresses", Verdict::Failure, "has no address")),
    (
        "away.customer.test",
        ("addresses", Verdict::Warning, "127.0.0.9, which is none of this machine"),
    ),
    (
        "away.customer.test",
        ("http-01", Verdict::Failure, "takes no connections: Connection refused"),
    ),
    ("away.customer.test", ("tls-alpn-01", Verdict::Failure, "takes no connections")),
    ("six.customer.test", ("addresses", Verdict::Warning, "AAAA record ::1, which is none")),
    ("six.customer.test", ("http-01", Verdict::Failure, "[::1]")),
    ("caa.customer.test", ("CAA", Verdict::Ok, "at caa.customer.test permit this CA")),
    ("account.customer.test", ("CAA", Verdict::Failure, "acct/8 alone, and there is none of ours")),
    (
        "method.customer.test",
        ("CAA", Verdict::Failure, "by dns-01 alone, and ours is by tls-alpn-01"),
    ),
    (
        "blog.customer.test",
        ("limits", Verdict::Failure, "at most 5 failed proofs for blog.customer"),
    ),
    ("blog.customer.test", ("limits", Verdict::Failure, "wait until 20")),
    ("blog.customer.test", ("attempts", Verdict::Failure, "no valid A records found")),
    ("blog.customer.test", ("attempts", Verdict::Failure, "gantry certs renew blog.customer.test")),
    ("example.test", ("name", Verdict::Ok, "of the installation, under example.test")),
    ("example.test", ("CAA", Verdict::Ok, "no CAA records at example.test or above")),
    ("example.test", ("delegation", Verdict::Ok, "is in the zone test (ns1.test)")),
    ("example.test", ("dns-01", Verdict::Ok, "was written and seen at every name server")),
    ("api.example.test", ("delegation", Verdict::Failure, "leads in a circle")),
    (
        "nowhere.example.test",
        ("name", Verdict::Failure, "one of the names that certificates are for"),
    ),
    ("closed.example.test", ("CAA", Verdict::Ok, "permit this CA")),
    ("x.closed.example.test", ("name", Verdict::Ok, "of the installation")),
    // As what it is ordered.
    ("x.closed.example.test", ("CAA", Verdict::Failure, "let nobody issue alone")),
    (
        "*.closed.example.test",
        ("CAA", Verdict::Failure, "closed.example.test let nobody issue alone"),
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_has_its_words() -> Result<()> {
    let lab = Lab::new().await?;
    let mut said: HashMap<&str, Vec<Finding>> = HashMap::new();
    for (name, want) in ROWS {
        if !said.contains_key(name) {
            said.insert(name, lab.diagnose(name, |_| ()).await);
        }
        let findings = &said[name];
        assert!(says(findings, *want), "{name}: {want:?} is not in {findings:#?}");
    }
    let left = lab.knot.dig("_acme-challenge.example.test", "TXT")?;
    assert!(left.is_empty(), "{left:?}");
    lab.edge.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_ports_a_wrong_clock_and_missing_parts_are_told() -> Result<()> {
    use Verdict::{Failure, Warning};
    let lab = Lab::new().await?;
    let name = "caa.customer.test";
    let closed = free_port()?;
    let findings = lab.diagnose(name, |grounds| grounds.ports.http = closed).await;
    assert!(says(&findings, ("http-01", Warning, "the other way is enough")), "{findings:#?}");
    let both = Ports { http: closed, tls: closed };
    let findings = lab.diagnose(name, |grounds| grounds.ports = both).await;
    assert!(says(&findings, ("http-01", Failure, "leads to this Gantry")), "{findings:#?}");
    // Something listens there, but it speaks no HTTP.
    let tls = lab.setup.tls;
    let findings = lab.diagnose(name, |grounds| grounds.ports.http = tls).await;
    assert!(says(&findings, ("http-01", Warning, "something else listens")), "{findings:#?}");
    let findings = lab.diagnose(DOMAIN, |grounds| grounds.dns = None).await;
    assert!(says(&findings, ("dns-01", Failure, "[certificates.dns]")), "{findings:#?}");
    let findings = lab.diagnose(DOMAIN, |grounds| grounds.authorities = &[]).await;
    assert!(says(&findings, ("issuer", Warning, "gantry certs trust")), "{findings:#?}");
    for (ca, want) in [
        (Ca { ahead: time::Duration::hours(3), ..GOOD }, ("clock", Failure, "s behind its own")),
        (Ca { ahead: -time::Duration::minutes(3), ..GOOD }, ("clock", Warning, "s ahead of its")),
        (AWAY, ("CA", Failure, "the line is cut")),
    ] {
        let authorities = [authority(ca)];
        let domain = DOMAIN.parse()?;
        let grounds = Grounds {
            store: None,
            seal: None,
            resolver: None,
            shelf: None,
            domain: &domain,
            wanted: &[],
            authorities: &authorities,
            dns: None,
            names: &lab.dns.propagation,
            permits: &|_| true,
            is_here: &|_| true,
            now: OffsetDateTime::now_utc(),
            ports: Ports::default(),
            patience: Duration::from_secs(5),
        };
        let findings = grounds.ask_clocks().await;
        assert!(says(&findings, want), "{want:?}: {findings:#?}");
    }
    lab.edge.stop().await;
    Ok(())
}

/// Seals nothing.
#[derive(Debug)]
struct Open;

impl Seal for Open {
    fn seal(&self, _context: &str, text: &[u8]) -> Result<Vec<u8>, SealError> {
        Ok(text.to_vec())
    }

    fn open(&self, _context: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        Ok(sealed.to_vec())
    }
}

/// Whoever copies the record that is shown has our account alone issue, and is told that it may.
#[tokio::test(flavor = "multi_thread")]
async fn the_record_for_our_account_is_shown() -> Result<()> {
    let lab = Lab::new().await?;
    let lease = lab.edge.store.take_lease("test", [3; 16], Duration::from_secs(30)).await?;
    let lease = lease.context("somebody has it")?;
    let account = json!({ "id": "https://ca.test/acct/8" }).to_string();
    lab.edge.store.put_acme_account(DIRECTORY, account.as_bytes(), &lease, 0).await?;
    let record = "example.test CAA 0 issue \
                  \"ca.test; validationmethods=dns-01; accounturi=https://ca.test/acct/8\"";
    for (name, want) in [
        (DOMAIN, ("CAA", Verdict::Ok, record)),
        ("account.customer.test", ("CAA", Verdict::Ok, "at account.customer.test permit this CA")),
    ] {
        let findings = lab.diagnose(name, |grounds| grounds.seal = Some(&Open)).await;
        assert!(says(&findings, want), "{name}: {findings:#?}");
    }
    lab.edge.stop().await;
    Ok(())
}

/// Nothing must be mended for one CA while another one can issue.
#[tokio::test(flavor = "multi_thread")]
async fn one_ca_that_can_issue_is_enough() -> Result<()> {
    use Verdict::{Failure, Warning};
    let mut lab = Lab::new().await?;
    let other = || Authority {
        directory: "https://other.test/dir".to_owned(),
        ..authority(Ca { identity: "other.test", ..GOOD })
    };
    for (name, authorities, want) in [
        // The CAA records name one of the two.
        (
            "shop.customer.test",
            [authority(GOOD), other()],
            ("CAA", Warning, "other.test issue alone"),
        ),
        ("caa.customer.test", [authority(AWAY), authority(GOOD)], ("CA", Warning, "line is cut")),
        // One is at a limit.
        ("blog.customer.test", [authority(GOOD), other()], ("limits", Warning, "at most 5 failed")),
        // Neither can.
        ("caa.customer.test", [authority(AWAY), other()], ("CA", Failure, "line is cut")),
        ("caa.customer.test", [authority(AWAY), other()], ("CAA", Failure, "ca.test issue alone")),
    ] {
        lab.authorities = authorities.into();
        let findings = lab.diagnose(name, |_| ()).await;
        assert!(says(&findings, want), "{name}: {want:?} is not in {findings:#?}");
        let of_cas = ["CA", "clock", "CAA", "limits"];
        let fails =
            findings.iter().any(|it| it.verdict == Failure && of_cas.contains(&it.check.as_str()));
        assert_eq!(fails, want.1 == Failure, "{name}: {findings:#?}");
    }
    lab.edge.stop().await;
    Ok(())
}

/// What customers have not set right is no failure of the installation, nor is a renewal that may fail for a while.
#[tokio::test(flavor = "multi_thread")]
async fn only_own_names_without_a_good_certificate_must_be_mended() -> Result<()> {
    use Verdict::{Failure, Ok as Good, Warning};
    let lab = Lab::new().await?;
    let customers =
        ("certificates", Warning, "1 of customers, of which 0 have ended and 1 were not");
    let findings = lab.certificates(0).await;
    assert!(says(&findings, ("certificates", Failure, "example.test: none")), "{findings:#?}");
    assert!(says(&findings, customers), "{findings:#?}");
    assert!(says(&findings, ("certificates", Warning, "gantry doctor 'blog.customer.test'")));

    let names = [DOMAIN, "api.example.test", "closed.example.test", "*.closed.example.test"];
    let mut leaf = rcgen::CertificateParams::new(names.map(str::to_owned))?;
    leaf.not_before = OffsetDateTime::now_utc() - time::Duration::days(1);
    leaf.not_after = OffsetDateTime::now_utc() + time::Duration::days(89);
    let key = rcgen::KeyPair::generate()?;
    let chain = leaf.self_signed(&key)?;
    let private = key.serialize_der().try_into().map_err(anyhow::Error::msg)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let private = provider.key_provider.load_private_key(private)?;
    let key = Arc::new(CertifiedKey::new(vec![chain.der().clone()], private));
    let leaf = Leaf { names: names.map(str::to_owned).into(), key };
    lab.edge.resolver.publish(Source::Files, vec![leaf]);
    let findings = lab.certificates(0).await;
    assert!(says(&findings, ("certificates", Good, "for all 4 names")), "{findings:#?}");
    assert!(says(&findings, customers) && findings.len() == 2, "{findings:#?}");

    note_failure(&lab.edge.store, DOMAIN, "the name server says: REFUSED").await?;
    let findings = lab.certificates(0).await;
    assert!(says(&findings, ("certificates", Good, "for all 4 names")), "{findings:#?}");
    assert!(says(&findings, ("certificates", Warning, "says: REFUSED")), "{findings:#?}");
    let findings = lab.certificates(85).await;
    let soon = "; that is soon; the last attempt: the name server says: REFUSED";
    assert!(says(&findings, ("certificates", Failure, soon)), "{findings:#?}");
    let findings = lab.certificates(90).await;
    assert!(says(&findings, ("certificates", Failure, "; that is over; the")), "{findings:#?}");
    lab.edge.stop().await;
    Ok(())
}

/// acme-dns keeps two values, which an order may need both.
#[tokio::test(flavor = "multi_thread")]
async fn no_test_takes_the_place_of_a_proof() -> Result<()> {
    let mut lab = Lab::new().await?;
    let dir = tempfile::tempdir()?;
    let accounts = dir.path().join("accounts.json");
    std::fs::write(&accounts, "{}")?;
    std::fs::set_permissions(&accounts, PermissionsExt::from_mode(0o600))?;
    let config = json!({ "provider": "acme-dns", "accounts": accounts });
    let config: DnsConfig = serde_json::from_value(config)?;
    let propagation = lab.dns.propagation.clone();
    let provider = config.provider(&propagation).map_err(|it| anyhow::anyhow!("{it:?}"))?;
    let usual = std::mem::replace(&mut lab.dns, Dns { provider, propagation });
    let order = OrderRecord {
        certificate: "shop.customer.test".to_owned(),
        directory: DIRECTORY.to_owned(),
        hostnames: Vec::new(),
        url: None,
        key_sealed: Vec::new(),
        records: Vec::new(),
        is_over: false,
        created_at_ms: 0,
    };
    let lease = lab.edge.store.take_lease("test", [2; 16], Duration::from_secs(30)).await?;
    let lease = lease.context("somebody has it")?;
    // That of a customer's hostname is proved elsewhere.
    lab.edge.store.put_acme_order(&order, &lease).await?;
    let findings = lab.diagnose(DOMAIN, |_| ()).await;
    assert!(says(&findings, ("dns-01", Verdict::Failure, "has no account for")), "{findings:#?}");
    let order = OrderRecord { certificate: DOMAIN.to_owned(), ..order };
    lab.edge.store.put_acme_order(&order, &lease).await?;
    let findings = lab.diagnose(DOMAIN, |_| ()).await;
    let want = ("dns-01", Verdict::Ok, "not tried: an order for example.test is under way");
    assert!(says(&findings, want), "{findings:#?}");
    // Others keep as many values as there are.
    lab.dns = usual;
    let findings = lab.diagnose(DOMAIN, |_| ()).await;
    assert!(says(&findings, ("dns-01", Verdict::Ok, "was written and seen")), "{findings:#?}");
    lab.edge.stop().await;
    Ok(())
}
