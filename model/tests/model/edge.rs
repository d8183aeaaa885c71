//! The settings of a container at the edge.

use gantry_model::edge::{EdgeSettings, WakePolicy};
use proptest::{collection::btree_set, prelude::*, sample::select};
use serde_json::json;

#[test]
fn settings_are_changed_field_by_field() {
    let all = json!({ "wake": "navigate", "idle_pause_after": 60, "verify_upstream": true,
                      "proxy_protocol_ports": [8080, 22, 22], "concurrency_max": 1,
                      "log_bodies": true });
    let settings = EdgeSettings::default().updated(&all).unwrap();
    assert_eq!(
        settings,
        EdgeSettings {
            wake: WakePolicy::Navigate,
            idle_pause_after: Some(60),
            verify_upstream: true,
            proxy_protocol_ports: vec![22, 8080],
            concurrency_max: Some(1),
            log_bodies: true,
        }
    );
    assert_eq!(settings.updated(&json!({})), Ok(settings.clone()), "nothing said, nothing changed");
    let back = json!({ "idle_pause_after": null, "concurrency_max": null });
    let fewer = settings.updated(&back).unwrap();
    assert_eq!((fewer.idle_pause_after, fewer.concurrency_max), (None, None));
    assert_eq!(fewer.wake, WakePolicy::Navigate);
}

#[test]
fn every_broken_rule_of_settings_is_named_at_once() {
    let ports: Vec<u16> = (1..=17).collect();
    for value in [
        json!({ "wake": "always", "idle_pause_after": 59, "verify_upstream": 1,
                "proxy_protocol_ports": ports, "concurrency_max": 0, "log_bodies": 0, "more": 1 }),
        json!({ "wake": null, "idle_pause_after": "60", "verify_upstream": null,
                "proxy_protocol_ports": [0], "concurrency_max": -1, "log_bodies": null, "less": 1 }),
        json!({ "wake": 1, "idle_pause_after": 1.5, "verify_upstream": "x",
                "proxy_protocol_ports": 22, "concurrency_max": 4_294_967_296_u64, "log_bodies": "true",
                "else": 1 }),
    ] {
        let errors = EdgeSettings::default().updated(&value).unwrap_err();
        assert_eq!(errors.len(), 7, "{errors:?}");
    }
    assert!(EdgeSettings::default().updated(&json!([])).is_err());
}

proptest! {
    /// The JSON form holds all of it.
    #[test]
    fn settings_survive_their_json_form(
        wake in select(WakePolicy::ALL.to_vec()),
        idle_pause_after in prop::option::of(60_u32..),
        verify_upstream: bool,
        ports in btree_set(1_u16.., 0..16),
        concurrency_max in prop::option::of(1_u32..),
        log_bodies: bool,
    ) {
        let proxy_protocol_ports = ports.into_iter().collect();
        let settings = EdgeSettings {
            wake, idle_pause_after, verify_upstream, proxy_protocol_ports, concurrency_max,
            log_bodies,
        };
        prop_assert_eq!(EdgeSettings::default().updated(&settings.to_json()), Ok(settings));
    }
}
