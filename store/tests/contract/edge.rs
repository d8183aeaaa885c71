//! What owners set about requests: documents, settings, aliases and custom hostnames.

use std::sync::Arc;

use gantry_model::{
    ContainerId, RealmId, Scheme, Service,
    access::{Document, Program},
    alias::{AliasTarget, Landing},
    edge::{EdgeSettings, WakePolicy},
    hook::Hook,
};
use gantry_store::{
    Access, Alias, AliasFilter, AliasRecord, AliasRules, Changes, Container, CustomHostname,
    EdgeRecord, Error, HookRecord, HostnameProof, Revision, Scope, Store, User, Version,
};
use serde_json::json;

use super::fixture::{NOW_MS, World, id, project, user};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const RULES: AliasRules =
    AliasRules { per_owner_max: 10, quarantine_ms: 7 * DAY_MS, by_owner: true };

pub(crate) fn document() -> Document {
    let form = json!({
        "groups": {
            "staff": [
                {"type": "password", "username": "u", "password": "secret", "salt": "s"},
                {"type": "ip", "range": "2001:db8::/32"},
            ],
            "bots": {"type": "token", "header": "X-Key", "value": "k"},
            "app": {
                "type": "jwt", "secret": "s", "algorithm": "HS256", "sources": ["cookie:jwt"],
                "claims": {"role": "admin", "level": 3, "live": true},
            },
        },
        "permissions": {"staff": {"terminal": true, "http": [3000, 3001], "logs": true},
                        "bots": {"http": "3000-4000", "desktop": "*", "files": false}},
        "default": "deny",
        "enable_proxy": true,
    });
    Document::parse(&form, None, &mut || "salt".to_owned()).unwrap()
}

fn hook() -> HookRecord {
    let form = json!({
        "match": {"method": ["GET", "POST"], "path": "/api/*", "headers": {"X-A": "1"}},
        "script": {"path": "/check", "execId": "a1"},
        "timeout": 900,
        "applies_to": {"groups": ["staff"]},
    });
    let hook = Hook::from_json("hook", Program::HTTP, &form).unwrap();
    HookRecord { id: id(), hook }
}

pub(crate) fn alias(container: &Container, label: &str) -> Alias {
    Alias {
        id: id(),
        owner: container.owner,
        project: container.project,
        container: container.id,
        server: container.server,
        label: label.to_owned(),
        target: AliasTarget::Port { scheme: Scheme::Http, port: 3000 },
        target_path: Some("/app?x=1".to_owned()),
        allow_path_override: false,
        enabled: true,
        expires_at_ms: Some(NOW_MS + 1000),
        clear_site_data: false,
        version: Version::FIRST,
        created_at_ms: NOW_MS,
        updated_at_ms: NOW_MS,
    }
}

/// A container of another user.
async fn foreign(world: &World, name: &str) -> (User, Container) {
    let other = user(name);
    world.store.create_user(&other).await.unwrap();
    let theirs = project(&other, "theirs");
    world.store.create_project(&theirs).await.unwrap();
    let container = Container { owner: other.id, ..world.container_in(theirs.id, name) };
    (other, world.store.create_container(&container).await.unwrap())
}

async fn edge(store: &Store, id: ContainerId) -> Option<Arc<EdgeRecord>> {
    let mut found = store.route_records(&[id]).await.unwrap();
    let listed = store.load_routes().await.unwrap().containers;
    let loaded = listed.into_iter().find(|record| record.container == id);
    let record = found.pop().unwrap().1;
    assert_eq!(record, loaded, "both ways of reading agree");
    record.and_then(|record| record.edge)
}

/// The containers that have changed since a revision, in order.
async fn changed(store: &Store, since: Revision) -> Vec<ContainerId> {
    match store.changes(since, 1000).await.unwrap() {
        Changes::Since { changes, .. } => changes.iter().map(|change| change.container).collect(),
        other @ (Changes::Compacted | Changes::NewEpoch) => panic!("{other:?}"),
    }
}

fn head(store: &Store) -> Revision {
    *store.head().borrow()
}

