//! What is kept of what happened, and for how long.

use futures_util::future::join_all;
use gantry_store::{Activity, EventFilter, Span};

use super::fixture::{NOW_MS, World, id, project, user};

const ALL: Span = Span { offset: 0, limit: 100, descending: false };

pub(crate) async fn the_oldest_events_of_an_account_go_when_there_are_too_many(world: &World) {
    let store = &world.store;
    let other = user("other");
    store.create_user(&other).await.unwrap();
    for number in 0..4 {
        store.create_project(&project(&world.owner, &format!("p{number}"))).await.unwrap();
    }
    store.create_project(&project(&other, "his")).await.unwrap();
    let of = async |owner| {
        let filter = EventFilter { owner: Some(owner), ..EventFilter::default() };
        let listed = store.events(filter, false, ALL).await.unwrap();
        let alias =
            |event: gantry_store::Event| event.payload["alias"].as_str().unwrap().to_owned();
        listed.items.into_iter().map(alias).collect::<Vec<String>>()
    };
    assert_eq!(of(world.owner.id).await, ["first", "p0", "p1", "p2", "p3"]);
    assert_eq!(store.trim_events(5).await.unwrap(), 0);
    assert_eq!(store.trim_events(3).await.unwrap(), 2);
    assert_eq!(of(world.owner.id).await, ["p1", "p2", "p3"]);
    assert_eq!(of(other.id).await, ["his"], "another account has its own count");
}

pub(crate) async fn a_long_history_goes_in_parts_by_age_and_by_number(world: &World) {
    let store = &world.store;
    let entry = |at_ms: i64| Activity {
        id: id(),
        owner: world.owner.id,
        token: None,
        realm: None,
        method: "POST".to_owned(),
        path: "/".to_owned(),
        status: 200,
        ip: None,
        user_agent: None,
        security: false,
        at_ms,
    };
    let entries: Vec<Activity> = (0..1_100).map(|at| entry(NOW_MS + at)).collect();
    for added in join_all(entries.iter().map(|entry| store.add_activity(entry))).await {
        added.unwrap();
    }
    let left = async || {
        let totals = store.activity_totals(world.owner.id, None).await.unwrap();
        (totals.records, totals.oldest_ms)
    };
    assert_eq!(store.sweep_activity(NOW_MS + 1_050).await.unwrap(), 1_050, "more than one part");
    assert_eq!(left().await, (50, Some(NOW_MS + 1_050)));
    assert_eq!(store.trim_activity(50).await.unwrap(), 0);
    assert_eq!(store.trim_activity(20).await.unwrap(), 30);
    assert_eq!(left().await, (20, Some(NOW_MS + 1_080)));
}
