//! What Kit services are told in the query.

use gantry_model::{Service, selector::select};
use proptest::{prelude::*, sample::select as any_of};

#[test]
fn a_service_is_told_which_instance_is_meant() {
    for (service, index, path, want) in [
        (Service::Terminal, 2, "/", Some("/?display=2&terminal_id=2")),
        (Service::Terminal, 2, "/ws?x=1", Some("/ws?x=1&display=2&terminal_id=2")),
        (Service::Terminal, 2, "/?terminal_id=9", Some("/?display=2&terminal_id=2")),
        (Service::Terminal, 2, "/?display=9&x", Some("/?display=9&x&terminal_id=2")),
        (Service::Terminal, 0, "/?terminal_id=40001", None), // the caller's own session
        (Service::Display, 7, "/?display=8", Some("/?display=7")),
        (Service::Notifications, 7, "/api", Some("/api?display=7")),
        (Service::Code, 3, "/", Some("/?folder=/root&id=3")),
        (Service::Code, 3, "/?folder=/srv&id=4", Some("/?folder=/srv&id=3")),
        (Service::Code, 3, "/static/x.js", Some("/static/x.js?id=3")),
        (
            Service::Desktop,
            1,
            "/",
            Some("/?desktop=true&redirect=display&terminal_id=1601&display=1601"),
        ),
        (
            Service::Desktop,
            63_935,
            "/?desktop_env=mate&display=1&x=y&redirect=https://evil.example",
            Some(
                "/?desktop_env=mate&desktop=true&redirect=display&terminal_id=65535&display=65535",
            ),
        ),
        (
            Service::Desktop,
            1,
            "/?desktop_env=rm",
            Some("/?desktop=true&redirect=display&terminal_id=1601&display=1601"),
        ),
        (Service::Files, 1, "/?terminal_id=1", None),
        (Service::Exec, 1, "/hello", None),
    ] {
        assert_eq!(select(service, index, path).as_deref(), want, "{service:?} {path}");
    }
}

proptest! {
    /// However a caller spells it, the instance is the one of the hostname.
    #[test]
    fn no_spelling_selects_another_instance(
        keys in prop::collection::vec(
            any_of(vec!["terminal_id", "%74erminal_id", "terminal%5fid", "terminal%5Fid", "a"]), 0..5),
        separator in any_of(vec!["&", ";", "&&"]),
    ) {
        let query: Vec<String> = keys.iter().map(|key| format!("{key}=9")).collect();
        let path = select(Service::Terminal, 2, &format!("/?{}", query.join(separator))).unwrap();
        let decoded = path.to_ascii_lowercase().replace("%74", "t").replace("%5f", "_");
        prop_assert!(decoded.contains("terminal_id=2") && !decoded.contains("terminal_id=9"));
    }

    /// Telling twice is telling once.
    #[test]
    fn selecting_again_changes_nothing(query in "[a-z=&;%]{0,20}", index in 1_u16..100) {
        for service in [Service::Terminal, Service::Code, Service::Display, Service::Desktop] {
            let once = select(service, index, &format!("/?{query}")).unwrap();
            prop_assert_eq!(select(service, index, &once), Some(once));
        }
    }
}