pub(crate) async fn a_document_changes_with_its_version_only(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    for scope in [Scope::Project(world.project.id), Scope::Container(one.id)] {
        assert_eq!(store.access(scope).await.unwrap(), Access::default());
        let hooks = if matches!(scope, Scope::Project(_)) { vec![] } else { vec![hook()] };
        let given = Access { version: Version(0), document: Some(document()), hooks };
        let first = store.set_access(scope, given.clone(), NOW_MS).await.unwrap();
        assert_eq!(first, Access { version: Version(1), ..given.clone() });
        assert_eq!(store.access(scope).await.unwrap(), first);
        for version in [0, 2] {
            let stale = Access { version: Version(version), ..given.clone() };
            let refused = store.set_access(scope, stale, NOW_MS).await.unwrap_err();
            assert!(matches!(refused, Error::Stale), "{version}: {refused:?}");
        }
        // Removed and made again: no version comes twice.
        let none = Access { version: Version(1), document: None, hooks: vec![] };
        let removed = store.set_access(scope, none, NOW_MS).await.unwrap();
        assert_eq!((removed.version, &removed.document), (Version(2), &None));
        let again = Access { version: Version(2), ..given };
        assert_eq!(store.set_access(scope, again, NOW_MS).await.unwrap().version, Version(3));
    }
    for scope in [Scope::Project(id()), Scope::Container(id())] {
        let refused = store.set_access(scope, Access::default(), NOW_MS).await.unwrap_err();
        assert!(matches!(refused, Error::NotFound), "{scope:?}: {refused:?}");
    }
}

pub(crate) async fn a_document_is_in_the_feed_for_each_of_its_containers(world: &World) {
    let store = &world.store;
    let (one, two) = (world.create("one").await, world.create("two").await);
    let (_, other) = foreign(world, "stranger").await;
    let since = head(store);
    let access = Access { document: Some(document()), ..Access::default() };
    store.set_access(Scope::Project(world.project.id), access.clone(), NOW_MS).await.unwrap();
    let mut both = changed(store, since).await;
    both.sort_unstable();
    assert_eq!(both, [one.id, two.id]);
    let since = head(store);
    store.set_access(Scope::Container(one.id), access, NOW_MS).await.unwrap();
    assert_eq!(changed(store, since).await, [one.id]);

    let shared = Some(Arc::new(document()));
    let of_one = edge(store, one.id).await.unwrap();
    assert_eq!((&of_one.project, &of_one.container), (&shared, &shared));
    let of_two = edge(store, two.id).await.unwrap();
    assert_eq!((&of_two.project, &of_two.container), (&shared, &None));
    assert!(of_two.is_gated());
    assert_eq!(edge(store, other.id).await, None);
}

pub(crate) async fn a_removed_document_gates_nothing(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let scope = Scope::Container(one.id);
    let access = Access { document: Some(document()), ..Access::default() };
    let access = store.set_access(scope, access, NOW_MS).await.unwrap();
    assert!(edge(store, one.id).await.unwrap().is_gated());
    store.set_access(scope, Access { document: None, ..access }, NOW_MS).await.unwrap();
    assert_eq!(edge(store, one.id).await, None);
}

pub(crate) async fn settings_change_with_their_version_only(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let none = (Version(0), EdgeSettings::default());
    assert_eq!(store.edge_settings(one.id).await.unwrap(), none);
    let settings = EdgeSettings {
        wake: WakePolicy::Any,
        idle_pause_after: Some(600),
        verify_upstream: true,
        proxy_protocol_ports: vec![25, 8080],
        concurrency_max: Some(7),
        log_bodies: true,
    };
    let since = head(store);
    store.set_edge_settings(one.id, Version(0), &settings, NOW_MS).await.unwrap();
    assert_eq!(store.edge_settings(one.id).await.unwrap(), (Version(1), settings.clone()));
    assert_eq!(changed(store, since).await, [one.id]);
    assert_eq!(edge(store, one.id).await.unwrap().settings, settings);
    let stale = store.set_edge_settings(one.id, Version(0), &settings, NOW_MS).await;
    assert!(matches!(stale, Err(Error::Stale)));
    let plain = EdgeSettings::default();
    store.set_edge_settings(one.id, Version(1), &plain, NOW_MS).await.unwrap();
    assert_eq!(edge(store, one.id).await, None);
}

