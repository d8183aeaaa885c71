//! The hostname grammar: one row for each form that there is, and for each way to miss it.

use std::collections::HashSet;

use gantry_model::{
    ContainerId, Domain, Hostname, ProjectId, RealmId, RouteKey, Scheme, Service, Target,
    route::is_alias, service::SERVICE_PART_MAX,
};
use proptest::{prelude::*, sample::select};

const P: &str = "5f2b8c6d9e3a4f1b7c8d9e0f";
const C: &str = "6a7b8c9d0e1f2a3b4c5d6e7f";

fn domain() -> Domain {
    "gantry.localhost".parse().unwrap()
}

/// What `label` names under the zone of the server `local`.
fn target(label: &str) -> Result<(Service, u16), String> {
    let host = format!("{label}.local.containers.gantry.localhost");
    let host = Hostname::parse(&host).map_err(|error| error.to_string())?;
    match RouteKey::parse(&host, &domain()).map_err(|error| format!("{error:?}"))? {
        RouteKey::Container { server, project, container, target } => {
            assert_eq!(server, "local");
            assert_eq!((project.to_string(), container.to_string()), (P.to_owned(), C.to_owned()));
            match target {
                Target::Kit { service, index, sub: None } => Ok((service, index)),
                other => Err(format!("{other:?}")),
            }
        }
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_canonical_label_names_one_service_of_one_container() {
    for (service, want) in [
        ("terminal-1", Ok((Service::Terminal, 1))),
        ("terminal-0", Ok((Service::Terminal, 0))), // the official client's ephemeral terminals
        ("terminal-9999", Ok((Service::Terminal, 9999))),
        ("terminal", Ok((Service::Terminal, 1))), // without an index the first is meant
        ("display-1", Ok((Service::Display, 1))),
        ("display-63935", Ok((Service::Display, 63_935))),
        ("desktop-1", Ok((Service::Desktop, 1))),
        ("desktop-63935", Ok((Service::Desktop, 63_935))),
        ("files-1", Ok((Service::Files, 1))),
        ("files", Ok((Service::Files, 1))), // older clients call files a singleton
        ("exec-1", Ok((Service::Exec, 1))),
        ("sqlite-1", Ok((Service::Sqlite, 1))),
        ("browser-1", Ok((Service::Browser, 1))),
        ("cdp-1", Ok((Service::Cdp, 1))),
        ("code-1", Ok((Service::Code, 1))),
        ("cron-1", Ok((Service::Cron, 1))),
        ("curl-1", Ok((Service::Curl, 1))),
        ("daemon-1", Ok((Service::Daemon, 1))),
        ("n-1", Ok((Service::Notifications, 1))), // `notifications-1` would not fit
        ("notes-1", Ok((Service::Notes, 1))),
        ("pipe-1", Ok((Service::Pipe, 1))),
        ("run-1", Ok((Service::Run, 1))),
        ("tunnel-1", Ok((Service::Tunnel, 1))),
        ("watch-1", Ok((Service::Watch, 1))),
        ("agent-1", Ok((Service::Agent, 1))),
        ("logs-1", Ok((Service::Logs, 1))),
        ("logs-9999", Ok((Service::Logs, 9999))),
        ("egress", Ok((Service::Egress, 1))),
        ("egress-2", Ok((Service::Egress, 2))),
        ("proxy", Ok((Service::Egress, 1))), // the older word
        ("bot-1", Ok((Service::Bot, 1))),
        ("workspaces-99", Ok((Service::Workspaces, 99))),
        ("workspace-1", Ok((Service::Workspaces, 1))),
        ("terminal-10000", Err("longer than DNS allows")), // 64 octets
        ("files-0", Err("Number")),                        // only terminals count from 0
        ("files-00", Err("Number")),
        ("files-01", Err("Number")), // one spelling for each service
        ("files-10000", Err("Number")),
        ("n-65536", Err("Number")),
        ("n-99999", Err("Number")),
        ("n-100000", Err("Number")),
        ("n-1a", Err("Number")),
        ("n-1-2", Err("Number")),
        ("n--1", Err("Number")),
        ("display-63936", Err("Number")),
        ("desktop-65535", Err("Number")),
        ("unknown-1", Err("UnknownService")),
        ("unknown", Err("UnknownService")),
        ("term-1", Err("UnknownService")),
        ("terminals-1", Err("UnknownService")),
        ("terminal1", Err("UnknownService")),
        ("1", Err("UnknownService")),
        ("1-1", Err("UnknownService")),
        ("n_-1", Err("UnknownService")),
        ("ui-1", Err("UnknownService")),
        ("hoody-daemon-1", Err("longer than DNS allows")), // 64 octets
        ("notifications-1", Err("longer than DNS allows")),
    ] {
        match (target(&format!("{P}-{C}-{service}")), want) {
            (Err(got), Err(want)) => assert!(got.starts_with(want), "{service}: {got}"),
            (got, want) => assert_eq!(got, want.map_err(str::to_owned), "{service}"),
        }
    }
}

#[test]
fn every_service_is_found_by_its_slug_and_nothing_else_is() {
    let slugs: HashSet<&str> = Service::ALL.iter().map(|service| service.slug()).collect();
    assert_eq!(slugs.len(), Service::ALL.len(), "no two services share a slug");
    for service in Service::ALL {
        assert_eq!(Service::from_slug(service.slug()), Some(service));
    }
    for text in ["", "Terminal", "terminal ", "http", "https", "ssh", "web", "containers"] {
        assert_eq!(Service::from_slug(text), None, "{text:?}");
    }
}

/// The whole name as a key, printed back; `Err` holds the refusal.
fn read(host: &str) -> Result<String, String> {
    let domain = domain();
    let name = Hostname::parse(host).map_err(|error| format!("{error:?}"))?;
    let key = RouteKey::parse(&name, &domain).map_err(|error| format!("{error:?}"))?;
    let kind = match &key {
        RouteKey::Container { target, .. } => match target {
            Target::Kit { service, index, sub } => format!("{service:?} {index} {sub:?}"),
            Target::Port { scheme, port } => format!("{scheme:?} {port}"),
            Target::Ssh => "Ssh".to_owned(),
        },
        RouteKey::SshGate { server } => format!("SshGate {server}"),
        RouteKey::Alias { server, label } => format!("Alias {label} on {server}"),
        RouteKey::Api { realm: None } => "Api".to_owned(),
        RouteKey::Api { realm: Some(realm) } => format!("Api {realm}"),
        RouteKey::Custom(host) => format!("Custom {host}"),
    };
    let printed = key.to_hostname(&domain);
    let again = Hostname::parse(&printed).unwrap();
    assert_eq!(RouteKey::parse(&again, &domain).as_ref(), Ok(&key), "{host}: {printed}");
    Ok(kind)
}

#[test]
fn every_other_form_of_hostname_names_what_it_should() {
    let zone = "local.containers.gantry.localhost";
    let pc = format!("{P}-{C}");
    for (host, want) in [
        (format!("{pc}-http-3000.{zone}"), "Http 3000"),
        (format!("{pc}-http-1.{zone}"), "Http 1"),
        (format!("{pc}-http-65535.{zone}"), "Http 65535"),
        (format!("{pc}-https-8443.{zone}"), "Https 8443"),
        (format!("{pc}-https-65535.{zone}"), "Https 65535"),
        (format!("{pc}-http.{zone}"), "Http 80"),
        (format!("{pc}-https.{zone}"), "Https 443"),
        (format!("{pc}-ssh.{zone}"), "Ssh"),
        (format!("{pc}-ssh-22.{zone}"), "Ssh"),
        (format!("{pc}-files-1.node-2.containers.gantry.localhost"), "Files 1 None"),
        (format!("scripts.{pc}-exec-1.{zone}"), "Exec 1 Some(\"scripts\")"),
        (format!("a-1.{pc}-exec.{zone}"), "Exec 1 Some(\"a-1\")"),
        (
            format!("{pc}-Terminal-1.LOCAL.Containers.Gantry.LocalHost.").to_uppercase(),
            "Terminal 1 None",
        ),
        (format!("ssh.{zone}"), "SshGate local"),
        (format!("my-app.{zone}"), "Alias my-app on local"),
        (format!("abc.{zone}"), "Alias abc on local"),
        (format!("{}.{zone}", "a".repeat(61)), &format!("Alias {} on local", "a".repeat(61))),
        (format!("containers.{zone}"), "Alias containers on local"), // reserved, so never found
        (format!("{P}.{zone}"), &format!("Alias {P} on local")), // one id is a name like another
        (format!("{P}-x.{zone}"), &format!("Alias {P}-x on local")),
        ("api.gantry.localhost".to_owned(), "Api"),
        ("API.gantry.localhost".to_owned(), "Api"),
        (format!("{P}.api.gantry.localhost"), &format!("Api {P}")),
        ("www.api.gantry.localhost".to_owned(), "Api"), // no realm: unscoped
        ("example.com".to_owned(), "Custom example.com"),
        ("gantry.localhost.example.com".to_owned(), "Custom gantry.localhost.example.com"),
        ("evilgantry.localhost".to_owned(), "Custom evilgantry.localhost"), // not below the domain
        ("localhost".to_owned(), "Custom localhost"),
    ] {
        assert_eq!(read(&host).as_deref(), Ok(want), "{host}");
    }
}

#[test]
fn every_hostname_of_another_shape_is_refused() {
    let zone = "local.containers.gantry.localhost";
    let pc = format!("{P}-{C}");
    let upper = P.to_uppercase();
    for (host, want) in [
        (format!("{pc}-http-0.{zone}"), "Number"),
        (format!("{pc}-http-65536.{zone}"), "Number"),
        (format!("{pc}-http-080.{zone}"), "Number"),
        (format!("{pc}-http-3000x.{zone}"), "Number"),
        (format!("{pc}-http--1.{zone}"), "Number"),
        (format!("{pc}-http-1-2.{zone}"), "Number"),
        (format!("{pc}-ssh-1.{zone}"), "Extra"), // ssh has no index
        (format!("{pc}-ssh-022.{zone}"), "Extra"),
        (format!("x.{pc}-terminal-1.{zone}"), "Extra"), // only exec has a label in front
        (format!("x.{pc}-http-80.{zone}"), "Extra"),
        (format!("x.{pc}-ssh.{zone}"), "Extra"),
        (format!("x.y.{pc}-exec-1.{zone}"), "Shape"), // and only one
        (format!("x_y.{pc}-exec-1.{zone}"), "Shape"),
        (format!("{pc}.{zone}"), "Shape"), // two ids and nothing is no alias either
        (format!("{pc}-{C}-n-1.{zone}"), "TooLong"),
        (format!("{P}-{}-n-1.{zone}", &C[1..]), "Alias"), // a digit short
        (format!("{}-{C}-n-1.{zone}", &P[1..]), "Alias"),
        (format!("{P}{C}-n-1.{zone}"), "Alias"),
        (format!("{P}_{C}-n-1.{zone}"), "Shape"),
        (format!("{}g-{C}-n-1.{zone}", &P[1..]), "Alias"),
        (format!("ab.{zone}"), "Shape"), // aliases have 3 to 61 octets
        (format!("{}.{zone}", "a".repeat(62)), "Shape"),
        (format!("my_app.{zone}"), "Shape"),
        (format!("my.app.{zone}"), "Shape"),
        (format!("x.ssh.{zone}"), "Shape"),
        (format!("*.{zone}"), "Octet"),
        (zone.to_owned(), "Shape"),
        (format!("{pc}-n-1.a_b.containers.gantry.localhost"), "Shape"),
        (format!("{pc}-n-1.containers.gantry.localhost"), "Shape"),
        ("containers.gantry.localhost".to_owned(), "Shape"),
        ("localhost.containers.gantry.localhost".to_owned(), "Shape"),
        ("gantry.localhost".to_owned(), "Shape"),
        ("www.gantry.localhost".to_owned(), "Shape"),
        ("a.b.api.gantry.localhost".to_owned(), "Shape"),
        ("xcontainers.gantry.localhost".to_owned(), "Shape"),
        ("xapi.gantry.localhost".to_owned(), "Shape"),
        (format!("{pc}-n-1.local.api.gantry.localhost"), "Shape"),
    ] {
        let got = read(&host);
        let got = got.as_deref().unwrap_or_else(String::as_str);
        assert!(got.starts_with(want), "{host}: {got}");
    }
    // Ids are lower-case; a hostname is lower-cased before, an id given otherwise is not.
    assert!(upper.parse::<ProjectId>().is_err());
}

#[test]
fn an_alias_is_a_label_that_is_not_shaped_like_something_else() {
    let longest = "a".repeat(61);
    for (label, valid) in [
        ("abc", true),
        ("a-b", true),
        ("123", true),
        ("ssh-1", true),
        ("sshx", true),
        (longest.as_str(), true),
        (P, true),
        (&format!("{P}-{}", &C[1..]), true),
        ("", false),
        ("ab", false),
        ("-ab", false),
        ("ab-", false),
        ("a_b", false),
        ("Abc", false),
        ("a.b", false),
        ("äbc", false),
        ("ssh", false), // names the SSH gate
        (&format!("{longest}a"), false),
        (&format!("{P}-{C}"), false),
        (&format!("{P}-{C}x"), false),
        (&format!("{P}-{C}-terminal-1"), false),
    ] {
        assert_eq!(is_alias(label), valid, "{label:?}");
    }
}

#[test]
fn every_label_fits_63_octets() {
    let longest = Service::ALL.iter().map(|service| {
        let key = RouteKey::Container {
            server: "local",
            project: P.parse().unwrap(),
            container: C.parse().unwrap(),
            target: Target::Kit { service: *service, index: service.index_max(), sub: None },
        };
        key.to_hostname(&domain()).split('.').next().unwrap().len()
    });
    assert_eq!(longest.max(), Some(63), "the longest service uses the label up");
    assert_eq!(2 * (24 + 1) + SERVICE_PART_MAX, 63);
    for service in Service::ALL {
        assert!(service.index_min() <= 1 && 1 <= service.index_max(), "{service:?} has index 1");
    }
}

/// Words that hostnames are made of, right and nearly right.
fn piece() -> impl Strategy<Value = String> {
    let slug = select(&Service::ALL[..]).prop_map(|service| service.slug().to_owned());
    let word = select(
        &[
            "http",
            "https",
            "ssh",
            "proxy",
            "api",
            "containers",
            "local",
            "x",
            "gantry",
            "localhost",
        ][..],
    );
    prop_oneof![
        slug,
        word.prop_map(str::to_owned),
        "[0-9]{1,6}",
        "[0-9a-f]{24}",
        "[0-9a-f]{23,25}",
        "[a-zA-Z0-9_-]{0,8}",
    ]
}

fn nearly_a_hostname() -> impl Strategy<Value = String> {
    let joined = proptest::collection::vec((piece(), select(&["-", ".", ""][..])), 1..8);
    let end = select(
        &[
            "local.containers.gantry.localhost",
            ".local.containers.gantry.localhost",
            ".containers.gantry.localhost",
            ".api.gantry.localhost",
            ".gantry.localhost",
            ".example.com",
        ][..],
    );
    (joined, end).prop_map(|(pieces, end)| {
        let start: String = pieces.into_iter().map(|(piece, joint)| piece + joint).collect();
        start + end
    })
}

fn canonical_host() -> impl Strategy<Value = String> {
    let service = select(&["terminal", "files", "exec", "n", "http", "https", "ssh", "egress"][..]);
    ("[0-9a-f]{24}", "[0-9a-f]{24}", service, "(-[0-9]{1,5})?").prop_map(
        |(p, c, service, index)| {
            format!("{p}-{c}-{service}{index}.local.containers.gantry.localhost")
        },
    )
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
}

fn any_target() -> impl Strategy<Value = (Result<Service, Option<Scheme>>, u16, Option<String>)> {
    prop_oneof![
        (select(&Service::ALL[..]), any::<u16>(), proptest::option::of(label())).prop_map(
            |(service, number, sub)| {
                let span = u32::from(service.index_max() - service.index_min()) + 1;
                let index = u32::from(service.index_min()) + u32::from(number) % span;
                let sub = if service == Service::Exec { sub } else { None };
                (Ok(service), u16::try_from(index).unwrap(), sub)
            }
        ),
        (select(&[Scheme::Http, Scheme::Https][..]), 1..=u16::MAX).prop_map(|(scheme, port)| (
            Err(Some(scheme)),
            port,
            None
        )),
        Just((Err(None), 0, None)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// What is printed is read back as what it was.
    #[test]
    fn parse_is_the_inverse_of_print(
        project: [u8; 12],
        container: [u8; 12],
        server in label(),
        target in any_target(),
        alias in "[a-z0-9][a-z0-9-]{1,59}[a-z0-9]",
        realm: Option<[u8; 12]>,
    ) {
        let domain = domain();
        let (what, number, sub) = &target;
        let target = match what {
            Ok(service) => Target::Kit { service: *service, index: *number, sub: sub.as_deref() },
            Err(Some(scheme)) => Target::Port { scheme: *scheme, port: *number },
            Err(None) => Target::Ssh,
        };
        let (project, container) = (ProjectId::from_bytes(project), ContainerId::from_bytes(container));
        let mut keys = vec![
            RouteKey::Container { server: &server, project, container, target },
            RouteKey::SshGate { server: &server },
            RouteKey::Api { realm: realm.map(RealmId::from_bytes) },
        ];
        if is_alias(&alias) {
            keys.push(RouteKey::Alias { server: &server, label: &alias });
        }
        for key in keys {
            let printed = key.to_hostname(&domain);
            let host = Hostname::parse(&printed).unwrap();
            prop_assert_eq!(RouteKey::parse(&host, &domain), Ok(key), "{}", printed);
        }
    }

    /// Whatever is asked for has an answer, and what is understood is understood again when printed.
    #[test]
    fn parse_never_panics_and_print_is_its_inverse(
        text in prop_oneof![nearly_a_hostname(), canonical_host(), "\\PC{0,80}"],
    ) {
        let domain = domain();
        if let Ok(host) = Hostname::parse(&text)
            && let Ok(key) = RouteKey::parse(&host, &domain)
        {
            let printed = key.to_hostname(&domain);
            let again = Hostname::parse(&printed).unwrap();
            prop_assert_eq!(RouteKey::parse(&again, &domain), Ok(key), "{} printed {}", text, printed);
        }
    }

    /// A container is only ever meant by a name that spells out both of its ids in their places,
    /// the server and the zone; nothing is guessed, searched for or cut off.
    #[test]
    fn an_unknown_name_never_routes(text in prop_oneof![nearly_a_hostname(), canonical_host()]) {
        let domain = domain();
        let Ok(host) = Hostname::parse(&text) else { return Ok(()) };
        if let Ok(RouteKey::Container { server, project, container, target }) =
            RouteKey::parse(&host, &domain)
        {
            let name = host.as_str();
            let rest = match target {
                Target::Kit { sub: Some(sub), .. } => {
                    name.strip_prefix(sub).unwrap().strip_prefix('.').unwrap()
                }
                Target::Kit { sub: None, .. } | Target::Port { .. } | Target::Ssh => name,
            };
            let service = rest
                .strip_prefix(&format!("{project}-{container}-")).unwrap()
                .strip_suffix(&format!(".{server}.containers.gantry.localhost")).unwrap();
            let printed = target.to_string();
            // Equal, or one of the few other spellings.
            let known = service == printed
                || printed == format!("{service}-1")
                || matches!((service, printed.as_str()), ("http", "http-80") | ("https", "https-443") | ("ssh-22", "ssh"))
                || service.starts_with("proxy") && printed.starts_with("egress")
                || service.starts_with("workspace") && printed.starts_with("workspaces");
            prop_assert!(known, "{} is not {}", service, printed);
        }
    }

    /// A name with anything added to its label is another name or none.
    #[test]
    fn a_longer_label_is_not_the_same_route(host in canonical_host(), more in "[a-z0-9-]{1,3}") {
        let domain = domain();
        let (label, rest) = host.split_once('.').unwrap();
        let longer = format!("{label}{more}.{rest}");
        let (Ok(one), Ok(two)) = (Hostname::parse(&host), Hostname::parse(&longer)) else { return Ok(()) };
        if let (Ok(one), Ok(two)) = (RouteKey::parse(&one, &domain), RouteKey::parse(&two, &domain)) {
            let alike = one == two;
            // `files` and `files-1`, `http` and `http-80` are one route in two spellings.
            let spelling = matches!(more.as_str(), "-1" | "-80" | "-22");
            prop_assert!(!alike || spelling, "{} and {}", host, longer);
        }
    }
}
