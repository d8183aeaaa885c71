//! The secrets that the installation itself needs, sealed in the store: who has a copy of that alone can
//! neither sign sessions nor try tokens.

use gantry_store::Store;

use crate::{error::Result, random, seal::SealingKeys};

/// The octets of each.
const LEN: usize = 32;

/// What becomes of a secret that an earlier version left readable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    /// It is sealed and stays: what depends on it could not be made again.
    Seal,
    /// A new one takes its place: copies of the store have the old one.
    Replace,
}

/// Reads a secret; the first time, makes it. One that an older key has sealed is sealed with the newest,
/// so that the older one is not needed for it any more; and because this opens one at each start, a start
/// without the keys fails.
pub(crate) async fn load(
    store: &Store,
    sealing: &SealingKeys,
    name: &str,
    plain: Plain,
) -> Result<Vec<u8>> {
    let context = [b"gantry secret 1 ", name.as_bytes()].concat();
    let new = random::bytes::<LEN>()?;
    let candidate = sealing.seal(&context, &new)?;
    let found = store.get_or_insert_secret(name, &candidate).await?;
    let (secret, again) = if found.len() == LEN {
        match plain {
            Plain::Seal => (found.clone(), true),
            Plain::Replace => (new.to_vec(), true),
        }
    } else {
        (sealing.open(&context, &found)?, !sealing.is_of_newest(&found))
    };
    if again {
        store.replace_secret(name, &found, &sealing.seal(&context, &secret)?).await?;
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Unopened;

    #[tokio::test]
    async fn a_secret_is_sealed_with_the_newest_key_and_what_was_readable_is_not_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.db")).await.unwrap();
        let [old, both, new] = [&[[1; 32]][..], &[[1; 32], [2; 32]], &[[2; 32]]]
            .map(|keys| SealingKeys::new(keys).unwrap());
        for (name, plain) in [("kept", Plain::Seal), ("replaced", Plain::Replace)] {
            store.get_or_insert_secret(name, &[7; LEN]).await.unwrap();
            let secret = load(&store, &old, name, plain).await.unwrap();
            assert_eq!(secret == [7; LEN], plain == Plain::Seal, "{name}");
            let stored = store.get_or_insert_secret(name, &[]).await.unwrap();
            assert!(stored.len() > LEN && !stored.windows(LEN).any(|part| part == secret));
            for keys in [&old, &both, &new] {
                assert_eq!(load(&store, keys, name, plain).await.unwrap(), secret, "{name}");
            }
            let gone = load(&store, &old, name, plain).await.unwrap_err();
            assert!(
                matches!(gone, crate::Error::Sealed(Unopened::UnknownKey { .. })),
                "cut back to the first key: {gone:?}"
            );
        }
        let first = load(&store, &new, "new", Plain::Seal).await.unwrap();
        assert_eq!(load(&store, &new, "new", Plain::Seal).await.unwrap(), first);
        // One secret does not open in the place of another.
        let stored = store.get_or_insert_secret("new", &[]).await.unwrap();
        store.get_or_insert_secret("moved", &stored).await.unwrap();
        assert!(load(&store, &new, "moved", Plain::Seal).await.is_err());
    }
}