pub(crate) async fn an_alias_is_stored_as_given_and_in_the_feed(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let since = head(store);
    let given = alias(&one, "shop");
    assert_eq!(store.create_alias(&given, RULES).await.unwrap(), given);
    assert_eq!(store.alias(given.id).await.unwrap(), Some(given.clone()));
    assert_eq!(store.alias(id()).await.unwrap(), None);
    assert_eq!(changed(store, since).await, [one.id]);
    let record = edge(store, one.id).await.unwrap();
    assert!(!record.is_gated(), "an alias alone is nothing to pass");
    let want = AliasRecord {
        label: "shop".to_owned(),
        hostnames: vec![],
        target: given.target,
        landing: Some(Landing::parse("target_path", "/app?x=1", true).unwrap()),
        enabled: true,
        expires_at_ms: Some(NOW_MS + 1000),
        clear_site_data: false,
    };
    assert_eq!(record.aliases, [want]);
    store.remove_alias(given.id, NOW_MS).await.unwrap();
    assert_eq!(changed(store, since).await, [one.id, one.id]);
    assert_eq!(edge(store, one.id).await, None);
    assert!(matches!(store.remove_alias(given.id, NOW_MS).await, Err(Error::NotFound)));
    let nowhere = Alias { container: id(), ..alias(&one, "nowhere") };
    assert!(matches!(store.create_alias(&nowhere, RULES).await, Err(Error::NotFound)));
}

pub(crate) async fn every_target_of_an_alias_is_read_as_it_was_written(world: &World) {
    let one = world.create("one").await;
    let ports =
        [Scheme::Http, Scheme::Https].map(|scheme| AliasTarget::Port { scheme, port: 8443 });
    let services = Service::ALL.into_iter().filter(|service| *service != Service::Workspaces);
    let services = services.map(|service| AliasTarget::Kit { service, index: 2 });
    for target in services.chain(ports).chain([AliasTarget::Ssh]) {
        let given = Alias { target, target_path: None, ..alias(&one, "shop") };
        world.store.create_alias(&given, RULES).await.unwrap();
        assert_eq!(world.store.alias(given.id).await.unwrap(), Some(given.clone()));
        world.store.remove_alias(given.id, NOW_MS).await.unwrap();
    }
}

pub(crate) async fn a_label_is_unique_in_the_whole_store(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let (_, other) = foreign(world, "stranger").await;
    store.create_alias(&alias(&one, "shop"), RULES).await.unwrap();
    let own = store.create_alias(&alias(&one, "shop"), RULES).await.unwrap_err();
    assert!(matches!(own, Error::LabelTaken { own: true }), "{own:?}");
    let theirs = store.create_alias(&alias(&other, "shop"), RULES).await.unwrap_err();
    assert!(matches!(theirs, Error::LabelTaken { own: false }), "{theirs:?}");
    let mut second = store.create_alias(&alias(&one, "second"), RULES).await.unwrap();
    "shop".clone_into(&mut second.label);
    let renamed = store.update_alias(&second, RULES).await.unwrap_err();
    assert!(matches!(renamed, Error::LabelTaken { own: true }), "{renamed:?}");
}

pub(crate) async fn an_account_may_have_so_many_aliases(world: &World) {
    let one = world.create("one").await;
    let rules = AliasRules { per_owner_max: 2, ..RULES };
    for label in ["aaa", "bbb"] {
        world.store.create_alias(&alias(&one, label), rules).await.unwrap();
    }
    let refused = world.store.create_alias(&alias(&one, "ccc"), rules).await.unwrap_err();
    assert!(matches!(refused, Error::AliasLimit { max: 2 }), "{refused:?}");
    let (_, other) = foreign(world, "stranger").await;
    world.store.create_alias(&alias(&other, "ccc"), rules).await.unwrap();
}

pub(crate) async fn a_freed_label_waits_for_its_owner(world: &World) {
    let store = &world.store;
    let (one, two) = (world.create("one").await, world.create("two").await);
    let (_, other) = foreign(world, "stranger").await;
    let at = |container: &Container, label: &str, now_ms| Alias {
        created_at_ms: now_ms,
        updated_at_ms: now_ms,
        ..alias(container, label)
    };
    // Freed by removal, by a new name, and by the end of its container.
    let removed = store.create_alias(&alias(&one, "removed"), RULES).await.unwrap();
    store.remove_alias(removed.id, NOW_MS).await.unwrap();
    let mut renamed = store.create_alias(&alias(&one, "renamed"), RULES).await.unwrap();
    "new-name".clone_into(&mut renamed.label);
    store.update_alias(&renamed, RULES).await.unwrap();
    store.create_alias(&alias(&two, "orphan"), RULES).await.unwrap();
    store.remove_container(two.id, NOW_MS).await.unwrap();
    for label in ["removed", "renamed", "orphan"] {
        let early = at(&other, label, NOW_MS + 7 * DAY_MS - 1);
        let refused = store.create_alias(&early, RULES).await.unwrap_err();
        assert!(matches!(refused, Error::LabelTaken { own: false }), "{label}: {refused:?}");
    }
    // Its owner has it back at once; another container's browsers must forget.
    let back = store.create_alias(&at(&one, "removed", NOW_MS + 1), RULES).await.unwrap();
    assert!(!back.clear_site_data, "the same container");
    let back = store.create_alias(&at(&one, "orphan", NOW_MS + 1), RULES).await.unwrap();
    assert!(back.clear_site_data, "another container");
    assert_eq!(store.alias(back.id).await.unwrap(), Some(back));
    let late = at(&other, "renamed", NOW_MS + 7 * DAY_MS);
    assert!(store.create_alias(&late, RULES).await.unwrap().clear_site_data);
}

