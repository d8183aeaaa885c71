//! Firewall rules.

use gantry_model::{
    RealmId,
    firewall::{Direction, Rules},
};
use gantry_store::{CopiedRules, Error, EventFilter, Fill, FillSource, RuleChange, Version};
use serde_json::json;

use super::fixture::{NOW_MS, World, id};

fn rules() -> Rules {
    let rule = json!({"action": "drop", "protocol": "tcp", "description": "d", "state": "disabled",
        "destination_port": "80,443", "source": "10.0.0.0/8,192.0.2.1"});
    Rules::read(&json!({"ingress": [rule], "egress": []})).unwrap()
}

pub(crate) async fn rules_change_with_their_version_only(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    assert_eq!(store.firewall(one.id).await.unwrap(), (Version(0), Rules::default()));
    let (rules, since) = (rules(), *store.head().borrow());
    let told = vec![(RuleChange::Added, Direction::Ingress, 1)];
    store.set_firewall(one.id, Version(0), &rules, told, NOW_MS + 1).await.unwrap();
    assert_eq!(store.firewall(one.id).await.unwrap(), (Version(1), rules.clone()));
    assert!(*store.head().borrow() > since, "the reconciler hears of it");
    let stale = store.set_firewall(one.id, Version(0), &rules, Vec::new(), NOW_MS).await;
    assert!(matches!(stale, Err(Error::Stale)), "{stale:?}");
    let nobody = store.set_firewall(id(), Version(0), &rules, Vec::new(), NOW_MS).await;
    assert!(matches!(nobody, Err(Error::NotFound)), "{nobody:?}");

    let filter =
        EventFilter { kind: Some("firewall.rule.added".to_owned()), ..EventFilter::default() };
    let told = store.events_after(filter, 0, 10).await.unwrap();
    let [event] = &told[..] else { panic!("{told:?}") };
    assert_eq!((event.container, event.resource_type.as_str()), (Some(one.id), "firewall"));
    assert_eq!(event.payload, json!({ "direction": "ingress", "count": 1 }));

    store.remove_container(one.id, NOW_MS).await.unwrap();
    assert_eq!(store.firewall(one.id).await.unwrap(), (Version(0), Rules::default()));
}

pub(crate) async fn a_copy_has_the_rules_of_its_source_if_it_is_asked_for(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    store.set_firewall(one.id, Version(0), &rules(), Vec::new(), NOW_MS).await.unwrap();
    for (name, with_firewall, want) in [("open", false, Rules::default()), ("shut", true, rules())]
    {
        let mut copy = world.container(name);
        let source = FillSource::Container(one.id);
        copy.status.fill = Some(Fill { source, is_new: true });
        copy.source = Some(one.id);
        copy.spec.realms = vec![RealmId::from_bytes([1; 12])];
        let rules = CopiedRules { firewall: with_firewall, outbound: None };
        let copy = store.create_copy(&copy, None, 10, rules).await.unwrap();
        assert_eq!(store.firewall(copy.id).await.unwrap().1, want, "{name}");
    }
}
