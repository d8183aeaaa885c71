//! That rows of the vault open where they belong, and nowhere else.

use gantry_control::{Error, Patch, SealingKeys, Unopened, VaultWrite};
use serde_json::json;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::bench::Bench;

/// Puts a value with metadata away.
async fn put(bench: &Bench, key: &str, value: &str) {
    let metadata = json!({ "about": value }).as_object().unwrap().clone();
    let write = VaultWrite { value: Some(value.to_owned()), metadata: Patch::Set(metadata) };
    bench.control.write_vault(&bench.actor, None, key, write).await.unwrap();
}

#[tokio::test]
async fn what_is_moved_to_another_row_or_column_does_not_open() {
    let bench = Bench::new().await;
    for (key, value) in [("mine", "one"), ("other", "two"), ("third", "three")] {
        put(&bench, key, value).await;
    }
    let options = SqliteConnectOptions::new().filename(bench.store_path());
    let mut raw = SqliteConnection::connect_with(&options).await.unwrap();
    for change in [
        // Another's value; the own metadata as value; a row that is called something else.
        "UPDATE vault SET value = (SELECT value FROM vault WHERE name = 'other') WHERE name = 'mine'",
        "UPDATE vault SET value = metadata WHERE name = 'other'",
        "UPDATE vault SET name = 'renamed' WHERE name = 'third'",
    ] {
        sqlx::raw_sql(change).execute(&mut raw).await.unwrap();
    }
    let (control, actor) = (&bench.control, &bench.actor);
    for key in ["mine", "other", "renamed"] {
        let found = control.vault_value(actor, None, key).await;
        assert!(matches!(found, Err(Error::Sealed(Unopened::Damaged))), "{key}: {found:?}");
    }
    // What cannot be read can be replaced and removed all the same.
    put(&bench, "mine", "again").await;
    assert_eq!(control.vault_value(actor, None, "mine").await.unwrap().value, "again");
    for key in ["other", "renamed"] {
        control.delete_vault_key(actor, None, key).await.unwrap();
    }
    let shown = format!("{:?}", control.vault_value(actor, None, "mine").await.unwrap());
    assert!(!shown.contains("again"), "{shown}");
}

#[tokio::test]
async fn an_installation_without_its_keys_does_not_begin_anew() {
    let bench = Bench::new().await;
    put(&bench, "mine", "one").await;
    let started = bench.control_with(SealingKeys::new(&[[4; 32]]).unwrap()).await;
    let Err(Error::Sealed(Unopened::UnknownKey { key })) = started else { panic!("{started:?}") };
    assert_eq!(key.len(), 16);
    let rotated = SealingKeys::new(&[[3; 32], [4; 32]]).unwrap();
    let control = bench.control_with(rotated).await.unwrap();
    assert_eq!(control.public_key().unwrap(), bench.control.public_key().unwrap());
    let found = control.vault_value(&bench.actor, None, "mine").await.unwrap();
    assert_eq!(found.value, "one");
    // The secrets of the installation are sealed with the newest key now; the vault is not.
    let cut = bench.control_with(SealingKeys::new(&[[3; 32]]).unwrap()).await;
    assert!(matches!(cut, Err(Error::Sealed(Unopened::UnknownKey { .. }))), "{cut:?}");
    let newest = bench.control_with(SealingKeys::new(&[[4; 32]]).unwrap()).await.unwrap();
    let found = newest.vault_value(&bench.actor, None, "mine").await;
    assert!(matches!(found, Err(Error::Sealed(Unopened::UnknownKey { .. }))), "{found:?}");
    // What does not open hides nothing else, nor that a write was done.
    let [shown] = &newest.vault_keys(&bench.actor, None).await.unwrap()[..] else { panic!() };
    assert_eq!((shown.key.as_str(), &shown.metadata), ("mine", &None));
    let write = VaultWrite { value: Some("two".to_owned()), metadata: Patch::Keep };
    newest.write_vault(&bench.actor, None, "mine", write).await.unwrap();
    assert_eq!(newest.vault_value(&bench.actor, None, "mine").await.unwrap().value, "two");
}