pub(crate) async fn a_freed_label_waits_for_members_of_its_project_however_many_are_freed(
    world: &World,
) {
    let store = &world.store;
    let by_member = AliasRules { per_owner_max: 1_100, by_owner: false, ..RULES };
    let (one, many) = (world.create("one").await, world.create("many").await);
    let shared = project(&world.owner, "shared");
    store.create_project(&shared).await.unwrap();
    let there = world.container_in(shared.id, "there");
    let there = store.create_container(&there).await.unwrap();
    let freed = store.create_alias(&alias(&one, "precious"), RULES).await.unwrap();
    store.remove_alias(freed.id, NOW_MS).await.unwrap();
    let taken = |result| {
        assert!(matches!(result, Err(Error::LabelTaken { own: false })), "{result:?}");
    };
    taken(store.create_alias(&alias(&there, "precious"), by_member).await);
    // As many as are remembered of one owner.
    for number in 0..1_001 {
        let new = alias(&many, &format!("label-{number}"));
        store.create_alias(&new, by_member).await.unwrap();
    }
    store.remove_container(many.id, NOW_MS + 1).await.unwrap();
    store.create_alias(&alias(&one, "another"), by_member).await.unwrap();
    let (_, other) = foreign(world, "stranger").await;
    taken(store.create_alias(&alias(&other, "precious"), RULES).await);
    let back = store.create_alias(&alias(&one, "precious"), by_member).await.unwrap();
    store.remove_alias(back.id, NOW_MS).await.unwrap();
    store.create_alias(&alias(&there, "precious"), RULES).await.unwrap();
}

pub(crate) async fn an_update_of_an_alias_needs_its_version(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let old = store.create_alias(&alias(&one, "shop"), RULES).await.unwrap();
    let new = Alias {
        label: "store".to_owned(),
        target: AliasTarget::Kit { service: Service::Terminal, index: 2 },
        target_path: None,
        allow_path_override: true,
        enabled: false,
        expires_at_ms: None,
        updated_at_ms: NOW_MS + 5,
        ..old.clone()
    };
    let since = head(store);
    let stored = store.update_alias(&new, RULES).await.unwrap();
    assert_eq!(stored, Alias { version: Version(2), ..new.clone() });
    assert_eq!(store.alias(old.id).await.unwrap(), Some(stored));
    assert_eq!(changed(store, since).await, [one.id]);
    assert!(matches!(store.update_alias(&new, RULES).await, Err(Error::Stale)));
    let unknown = Alias { id: id(), ..new };
    assert!(matches!(store.update_alias(&unknown, RULES).await, Err(Error::NotFound)));
}

pub(crate) async fn the_end_of_an_alias_is_told_once_before_and_once_after(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let made = store.create_alias(&alias(&one, "shop"), RULES).await.unwrap();
    let endless = Alias { expires_at_ms: None, ..alias(&one, "endless") };
    store.create_alias(&endless, RULES).await.unwrap();
    let told = async || {
        let told = store.events_after(gantry_store::EventFilter::default(), 0, 100).await.unwrap();
        let of_alias = told.iter().filter(|event| event.resource_id == made.id.to_string());
        of_alias
            .filter_map(|event| event.kind.strip_prefix("proxy.alias.").map(str::to_owned))
            .collect::<Vec<_>>()
    };
    store.tell_alias_ends(NOW_MS, NOW_MS + 999).await.unwrap();
    assert_eq!(told().await, ["created"]);
    for _ in 0..2 {
        store.tell_alias_ends(NOW_MS, NOW_MS + 1000).await.unwrap();
    }
    assert_eq!(told().await, ["created", "expiring_soon"]);
    // The same end again is no news, another one is.
    let mut later = store.update_alias(&made, RULES).await.unwrap();
    store.tell_alias_ends(NOW_MS, NOW_MS + 1000).await.unwrap();
    assert_eq!(told().await, ["created", "expiring_soon", "updated"]);
    later.expires_at_ms = Some(NOW_MS + 2000);
    store.update_alias(&later, RULES).await.unwrap();
    for now_ms in [NOW_MS + 1999, NOW_MS + 2000, NOW_MS + 3000] {
        store.tell_alias_ends(now_ms, now_ms + 1000).await.unwrap();
    }
    let after = ["created", "expiring_soon", "updated", "updated", "expiring_soon", "expired"];
    assert_eq!(told().await, after);
    assert!(store.alias(made.id).await.unwrap().is_some(), "it may have another end");
}

