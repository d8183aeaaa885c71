//! Outbound networks.

use gantry_model::{
    RealmId,
    outbound::{Endpoint, Labels, Outbound, Scheme, Way},
};
use gantry_store::{
    CopiedRules, Error, EventFilter, Fill, FillSource, OutboundChange, OutboundRecord, Version,
};
use serde_json::json;

use super::fixture::{NOW_MS, World, id};

fn record(version: u64) -> OutboundRecord {
    let (endpoint, _) = Endpoint::parse(Scheme::Http, "http://proxy.example:3128").unwrap();
    let outbound = Outbound {
        way: Way::Proxy(endpoint),
        labels: Labels { city: Some("Delft".to_owned()), ..Labels::default() },
        dns_servers: Outbound::DNS_SERVERS.to_vec(),
        is_on: true,
    };
    OutboundRecord {
        version: Version(version),
        outbound: Some(outbound),
        credentials: Some(vec![1, 2, 3]),
        configured_at_ms: NOW_MS,
    }
}

pub(crate) async fn a_network_changes_with_its_version_only(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    assert_eq!(store.outbound(one.id).await.unwrap(), OutboundRecord::default());
    let since = *store.head().borrow();
    let set = async |record: OutboundRecord, change| {
        store.set_outbound(one.id, &record, change, NOW_MS + 1).await
    };
    set(record(0), OutboundChange::Updated).await.unwrap();
    assert_eq!(store.outbound(one.id).await.unwrap(), record(1));
    assert!(*store.head().borrow() > since, "the reconciler hears of it");
    let stale = set(record(0), OutboundChange::Updated).await;
    assert!(matches!(stale, Err(Error::Stale)), "{stale:?}");
    let nobody = store.set_outbound(id(), &record(0), OutboundChange::Updated, NOW_MS).await;
    assert!(matches!(nobody, Err(Error::NotFound)), "{nobody:?}");

    let none = OutboundRecord { version: Version(1), ..OutboundRecord::default() };
    set(none.clone(), OutboundChange::Deleted).await.unwrap();
    let none = OutboundRecord { version: Version(2), ..none };
    assert_eq!(store.outbound(one.id).await.unwrap(), none, "the version goes on");
    set(record(2), OutboundChange::Started).await.unwrap();
    assert_eq!(store.outbound(one.id).await.unwrap(), record(3));

    let told = store.events_after(EventFilter::default(), 0, 100).await.unwrap();
    let told: Vec<_> = told
        .iter()
        .filter(|event| event.kind.starts_with("container.network."))
        .map(|event| (event.kind.as_str(), event.container, event.payload.clone()))
        .collect();
    let want = |kind, of| (kind, Some(one.id), json!({ "type": of }));
    let updated = want("container.network.updated", Some("http"));
    let deleted = want("container.network.deleted", None);
    assert_eq!(told, [updated, deleted, want("container.network.started", Some("http"))]);

    store.remove_container(one.id, NOW_MS).await.unwrap();
    assert_eq!(store.outbound(one.id).await.unwrap(), OutboundRecord::default());
}

pub(crate) async fn a_copy_has_the_network_that_its_source_still_has(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    store.set_outbound(one.id, &record(0), OutboundChange::Updated, NOW_MS).await.unwrap();
    let mut copy = world.container("copy");
    let source = FillSource::Container(one.id);
    copy.status.fill = Some(Fill { source, is_new: true });
    copy.source = Some(one.id);
    copy.spec.realms = vec![RealmId::from_bytes([1; 12])];
    for version in [0, 2] {
        let rules = CopiedRules { firewall: false, outbound: Some(record(version)) };
        let stale = store.create_copy(&copy, None, 10, rules).await;
        assert!(matches!(stale, Err(Error::Stale)), "{stale:?}");
    }
    let sealed = OutboundRecord { credentials: Some(vec![4]), ..record(1) };
    let rules = CopiedRules { firewall: false, outbound: Some(sealed.clone()) };
    let copy = store.create_copy(&copy, None, 10, rules).await.unwrap();
    let want = OutboundRecord { configured_at_ms: copy.created_at_ms, ..sealed };
    assert_eq!(store.outbound(copy.id).await.unwrap(), want);
}
