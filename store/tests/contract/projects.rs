//! Projects.

use gantry_model::{RealmId, project::ProjectAlias};
use gantry_store::{Error, Page, ProjectSort, Version};

use super::fixture::{NOW_MS, World, id, project, user};

const ALL: Page<ProjectSort> =
    Page { page: 1, limit: 100, sort: ProjectSort::CreatedAt, descending: false };

fn aliases(listed: &gantry_store::Listed<gantry_store::Project>) -> Vec<&str> {
    listed.items.iter().map(|project| project.spec.alias.as_str()).collect()
}

pub(crate) async fn a_project_is_stored_as_given(world: &World) {
    let mut second = project(&world.owner, "second");
    second.spec.max_containers = Some(0);
    second.spec.realms = vec![RealmId::from_bytes([1; 12]), RealmId::from_bytes([2; 12])];
    world.store.create_project(&second).await.unwrap();
    assert_eq!(world.store.project(second.id).await.unwrap(), Some(second));
    assert_eq!(world.store.project(id()).await.unwrap(), None);
    let homeless = project(&user("nobody"), "homeless");
    let refused = world.store.create_project(&homeless).await.unwrap_err();
    assert!(matches!(refused, Error::NotFound), "{refused:?}");
}

pub(crate) async fn an_alias_is_unique_for_its_owner_only(world: &World) {
    let store = &world.store;
    let refused = store.create_project(&project(&world.owner, "first")).await.unwrap_err();
    assert!(matches!(refused, Error::AliasTaken), "{refused:?}");
    let other = user("other");
    store.create_user(&other).await.unwrap();
    store.create_project(&project(&other, "first")).await.unwrap();

    let mut second = project(&world.owner, "second");
    store.create_project(&second).await.unwrap();
    second.spec.alias = ProjectAlias::parse("alias", "first").unwrap();
    let refused = store.update_project(&second).await.unwrap_err();
    assert!(matches!(refused, Error::AliasTaken), "{refused:?}");
}

pub(crate) async fn projects_are_listed_by_owner_and_realm_in_pages(world: &World) {
    let store = &world.store;
    let other = user("other");
    store.create_user(&other).await.unwrap();
    let (red, blue) = (RealmId::from_bytes([1; 12]), RealmId::from_bytes([2; 12]));
    for (owner, alias, realms, after_ms) in [
        (&world.owner, "b", vec![red, blue], 1),
        (&world.owner, "a", vec![red], 2),
        (&other, "c", vec![red], 3),
    ] {
        let mut project = project(owner, alias);
        project.spec.realms = realms;
        project.created_at_ms += after_ms;
        store.create_project(&project).await.unwrap();
    }
    let mine = Some(world.owner.id);
    for (owner, realm, page, want, total) in [
        (mine, None, ALL, vec!["first", "b", "a"], 3),
        (None, None, ALL, vec!["first", "b", "a", "c"], 4),
        (mine, Some(red), ALL, vec!["b", "a"], 2),
        (None, Some(blue), ALL, vec!["b"], 1),
        (mine, Some(id()), ALL, vec![], 0),
        (mine, None, Page { sort: ProjectSort::Alias, ..ALL }, vec!["a", "b", "first"], 3),
        (None, None, Page { page: 2, limit: 3, ..ALL }, vec!["c"], 4),
        (None, None, Page { limit: 1, descending: true, ..ALL }, vec!["c"], 4),
        (mine, None, Page { page: u32::MAX, limit: u32::MAX, ..ALL }, vec![], 3),
    ] {
        let listed = store.projects(owner, realm, page).await.unwrap();
        assert_eq!(aliases(&listed), want, "{owner:?} {realm:?} {page:?}");
        assert_eq!(listed.total, total, "{owner:?} {realm:?} {page:?}");
    }
}

pub(crate) async fn an_update_of_a_project_needs_its_version(world: &World) {
    let (store, red) = (&world.store, RealmId::from_bytes([1; 12]));
    let mut wanted = world.project.clone();
    wanted.spec.alias = ProjectAlias::parse("alias", "renamed").unwrap();
    wanted.spec.max_containers = Some(3);
    wanted.spec.realms = vec![red];
    wanted.updated_at_ms = NOW_MS + 7;
    let updated = store.update_project(&wanted).await.unwrap();
    assert_eq!(updated.version, Version(2));
    wanted.version = Version(2);
    assert_eq!(updated, wanted);
    assert_eq!(store.project(wanted.id).await.unwrap(), Some(updated));
    assert_eq!(store.projects(None, Some(red), ALL).await.unwrap().total, 1);

    let refused = store.update_project(&world.project).await.unwrap_err();
    assert!(matches!(refused, Error::Stale), "{refused:?}");
    let unknown = project(&world.owner, "unknown");
    let refused = store.update_project(&unknown).await.unwrap_err();
    assert!(matches!(refused, Error::NotFound), "{refused:?}");

    wanted.spec.realms.clear();
    store.update_project(&wanted).await.unwrap();
    assert_eq!(store.projects(None, Some(red), ALL).await.unwrap().total, 0);
}

pub(crate) async fn a_project_is_deleted_only_when_empty(world: &World) {
    let store = &world.store;
    let container = world.create("one").await;
    let refused = store.delete_project(world.project.id, 9_000).await.unwrap_err();
    assert!(matches!(refused, Error::NotEmpty), "{refused:?}");
    store.remove_container(container.id, NOW_MS).await.unwrap();
    store.delete_project(world.project.id, 9_000).await.unwrap();
    let refused = store.delete_project(world.project.id, 9_000).await.unwrap_err();
    assert!(matches!(refused, Error::NotFound), "{refused:?}");
    let refused = store.create_container(&world.container("two")).await.unwrap_err();
    assert!(matches!(refused, Error::ProjectGone), "{refused:?}");
}