pub(crate) async fn aliases_are_filtered(world: &World) {
    let store = &world.store;
    let mut spec = super::fixture::spec("in-realm");
    spec.realms = vec![RealmId::from_bytes([3; 12])];
    let one = Container { spec, ..world.container("in-realm") };
    let one = store.create_container(&one).await.unwrap();
    let two = world.create("two").await;
    let (stranger, other) = foreign(world, "stranger").await;
    let off = |alias| Alias { enabled: false, expires_at_ms: None, ..alias };
    let given = [alias(&one, "aaa"), off(alias(&two, "off")), alias(&other, "ccc")];
    for alias in &given {
        store.create_alias(alias, RULES).await.unwrap();
    }
    let found = async |filter: AliasFilter| -> Vec<String> {
        let found = store.aliases(filter, 100).await.unwrap();
        found.into_iter().map(|alias| alias.label).collect()
    };
    let all = AliasFilter::default();
    let (before, after) = (NOW_MS + 999, NOW_MS + 1000);
    for (filter, want) in [
        (all, &["aaa", "off", "ccc"][..]),
        (AliasFilter { seen_by: Some(stranger.id), ..all }, &["ccc"]),
        (AliasFilter { project: Some(world.project.id), ..all }, &["aaa", "off"]),
        (AliasFilter { container: Some(two.id), ..all }, &["off"]),
        (AliasFilter { realm: one.spec.realms.first().copied(), ..all }, &["aaa"]),
        (AliasFilter { enabled: Some(true), ..all }, &["aaa", "ccc"]),
        (AliasFilter { enabled: Some(false), ..all }, &["off"]),
        (AliasFilter { expired: Some((true, after)), ..all }, &["aaa", "ccc"]),
        (AliasFilter { expired: Some((true, before)), ..all }, &[]),
        (AliasFilter { expired: Some((false, after)), ..all }, &["off"]),
    ] {
        assert_eq!(found(filter).await, want, "{filter:?}");
    }
    assert_eq!(store.aliases(all, 2).await.unwrap().len(), 2);
}

fn hostname(name: &str, alias: &Alias, proof: HostnameProof) -> CustomHostname {
    CustomHostname {
        name: name.to_owned(),
        alias: alias.id,
        container: alias.container,
        proof,
        is_proven: true,
        checked_at_ms: NOW_MS,
        created_at_ms: NOW_MS,
    }
}

