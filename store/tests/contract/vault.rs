//! What users have put away.

use gantry_model::{RealmId, UserId};
use gantry_store::{Error, EventFilter, Sealed, SealedChange, VaultMax, VaultPlace, VaultUse};
use serde_json::json;

use super::fixture::{NOW_MS, World, user};

const ROOM: VaultMax = VaultMax { keys: 100, octets: 1000 };

fn place(owner: UserId, realm: Option<RealmId>, key: &str) -> VaultPlace {
    VaultPlace { owner, realm, key: key.to_owned() }
}

fn sealed(octet: u8, plain_len: u64) -> Sealed {
    Sealed { octets: vec![octet; 40], plain_len }
}

pub(crate) async fn an_entry_is_stored_as_given_and_changes_in_parts(world: &World) {
    let (store, one) = (&world.store, place(world.owner.id, None, "one"));
    let put = async |value, metadata, at| {
        store.put_vault_entry(&one, value, metadata, ROOM, NOW_MS + at).await
    };
    assert_eq!(store.vault_entry(&one).await.unwrap(), None);
    let nothing = put(None, SealedChange::Set(sealed(9, 1)), 0).await;
    assert!(matches!(nothing, Err(Error::NotFound)), "{nothing:?}");

    let made = put(Some(sealed(1, 5)), SealedChange::Keep, 1).await.unwrap();
    assert_eq!((made.place.clone(), made.metadata.clone(), made.octets), (one.clone(), None, 5));
    assert_eq!((made.created_at_ms, made.updated_at_ms), (NOW_MS + 1, NOW_MS + 1));
    let read = store.vault_entry(&one).await.unwrap();
    assert_eq!(read, Some((made, vec![1; 40])));
    // Either part alone leaves the other.
    let told = put(None, SealedChange::Set(sealed(2, 7)), 2).await.unwrap();
    assert_eq!((told.metadata.clone(), told.octets), (Some(vec![2; 40]), 12));
    assert_eq!((told.created_at_ms, told.updated_at_ms), (NOW_MS + 1, NOW_MS + 2));
    let other = put(Some(sealed(3, 6)), SealedChange::Keep, 3).await.unwrap();
    assert_eq!((other.metadata, other.octets), (Some(vec![2; 40]), 13));
    assert_eq!(store.vault_entry(&one).await.unwrap().unwrap().1, vec![3; 40]);
    let bare = put(None, SealedChange::Clear, 4).await.unwrap();
    assert_eq!((bare.metadata, bare.octets), (None, 6));

    store.delete_vault_entry(&one, NOW_MS + 5).await.unwrap();
    let gone = store.delete_vault_entry(&one, NOW_MS).await;
    assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
    let filter = EventFilter { resource_type: Some("vault".to_owned()), ..EventFilter::default() };
    let told = store.events_after(filter, 0, 10).await.unwrap();
    let kinds: Vec<&str> = told.iter().map(|event| event.kind.as_str()).collect();
    let updated = "vault.updated";
    assert_eq!(kinds, ["vault.created", updated, updated, updated, "vault.deleted"]);
    assert!(told.iter().all(|event| event.payload == json!({ "key": "one" })), "{told:?}");
    let shown = format!("{:?} {:?}", sealed(77, 5), SealedChange::Set(sealed(77, 5)));
    assert!(!shown.contains("77"), "{shown}");
}

pub(crate) async fn realms_and_owners_keep_entries_apart(world: &World) {
    let store = &world.store;
    let (a, b) = (RealmId::from_bytes([1; 12]), RealmId::from_bytes([2; 12]));
    let stranger = user("stranger");
    store.create_user(&stranger).await.unwrap();
    let owner = world.owner.id;
    let all = [
        place(owner, None, "k"),
        place(owner, Some(a), "k"),
        place(owner, Some(b), "k"),
        place(owner, Some(b), "a"),
        place(stranger.id, None, "k"),
    ];
    for (octet, place) in (1..).zip(&all) {
        let value = Some(sealed(octet, u64::from(octet)));
        store.put_vault_entry(place, value, SealedChange::Keep, ROOM, NOW_MS).await.unwrap();
    }
    for (octet, place) in (1..).zip(&all) {
        let (entry, value) = store.vault_entry(place).await.unwrap().unwrap();
        assert_eq!((&entry.place, value), (place, vec![octet; 40]));
    }
    let places = async |realm| {
        let entries = store.vault_entries(owner, realm).await.unwrap();
        entries.into_iter().map(|entry| entry.place).collect::<Vec<_>>()
    };
    let [none, of_a, of_b, first, _] = &all;
    assert_eq!(places(None).await, [first, none, of_a, of_b].map(Clone::clone));
    assert_eq!(places(Some(b)).await, [first, of_b].map(Clone::clone));
    let used = async |realm| store.vault_use(owner, realm).await.unwrap();
    assert_eq!(used(None).await, VaultUse { keys: 4, octets: 10 });
    assert_eq!(used(Some(b)).await, VaultUse { keys: 2, octets: 7 });
    assert_eq!(store.clear_vault(owner, Some(b), NOW_MS).await.unwrap(), 2);
    assert_eq!(places(None).await, [none, of_a].map(Clone::clone));
    assert_eq!(store.clear_vault(owner, None, NOW_MS).await.unwrap(), 2);
    assert_eq!(store.clear_vault(owner, None, NOW_MS).await.unwrap(), 0);
    assert_eq!(used(None).await, VaultUse::default());
    assert_eq!(store.vault_use(stranger.id, None).await.unwrap().keys, 1);
    // Each realm hears of its own, and nobody of the second clearing.
    let filter = EventFilter { kind: Some("vault.cleared".to_owned()), ..EventFilter::default() };
    let told = store.events_after(filter, 0, 10).await.unwrap();
    let realms: Vec<_> = told.iter().map(|event| event.realms.clone()).collect();
    assert_eq!(realms, [vec![b], vec![], vec![a]]);
}

pub(crate) async fn an_account_has_so_many_entries_and_octets(world: &World) {
    let (store, owner) = (&world.store, world.owner.id);
    let realm = RealmId::from_bytes([1; 12]);
    let put = async |place: &VaultPlace, octets, max| {
        let value = Some(sealed(1, octets));
        store.put_vault_entry(place, value, SealedChange::Keep, max, NOW_MS).await
    };
    let (one, two) = (place(owner, None, "one"), place(owner, Some(realm), "two"));
    let max = VaultMax { keys: 2, octets: 10 };
    put(&one, 4, max).await.unwrap();
    put(&two, 6, max).await.unwrap();
    let full = put(&place(owner, None, "three"), 0, max).await;
    assert!(matches!(full, Err(Error::VaultKeyLimit { max: 2 })), "{full:?}");
    let large = put(&one, 5, max).await;
    assert!(matches!(large, Err(Error::VaultSizeLimit { max: 10 })), "{large:?}");
    let metadata = SealedChange::Set(sealed(2, 1));
    let large = store.put_vault_entry(&one, None, metadata, max, NOW_MS).await;
    assert!(matches!(large, Err(Error::VaultSizeLimit { max: 10 })), "{large:?}");
    // What there is stays writable as long as it does not grow, however low the limit is set.
    let low = VaultMax { keys: 1, octets: 2 };
    put(&one, 4, low).await.unwrap();
    put(&two, 5, low).await.unwrap();
    assert!(put(&two, 6, low).await.is_err());
}
