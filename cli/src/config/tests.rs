use std::path::Path;

use gantry_model::Service;

use super::*;

fn settings(file: Option<&Path>, overrides: &[&str]) -> Settings {
    Settings {
        config: file.map(Path::to_owned),
        overrides: overrides.iter().map(|&text| text.to_owned()).collect(),
    }
}

fn write(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn the_defaults_are_a_valid_configuration() {
    let loaded = load(&settings(None, &[]), Vec::new()).unwrap();
    assert_eq!(loaded.config.edge.url_port, 443);
    assert_eq!(loaded.config.server.domain.as_str(), "gantry.localhost");
    assert!(loaded.effective.iter().all(|key| key.origin == "default"), "{:?}", loaded.effective);
}

#[test]
fn every_default_is_read() {
    let loaded = load(&settings(None, &[]), Vec::new()).unwrap();
    let table: toml::Table = DEFAULTS.parse().unwrap();
    let count: usize = table.values().map(|section| section.as_table().unwrap().len()).sum();
    assert_eq!(loaded.effective.len(), count);
}

#[test]
fn later_layers_win_and_origins_are_named() {
    let file = write("[edge]\nhttps = \"127.0.0.1:9443\"\nadmin = \"127.0.0.1:9\"\n");
    let loaded = load(
        &settings(Some(file.path()), &["edge.admin=127.0.0.1:10", "edge.workers=3"]),
        vec![("edge.https", "127.0.0.1:1".into()), ("log.level", "debug".into())],
    )
    .unwrap();
    let edge = &loaded.config.edge;
    assert_eq!(edge.https, ["127.0.0.1:9443".parse().unwrap()]);
    assert_eq!((edge.url_port, edge.workers), (9443, 3));
    assert_eq!(edge.admin, "127.0.0.1:10".parse().unwrap());
    assert_eq!(loaded.config.log.level, "debug");
    let origin =
        |key: &str| loaded.effective.iter().find(|found| found.key == key).unwrap().origin.clone();
    assert_eq!(origin("edge.https"), file.path().display().to_string());
    assert_eq!(origin("edge.admin"), "--set");
    assert_eq!(origin("edge.http"), "default");
}

#[test]
fn limits_are_read_and_have_the_defaults_of_the_edge() {
    let defaults = load(&settings(None, &[]), Vec::new()).unwrap().config.limits;
    assert_eq!(format!("{defaults:?}"), format!("{:?}", gantry_proxy::Limits::default()));
    let flags = [
        "limits.request_rate_per_address=50",
        "limits.request_burst_per_address=300",
        "limits.requests_per_container=7",
        "limits.head_bytes=8192",
        "limits.body_bytes_max=1000000",
        "limits.broken_requests_per_connection=0",
        "limits.unproven_handshakes_per_worker=0",
        "limits.password_failures_per_minute=3",
        "limits.credential_checks=4",
        "limits.streams_per_connection=1000",
        "limits.uploads_ahead_mib=0",
        "limits.idle_upstreams_per_port=5",
        "limits.idle_upstreams_per_worker=6",
        "limits.upstream_idle_s=7",
        "edge.wake_timeout_s=7",
    ];
    let config = load(&settings(None, &flags), Vec::new()).unwrap().config;
    assert_eq!(config.edge.wake, Duration::from_secs(7));
    let limits = config.limits;
    assert_eq!(limits.request_rate, Some(gantry_proxy::Rate { per_second: 50, burst: 300 }));
    assert_eq!(limits.body_bytes_max, Some(1_000_000));
    assert_eq!((limits.requests_per_container_max, limits.head_bytes_max), (7, 8192));
    assert_eq!((limits.broken_max, limits.unproven_max), (0, 0));
    assert_eq!((limits.password_failures_max, limits.credential_checks_max), (3, 4));
    assert_eq!((limits.pool_per_port_max, limits.pool_max), (5, 6));
    assert_eq!((limits.streams_max, limits.uploads_ahead_max), (1000, 0));
    assert_eq!(limits.pool_idle, Duration::from_secs(7));
    let flags = [
        "limits.request_rate_per_address=0",
        "limits.handshake_burst_per_address=off",
        "limits.connections_per_address=0",
        "limits.head_bytes=1e9",
        "limits.body_rate=1",
        "limits.body_bytes_max=0",
        "limits.password_failures_per_minute=0",
        "limits.credential_checks=257",
        "limits.streams_per_connection=1001",
        "limits.uploads_ahead_mib=off",
        "limits.upstream_idle_s=0",
    ];
    let problems = load(&settings(None, &flags), Vec::new()).unwrap_err();
    for (key, rule) in [
        ("limits.request_rate_per_address", "from 1 to 1000000, or \"off\", found 0"),
        ("limits.handshake_burst_per_address", "whole number"),
        ("limits.connections_per_address", "from 1 to"),
        ("limits.head_bytes", "whole number"),
        ("limits.body_rate", "no such key"),
        ("limits.body_bytes_max", "from 1 to 1125899906842624, or \"off\", found 0"),
        ("limits.password_failures_per_minute", "from 1 to 1000000, found 0"),
        ("limits.credential_checks", "from 1 to 256, found 257"),
        ("limits.streams_per_connection", "from 1 to 1000, found 1001"),
        ("limits.uploads_ahead_mib", "whole number"),
        ("limits.upstream_idle_s", "from 1 to 3600, found 0"),
    ] {
        let found = problems.iter().find(|problem| problem.key == key);
        assert!(found.is_some_and(|found| found.rule.contains(rule)), "{key}: {problems:#?}");
    }
}

#[test]
fn kit_services_listen_where_the_catalogue_says_unless_the_operator_does() {
    let defaults = load(&settings(None, &[]), Vec::new()).unwrap().config.kit;
    for service in Service::ALL {
        let (kit, entry) = (defaults.get(service), gantry_kit::entry(service));
        assert_eq!(kit.provided, entry.provided, "{service:?}");
        for index in [service.index_min(), 1, 9_999] {
            assert_eq!(kit.of(index), Some(entry.port(index)), "{service:?} {index}");
        }
    }
    // An image with a Kit of its own, whose terminals share a port.
    let flags = ["kit.terminal=76", "kit.display=3998", "kit.browser=60000+n", "kit.files=19801"];
    let kit = load(&settings(None, &flags), Vec::new()).unwrap().config.kit;
    let of = |service, index| kit.get(service).of(index);
    assert_eq!((of(Service::Terminal, 7), of(Service::Display, 7)), (Some(76), Some(3998)));
    assert_eq!((of(Service::Browser, 7), of(Service::Browser, 9_999)), (Some(60_007), None));
    assert!(!kit.get(Service::Terminal).provided, "nothing of ours listens there");
    assert!(kit.get(Service::Files).provided, "where it always is");
    for (flag, rule) in [
        ("kit.code=0", "a port from 1 to 65535"),
        ("kit.code=65536", "a port from 1 to 65535"),
        ("kit.code=\"19806\"", "a port from 1 to 65535"),
        ("kit.code=0+n", "a port from 1 to 65535"),
        ("kit.code=19801", "is a port that kit.files has, too"),
        ("kit.code=22", "holds port 22, which is that of SSH"),
        ("kit.code=443", "holds port 443, which is that of https"),
        ("kit.code=19800", "holds port 19800, which is that of the welcome page"),
        ("kit.code=19000+n", "is a port that kit.terminal has, too"),
        ("kit.desktop=5", "no such key"),
        ("kit.logs=5", "no such key"),
    ] {
        let problems = load(&settings(None, &[flag]), Vec::new()).unwrap_err();
        assert!(problems[0].rule.contains(rule), "{flag}: {problems:?}");
    }
}

#[test]
fn what_owners_see_and_users_have_is_read() {
    let defaults = load(&settings(None, &[]), Vec::new()).unwrap().config;
    assert_eq!(defaults.logs, gantry_proxy::LogsConfig::default());
    assert_eq!(defaults.control.limits, gantry_control::Limits::default());
    let flags = [
        "logs.reads_per_minute=1",
        "logs.body_kib=2",
        "logs.bodies_per_container=3",
        "control.containers_per_user=14",
        "control.running_containers_per_user=15",
        "control.containers_per_server=16",
        "control.projects_per_user=17",
        "control.tokens_per_user=4",
        "control.aliases_per_user=5",
        "control.snapshots_per_container=6",
        "control.snapshots_per_user=7",
        "control.members_per_project=11",
        "control.prespawned_per_user=13",
        "control.prespawned_per_server=12",
        "control.alias_quarantine_days=0",
        "control.login_window_min=7",
        "control.login_failures_per_address=8",
        "control.login_failures_per_account=9",
        "control.logins_waiting=10",
        "control.resolver=127.0.0.1:5353",
    ];
    let config = load(&settings(None, &flags), Vec::new()).unwrap().config;
    let logs = &config.logs;
    assert_eq!((logs.reads_per_minute, logs.body_bytes, logs.bodies_per_container), (1, 2048, 3));
    let want = gantry_control::Limits {
        containers_per_user_max: 14,
        running_containers_per_user_max: 15,
        containers_per_server_max: 16,
        projects_per_user_max: 17,
        tokens_per_user_max: 4,
        aliases_per_user_max: 5,
        snapshots_per_container_max: 6,
        snapshots_per_user_max: 7,
        members_per_project_max: 11,
        prespawned_per_user_max: 13,
        prespawned_per_server_max: 12,
        alias_quarantine_ms: 0,
        login_window_ms: 420_000,
        login_failures_per_address_max: 8,
        login_failures_per_account_max: 9,
        password_queue_max: 10,
        ..gantry_control::Limits::default()
    };
    assert_eq!(config.control.limits, want);
    let resolver = |config: &Config| config.control.resolver.map(|at| at.to_string());
    assert_eq!((resolver(&defaults), resolver(&config)), (None, Some("127.0.0.1:5353".to_owned())));
    let flags =
        ["logs.reads_per_minute=0", "control.alias_quarantine_days=400", "control.resolver=dns"];
    let problems = load(&settings(None, &flags), Vec::new()).unwrap_err();
    let rules: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(rules.len(), 3, "{rules:?}");
    assert!(rules.iter().any(|rule| rule.contains("an address with its port")), "{rules:?}");
    assert!(rules.iter().any(|rule| rule.contains("from 1 to 60000, found 0")), "{rules:?}");
    assert!(rules.iter().any(|rule| rule.contains("from 0 to 365, found 400")), "{rules:?}");
}

#[test]
fn bodies_that_are_kept_fit_into_the_memory_of_their_container() {
    for (flags, key, rule) in [
        (
            &["logs.body_kib=513"][..],
            "logs.body_kib",
            "must be at most an eighth of logs.kib_per_container, which is 512",
        ),
        (
            &["logs.body_kib=512", "logs.bodies_per_container=5"],
            "logs.bodies_per_container",
            "with two bodies of logs.body_kib each must fit into logs.kib_per_container: at most 4",
        ),
    ] {
        let problems = load(&settings(None, flags), Vec::new()).unwrap_err();
        let found = problems.iter().find(|problem| problem.key == key);
        assert_eq!(found.map(|found| &*found.rule), Some(rule), "{problems:#?}");
    }
    let flags = ["logs.body_kib=512", "logs.bodies_per_container=4"];
    assert_eq!(
        load(&settings(None, &flags), Vec::new()).unwrap().config.logs.body_bytes,
        512 << 10
    );
}

#[test]
fn balancers_are_networks_or_addresses() {
    let flags = ["edge.proxy_protocol_from=[10.0.0.5, 10.1.0.0/16, \"2001:db8::/32\"]"];
    let edge = load(&settings(None, &flags), Vec::new()).unwrap().config.edge;
    let networks: Vec<_> = edge.proxy_protocol_from.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.5/32", "10.1.0.0/16", "2001:db8::/32"]);
    for wrong in ["[10.1.0.1/16]", "[everybody]", "5", "[5]", "10.0.0.0/33"] {
        let flag = format!("edge.proxy_protocol_from={wrong}");
        let problems = load(&settings(None, &[&flag]), Vec::new()).unwrap_err();
        assert!(problems[0].rule.starts_with("must be networks or addresses"), "{problems:?}");
    }
    let flags = ["edge.client_address=opaque"];
    let problems = load(&settings(None, &flags), Vec::new()).unwrap_err();
    assert!(problems[0].rule.contains("\"headers\" or \"transparent\""), "{problems:?}");
}

#[test]
fn all_errors_are_reported_at_once_with_file_and_key() {
    let file = write(
        "loose = 1\n[server]\ndomain = \"127.0.0.1\"\nname = \"a.b\"\nstate = \"here\"\n\
         [edge]\nhttps = []\nhttpz = \"x\"\nadmin = \"0.0.0.0:1\"\nworkers = 0\n\
         [runtime]\nkind = \"podman\"\nsubnet = \"10.88.0.1/16\"\nimage_server = \"images.example.com\"\nmemory_mib = \"much\"\n\
         [log]\nlevel = 5\n[nowhere]\nat = 1\n",
    );
    let flags = ["edge.idle_timeout_s=never", "no key"];
    let problems = load(&settings(Some(file.path()), &flags), Vec::new()).unwrap_err();
    let name = file.path().display().to_string();
    for (origin, key, rule) in [
        (name.as_str(), "server.domain", "address"),
        (&name, "server.name", ""),
        (&name, "server.state", "absolute path"),
        (&name, "edge.https", "at least one address"),
        (&name, "edge.httpz", "did you mean edge.http"),
        (&name, "edge.admin", "loopback"),
        (&name, "edge.workers", "\"auto\""),
        (&name, "runtime.kind", "\"embedded\" or \"incus\" or \"fake\""),
        (&name, "runtime.subnet", "IPv4 network"),
        (&name, "runtime.image_server", "https://images.example.com"),
        (&name, "runtime.memory_mib", "whole number"),
        (&name, "log.level", "level"),
        (&name, "nowhere.at", "no such key"),
        (&name, "loose", "section"),
        ("--set", "no key", "SECTION.KEY=VALUE"),
    ] {
        assert!(
            problems.iter().any(|problem| problem.origin == origin
                && problem.key == key
                && problem.rule.contains(rule)),
            "{origin} {key}: {rule}\nin {problems:#?}"
        );
    }
}

#[test]
fn a_file_that_is_no_toml_is_reported_with_the_rest() {
    let file = write("[edge\n");
    let problems = load(&settings(Some(file.path()), &["edge.nothing=1"]), Vec::new()).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(problems[0].origin, file.path().display().to_string());
    assert_eq!(problems[1].key, "edge.nothing");
}

#[test]
fn a_missing_file_is_named() {
    let path = Path::new("/nonexistent/gantry.toml");
    let problems = load(&settings(Some(path), &[]), Vec::new()).unwrap_err();
    assert_eq!(problems[0].origin, "/nonexistent/gantry.toml");
}

#[test]
fn further_servers_have_the_defaults_and_their_own_runtime() {
    let file = write(
        "[server]\nname = \"metal\"\n[runtime]\nmemory_mib = 64\n\
         [[servers]]\nname = \"lxc\"\n[servers.runtime]\nkind = \"incus\"\nbridge = \"gantry1\"\n\
         subnet = \"10.89.0.0/16\"\n\
         [[servers]]\nname = \"second\"\nruntime = { bridge = \"gantry2\", subnet = \"10.90.0.0/16\", \
         cgroup = \"gantry2\", id_base = 2000000 }\n",
    );
    let loaded = load(&settings(Some(file.path()), &[]), Vec::new()).unwrap();
    let servers: Vec<_> = loaded.config.servers().collect();
    let told = |at: usize| {
        let (name, runtime) = &servers[at];
        (name.as_str(), runtime.kind, runtime.bridge.as_str(), runtime.memory_bytes >> 20)
    };
    assert_eq!(servers.len(), 3);
    assert_eq!(told(0), ("metal", RuntimeKind::Embedded, "gantry0", 64));
    assert_eq!(told(1), ("lxc", RuntimeKind::Incus, "gantry1", 2048));
    assert_eq!(told(2), ("second", RuntimeKind::Embedded, "gantry2", 2048));
    let origin = |key: &str| {
        let found = loaded.effective.iter().find(|found| found.key == key);
        found.map(|found| (found.value.clone(), found.origin.clone())).unwrap()
    };
    let said = file.path().display().to_string();
    assert_eq!(origin("servers[0].name"), ("\"lxc\"".into(), said.clone()));
    assert_eq!(origin("servers[0].runtime.bridge"), ("\"gantry1\"".into(), said));
    assert_eq!(origin("servers[1].runtime.pids"), ("4096".into(), "default".into()));
}

#[test]
fn what_two_servers_cannot_share_is_named_with_both() {
    let file = write(
        "[[servers]]\nname = \"local\"\n\
         [[servers]]\nname = \"a\"\n[servers.runtime]\nkind = \"incus\"\nbridge = \"br1\"\n\
         subnet = \"10.88.4.0/24\"\n\
         [[servers]]\nname = \"b\"\n[servers.runtime]\nkind = \"incus\"\nbridge = \"br2\"\n\
         subnet = \"10.90.0.0/16\"\n",
    );
    let problems = load(&settings(Some(file.path()), &[]), Vec::new()).unwrap_err();
    let found: Vec<_> = problems.iter().map(|it| (it.key.as_str(), it.rule.as_str())).collect();
    assert_eq!(
        found,
        [
            ("servers[0].name", "server local and server local have one name; each needs its own"),
            (
                "servers[0].runtime.bridge",
                "server local and server local both have bridge \"gantry0\""
            ),
            (
                "servers[0].runtime.subnet",
                "server local and server local have networks that overlap, 10.88.0.0/16 and \
                 10.88.0.0/16"
            ),
            (
                "servers[0].runtime.cgroup",
                "server local and server local both have control group \"gantry\""
            ),
            (
                "servers[0].runtime.id_base",
                "server local and server local have host ids that overlap, 1000000 to 1065535 and \
                 1000000 to 1065535"
            ),
            (
                "servers[1].runtime.subnet",
                "server a and server local have networks that overlap, 10.88.4.0/24 and \
                 10.88.0.0/16"
            ),
            (
                "servers[1].runtime.subnet",
                "server a and server local have networks that overlap, 10.88.4.0/24 and \
                 10.88.0.0/16"
            ),
            (
                "servers[2].runtime.incus_project",
                "server b and server a both have project \"gantry\" of the same Incus"
            ),
        ]
    );
    assert_eq!(problems[5].origin, file.path().display().to_string());
}

#[test]
fn a_wrong_entry_of_the_servers_is_told_with_its_place() {
    let file = write(
        "[[servers]]\nruntime = { kind = \"docker\", brigde = \"b\" }\ncolor = 1\n\
         [[servers]]\nname = \"No.Label\"\nruntime = 5\n",
    );
    let problems = load(&settings(Some(file.path()), &[]), Vec::new()).unwrap_err();
    for (key, rule) in [
        ("servers[0].name", "is required: the label of the server in hostnames"),
        ("servers[0].color", "there is no such key; a server has name and runtime"),
        ("servers[0].runtime.kind", "must be \"embedded\" or \"incus\" or \"fake\""),
        ("servers[0].runtime.brigde", "did you mean servers[0].runtime.bridge?"),
        ("servers[1].name", "found \"No.Label\""),
        ("servers[1].runtime", "must be a table"),
    ] {
        let found = problems.iter().find(|problem| problem.key == key);
        assert!(found.is_some_and(|found| found.rule.contains(rule)), "{key}: {problems:#?}");
    }
    let file = write("[servers]\nname = \"a\"\n");
    let problems = load(&settings(Some(file.path()), &[]), Vec::new()).unwrap_err();
    assert_eq!(problems[0].rule, "must be a list of tables, [[servers]]");
    assert_eq!(problems.len(), 1);
}
