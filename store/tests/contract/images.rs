//! What people make of images.

use gantry_model::{ImageId, container::ImageName};
use gantry_store::{Error, ImageFacts, Ratings, TakenImage};

use super::fixture::{NOW_MS, World, id, user};

pub(crate) async fn images_are_seen_once_taken_once_and_rated_by_each_user_once(world: &World) {
    let store = &world.store;
    let name = |text| ImageName::parse("image", text).unwrap();
    let (one, two): (ImageId, ImageId) = (id(), id());
    let seen = |id| (id, name("debian/13"));
    store.see_images(&[seen(one)], NOW_MS).await.unwrap();
    store.see_images(&[seen(one), (two, name("debian/12"))], NOW_MS + 5).await.unwrap();
    assert_eq!(store.image_name(two).await.unwrap(), Some(name("debian/12")));
    assert_eq!(store.image_name(id()).await.unwrap(), None);
    let facts = async |id| store.image_facts().await.unwrap().get(&id).copied().unwrap();
    let unrated = ImageFacts { first_seen_at_ms: NOW_MS, ratings: Ratings::default() };
    assert_eq!(facts(one).await, unrated);
    assert_eq!(facts(two).await.first_seen_at_ms, NOW_MS + 5);

    let (me, other) = (world.owner.id, user("other"));
    store.create_user(&other).await.unwrap();
    store.take_image(me, one, NOW_MS + 1).await.unwrap();
    store.take_image(me, one, NOW_MS + 9).await.unwrap();
    let taken = store.taken_images(me).await.unwrap();
    let want = TakenImage { imported_at_ms: NOW_MS + 1, rating: None };
    assert_eq!(taken.into_iter().collect::<Vec<_>>(), [(one, want)], "the first time counts");
    assert!(store.taken_images(other.id).await.unwrap().is_empty());

    for (who, rating, sum, count) in [(me, 5, 5, 1), (other.id, 0, 5, 2), (me, 2, 2, 2)] {
        let ratings = store.rate_image(who, one, rating, NOW_MS).await.unwrap();
        assert_eq!(ratings, Ratings { sum, count });
        assert_eq!(facts(one).await.ratings, ratings);
    }
    assert_eq!(facts(two).await.ratings, Ratings::default());
    assert_eq!(store.taken_images(me).await.unwrap().get(&one).unwrap().rating, Some(2));
    for nobody in [
        store.take_image(id(), one, NOW_MS).await,
        store.rate_image(id(), one, 1, NOW_MS).await.map(drop),
    ] {
        assert!(matches!(nobody, Err(Error::NotFound)), "{nobody:?}");
    }
}
