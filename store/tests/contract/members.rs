//! Members of projects.

use gantry_model::project::Level;
use gantry_store::{AliasFilter, Error, Member, MemberSort, Page, ProjectSort};

use super::fixture::{ALL, EVERY, NOW_MS, World, id, user};

const PAGE: Page<MemberSort> =
    Page { page: 1, limit: 10, sort: MemberSort::CreatedAt, descending: false };

async fn member(world: &World, name: &str, level: Level) -> Member {
    let user = user(name);
    world.store.create_user(&user).await.unwrap();
    Member {
        id: id(),
        project: world.project.id,
        user: user.id,
        username: user.username,
        level,
        created_at_ms: NOW_MS,
        updated_at_ms: NOW_MS,
    }
}

pub(crate) async fn a_member_is_stored_as_given_once_and_up_to_the_limit(world: &World) {
    let store = &world.store;
    let one = member(world, "one", Level::Read).await;
    store.add_member(&one, 2).await.unwrap();
    assert_eq!(store.member(one.project, one.id).await.unwrap(), Some(one.clone()));
    assert_eq!(store.member(id(), one.id).await.unwrap(), None);
    let again = store.add_member(&Member { id: id(), ..one.clone() }, 2).await;
    assert!(matches!(again, Err(Error::MemberExists)), "{again:?}");
    let nobody = store.add_member(&Member { user: id(), id: id(), ..one.clone() }, 2).await;
    assert!(matches!(nobody, Err(Error::NotFound)), "{nobody:?}");
    let nowhere = store.add_member(&Member { project: id(), id: id(), ..one.clone() }, 2).await;
    assert!(matches!(nowhere, Err(Error::ProjectGone)), "{nowhere:?}");
    let two = member(world, "two", Level::Delete).await;
    store.add_member(&two, 2).await.unwrap();
    let three = member(world, "three", Level::Read).await;
    let over = store.add_member(&three, 2).await;
    assert!(matches!(over, Err(Error::MemberLimit { max: 2 })), "{over:?}");
    let listed = store.members(one.project, PAGE).await.unwrap();
    assert_eq!((listed.items.len(), listed.total), (2, 2));

    let changed = Member { level: Level::Edit, updated_at_ms: NOW_MS + 1, ..one.clone() };
    store.set_member(&changed).await.unwrap();
    assert_eq!(store.member_level(one.project, one.user).await.unwrap(), Some(Level::Edit));
    store.remove_member(&one, NOW_MS).await.unwrap();
    assert_eq!(store.member_level(one.project, one.user).await.unwrap(), None);
    for gone in [store.remove_member(&one, NOW_MS).await, store.set_member(&one).await] {
        assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
    }
    store.delete_project(world.project.id, NOW_MS).await.unwrap();
    assert_eq!(store.member_level(two.project, two.user).await.unwrap(), None);
}

pub(crate) async fn lists_hold_what_a_member_sees(world: &World) {
    let store = &world.store;
    world.create("box").await;
    let one = member(world, "one", Level::Read).await;
    let page = Page { page: 1, limit: 10, sort: ProjectSort::Id, descending: false };
    let aliases = AliasFilter { seen_by: Some(one.user), ..AliasFilter::default() };
    for seen in [0, 1] {
        let filter = gantry_store::ContainerFilter { seen_by: Some(one.user), ..EVERY };
        assert_eq!(store.containers(filter, ALL).await.unwrap().total, seen);
        let projects = store.projects(Some(one.user), None, page).await.unwrap();
        assert_eq!(projects.total, seen);
        assert_eq!(store.aliases(aliases, 10).await.unwrap(), []);
        if seen == 0 {
            store.add_member(&one, 2).await.unwrap();
        }
    }
}