pub(crate) async fn a_hostname_leads_where_its_alias_does_while_it_is_proven(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let shop = store.create_alias(&alias(&one, "shop"), RULES).await.unwrap();
    let since = head(store);
    let mut bound = hostname("www.shop.example", &shop, HostnameProof::Named);
    store.bind_hostname(&bound, NOW_MS).await.unwrap();
    assert_eq!(store.hostnames(one.id).await.unwrap(), [bound.clone()]);
    assert_eq!(changed(store, since).await, [one.id]);
    let routed = async || edge(store, one.id).await.unwrap().aliases[0].hostnames.clone();
    assert_eq!(routed().await, ["www.shop.example"]);
    bound.is_proven = false;
    bound.checked_at_ms += 1;
    store.bind_hostname(&bound, NOW_MS).await.unwrap();
    assert_eq!(store.hostnames(one.id).await.unwrap(), [bound.clone()]);
    assert!(routed().await.is_empty());
    // A check that changes nothing is no change; and none brings a binding back.
    let since = head(store);
    for (is_proven, changes) in [(false, &[][..]), (true, &[one.id]), (true, &[one.id])] {
        let last_ms = bound.checked_at_ms;
        (bound.is_proven, bound.checked_at_ms) = (is_proven, last_ms + 1);
        assert!(store.note_hostname(&bound, last_ms, NOW_MS).await.unwrap());
        // Somebody else has checked it meanwhile.
        let late = CustomHostname { is_proven: !is_proven, ..bound.clone() };
        assert!(!store.note_hostname(&late, last_ms, NOW_MS).await.unwrap());
        assert_eq!(store.hostnames(one.id).await.unwrap(), [bound.clone()]);
        assert_eq!(changed(store, since).await, changes);
    }
    assert_eq!(routed().await, ["www.shop.example"]);
    let at_ms = bound.checked_at_ms;
    let checked = async |at_ms, max| store.hostnames_checked_before(at_ms, max).await.unwrap();
    assert_eq!(checked(at_ms, 1).await, [bound.clone()]);
    assert_eq!((checked(at_ms - 1, 1).await, checked(at_ms, 0).await), (vec![], vec![]));
    let unknown = CustomHostname { name: "other.shop.example".to_owned(), ..bound.clone() };
    assert!(!store.note_hostname(&unknown, at_ms, NOW_MS).await.unwrap());
    let other = world.create("other").await;
    let elsewhere = store.unbind_hostname(other.id, &bound.name, NOW_MS).await;
    assert!(matches!(elsewhere, Err(Error::NotFound)));
    store.unbind_hostname(one.id, &bound.name, NOW_MS).await.unwrap();
    assert!(store.hostnames(one.id).await.unwrap().is_empty());
    let nowhere = CustomHostname { alias: id(), ..bound };
    assert!(matches!(store.bind_hostname(&nowhere, NOW_MS).await, Err(Error::NotFound)));
}

pub(crate) async fn a_hostname_goes_to_whom_the_names_prove(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let (_, other) = foreign(world, "stranger").await;
    let ours = store.create_alias(&alias(&one, "ours"), RULES).await.unwrap();
    let theirs = store.create_alias(&alias(&other, "theirs"), RULES).await.unwrap();
    let name = "shop.example";
    let by = |alias: &Alias, proof| hostname(name, alias, proof);
    store.bind_hostname(&by(&theirs, HostnameProof::Addresses), NOW_MS).await.unwrap();
    // Every alias has the addresses: whoever came first keeps the name against them ...
    let same = store.bind_hostname(&by(&ours, HostnameProof::Addresses), NOW_MS).await;
    assert!(matches!(same, Err(Error::HostnameTaken)));
    // ... but not against a record that names another alias.
    let since = head(store);
    store.bind_hostname(&by(&ours, HostnameProof::Named), NOW_MS).await.unwrap();
    assert_eq!(changed(store, since).await, [other.id, one.id]);
    assert!(store.hostnames(other.id).await.unwrap().is_empty());
    assert_eq!(edge(store, one.id).await.unwrap().aliases[0].hostnames, [name]);
    // A binding that is no longer proven keeps nobody out.
    let lost = CustomHostname { is_proven: false, ..by(&ours, HostnameProof::Named) };
    store.bind_hostname(&lost, NOW_MS).await.unwrap();
    store.bind_hostname(&by(&theirs, HostnameProof::Addresses), NOW_MS).await.unwrap();
}

pub(crate) async fn all_that_is_set_goes_with_its_container(world: &World) {
    let store = &world.store;
    let one = world.create("one").await;
    let scope = Scope::Container(one.id);
    let access = Access { document: Some(document()), hooks: vec![hook()], ..Access::default() };
    store.set_access(scope, access, NOW_MS).await.unwrap();
    let settings = EdgeSettings { verify_upstream: true, ..EdgeSettings::default() };
    store.set_edge_settings(one.id, Version(0), &settings, NOW_MS).await.unwrap();
    let shop = store.create_alias(&alias(&one, "shop"), RULES).await.unwrap();
    store.bind_hostname(&hostname("a.example", &shop, HostnameProof::Named), NOW_MS).await.unwrap();
    let project = Scope::Project(world.project.id);
    let access = Access { document: Some(document()), ..Access::default() };
    store.set_access(project, access, NOW_MS).await.unwrap();

    store.remove_container(one.id, NOW_MS).await.unwrap();
    assert_eq!(store.access(scope).await.unwrap(), Access::default());
    assert_eq!(store.edge_settings(one.id).await.unwrap().0, Version(0));
    assert_eq!(store.alias(shop.id).await.unwrap(), None);
    assert!(store.hostnames(one.id).await.unwrap().is_empty());
    store.delete_project(world.project.id, 9_000).await.unwrap();
    assert_eq!(store.access(project).await.unwrap(), Access::default());
}
