//! Members of projects.

use gantry_model::{ContainerSpec, container::RamdiskScope, project::Level};
use gantry_store::{
    AliasFilter, Container, Error, Granter, Member, MemberMax, MemberSort, Page, ProjectSort,
};

use super::fixture::{ALL, EVERY, NOW_MS, World, id, project, user};

const PAGE: Page<MemberSort> =
    Page { page: 1, limit: 10, sort: MemberSort::CreatedAt, descending: false };

/// Two members of a project, and two projects of a member.
const MAX: MemberMax = MemberMax { project: 2, user: 2 };

/// The owner, of whom no level is wanted.
fn owner(world: &World) -> Granter {
    Granter { user: world.owner.id, needs: None }
}

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
    let (store, by) = (&world.store, owner(world));
    let one = member(world, "one", Level::Read).await;
    store.add_member(&one, MAX, by).await.unwrap();
    assert_eq!(store.member(one.project, one.id).await.unwrap(), Some(one.clone()));
    assert_eq!(store.member(id(), one.id).await.unwrap(), None);
    let again = store.add_member(&Member { id: id(), ..one.clone() }, MAX, by).await;
    assert!(matches!(again, Err(Error::MemberExists)), "{again:?}");
    let nobody = store.add_member(&Member { user: id(), id: id(), ..one.clone() }, MAX, by).await;
    assert!(matches!(nobody, Err(Error::NotFound)), "{nobody:?}");
    let nowhere =
        store.add_member(&Member { project: id(), id: id(), ..one.clone() }, MAX, by).await;
    assert!(matches!(nowhere, Err(Error::ProjectGone)), "{nowhere:?}");
    let two = member(world, "two", Level::Delete).await;
    store.add_member(&two, MAX, by).await.unwrap();
    let three = member(world, "three", Level::Read).await;
    let over = store.add_member(&three, MAX, by).await;
    assert!(matches!(over, Err(Error::MemberLimit { max: 2 })), "{over:?}");
    let listed = store.members(one.project, PAGE).await.unwrap();
    assert_eq!((listed.items.len(), listed.total), (2, 2));

    let changed = Member { level: Level::Edit, updated_at_ms: NOW_MS + 1, ..one.clone() };
    store.set_member(&changed, Level::Read, by).await.unwrap();
    assert_eq!(store.member_level(one.project, one.user).await.unwrap(), Some(Level::Edit));
    store.remove_member(&changed, by, NOW_MS).await.unwrap();
    assert_eq!(store.member_level(one.project, one.user).await.unwrap(), None);
    let gone = store.set_member(&one, Level::Read, by).await;
    for gone in [store.remove_member(&one, by, NOW_MS).await, gone] {
        assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
    }
    store.delete_project(world.project.id, NOW_MS).await.unwrap();
    assert_eq!(store.member_level(two.project, two.user).await.unwrap(), None);
}

pub(crate) async fn lists_hold_what_a_member_sees(world: &World) {
    let (store, by) = (&world.store, owner(world));
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
            store.add_member(&one, MAX, by).await.unwrap();
        }
    }
}

pub(crate) async fn a_user_is_a_member_of_so_many_projects(world: &World) {
    let (store, by) = (&world.store, owner(world));
    let one = member(world, "one", Level::Read).await;
    for alias in ["second", "third"] {
        let other = project(&world.owner, alias);
        store.create_project(&other).await.unwrap();
        let there = Member { id: id(), project: other.id, ..one.clone() };
        store.add_member(&there, MAX, by).await.unwrap();
    }
    let over = store.add_member(&one, MAX, by).await;
    assert!(matches!(over, Err(Error::MembershipLimit { max: 2 })), "{over:?}");
    store.add_member(&one, MemberMax { user: 3, ..MAX }, by).await.unwrap();
    assert_eq!(store.first_members(one.project, 0).await.unwrap(), []);
    assert_eq!(store.first_members(one.project, 9).await.unwrap(), [one]);
}

pub(crate) async fn a_write_about_a_member_holds_for_what_is_so_at_that_moment_only(world: &World) {
    let (store, by) = (&world.store, owner(world));
    let boss = member(world, "boss", Level::Edit).await;
    let other = member(world, "other", Level::Read).await;
    let stale = |result| assert!(matches!(result, Err(Error::Stale)), "{result:?}");
    // The granter is no member (any more), or none of that level.
    let as_boss = |needs| Granter { user: boss.user, needs: Some(needs) };
    stale(store.add_member(&other, MAX, as_boss(Level::Edit)).await);
    store.add_member(&boss, MAX, by).await.unwrap();
    stale(store.add_member(&other, MAX, as_boss(Level::Delete)).await);
    store.add_member(&other, MAX, as_boss(Level::Edit)).await.unwrap();
    let strong = Member { level: Level::Delete, ..other.clone() };
    stale(store.set_member(&strong, Level::Read, as_boss(Level::Delete)).await);
    // The owner has raised the member since the granter looked at it.
    store.set_member(&strong, Level::Read, by).await.unwrap();
    let back = Member { level: Level::Edit, ..other.clone() };
    stale(store.set_member(&back, Level::Read, as_boss(Level::Edit)).await);
    stale(store.remove_member(&other, as_boss(Level::Edit), NOW_MS).await);
    assert_eq!(store.member(other.project, other.id).await.unwrap(), Some(strong.clone()));
    store.remove_member(&strong, by, NOW_MS).await.unwrap();
}

pub(crate) async fn memory_is_shared_only_where_there_are_no_members(world: &World) {
    let (store, by) = (&world.store, owner(world));
    let made = world.create("box").await;
    let shared =
        |of: &Container| ContainerSpec { ramdisk_scope: RamdiskScope::Project, ..of.spec.clone() };
    let one = member(world, "one", Level::Read).await;
    store.add_member(&one, MAX, by).await.unwrap();
    let refused = store.update_spec(made.id, made.version, &shared(&made), NOW_MS).await;
    assert!(matches!(refused, Err(Error::MembersPresent)), "{refused:?}");
    store.remove_member(&one, by, NOW_MS).await.unwrap();
    let sharing = store.update_spec(made.id, made.version, &shared(&made), NOW_MS).await.unwrap();
    assert_eq!(sharing.spec.ramdisk_scope, RamdiskScope::Project);
    let refused = store.add_member(&one, MAX, by).await;
    assert!(matches!(refused, Err(Error::RamdiskShared)), "{refused:?}");
    let own = ContainerSpec { ramdisk_scope: RamdiskScope::Container, ..sharing.spec.clone() };
    store.update_spec(made.id, sharing.version, &own, NOW_MS).await.unwrap();
    store.add_member(&one, MAX, by).await.unwrap();
}
