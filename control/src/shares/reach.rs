//! Which shares a container is to have, under which names: a pure function of the records.

use std::collections::HashSet;

use gantry_model::{ServerId, ShareId, share::MOUNT_DIR};
use gantry_runtime::{Share as Mounted, ShareFault};
use gantry_store::{Incoming, Share, ShareTarget};

use super::is_there;

/// Why a share is missing though its two sides could have it.
const NOT_RIGHTFUL: &str =
    "who made it may no longer change both the source container and what receives it";
const OTHER_SERVER: &str = "the source container is on another server";

/// What a container is to have.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    /// For the runtime.
    pub(crate) wanted: Vec<Mounted>,
    /// What cannot be, and why.
    pub(crate) failures: Vec<(ShareId, String)>,
    /// Where each of both is found, or would be.
    pub(crate) mounts: Vec<(ShareId, String)>,
}

/// What a container on this server is to have of the shares that reach it, oldest first.
pub(crate) fn reached(incoming: &[Incoming], server: ServerId, now_ms: i64) -> Reached {
    let is_on =
        |share: &Share| share.enabled && share.expires_at_ms.is_none_or(|at_ms| at_ms > now_ms);
    let on: Vec<&Incoming> = incoming.iter().filter(|i| i.is_wanted && is_on(&i.share)).collect();
    let direct: HashSet<_> = on
        .iter()
        .filter(|i| matches!(i.share.target, ShareTarget::Container(_)))
        .map(|i| (i.share.source, &i.share.path))
        .collect();
    // What comes directly and by the project as well comes directly.
    let meant: Vec<&Incoming> = on
        .iter()
        .filter(|i| match i.share.target {
            ShareTarget::Container(_) => true,
            ShareTarget::Project(_) => !direct.contains(&(i.share.source, &i.share.path)),
        })
        .copied()
        .collect();
    let mut reached = Reached::default();
    let shares: Vec<&Share> = meant.iter().map(|i| &i.share).collect();
    for (incoming, name) in meant.iter().zip(names(&shares)) {
        let share = &incoming.share;
        reached.mounts.push((share.id, format!("{MOUNT_DIR}/{name}")));
        let why = if !incoming.is_rightful {
            Some(NOT_RIGHTFUL.to_owned())
        } else if incoming.source_server != server {
            Some(OTHER_SERVER.to_owned())
        } else if !is_there(incoming.source_phase) {
            Some(ShareFault::SourceNotRunning.to_string())
        } else {
            None
        };
        match why {
            Some(why) => reached.failures.push((share.id, why)),
            None => reached.wanted.push(Mounted {
                id: share.id,
                name,
                source: share.source,
                path: share.path.clone(),
                mode: share.mode,
            }),
        }
    }
    reached
}

/// A name for each share: its alias, its id without one, and both where an older one has the alias.
fn names(shares: &[&Share]) -> Vec<String> {
    let bare = shares.iter().filter(|share| share.alias.is_none());
    let mut taken: HashSet<String> = bare.map(|share| share.id.to_string()).collect();
    let mut name = |share: &&Share| {
        let id = share.id.to_string();
        let Some(alias) = &share.alias else { return id };
        let alias = alias.as_str();
        // Owners choose aliases, and may choose those that are made here.
        let numbered = (2..).map(|number: u64| format!("{alias}-{id}-{number}"));
        let mut candidates =
            [alias.to_owned(), format!("{alias}-{id}")].into_iter().chain(numbered);
        candidates.find(|name| taken.insert(name.clone())).unwrap_or(id)
    };
    shares.iter().map(&mut name).collect()
}

#[cfg(test)]
mod tests {
    use gantry_model::{
        ContainerId, Id, Phase,
        share::{ShareMode, ShareName, SharePath},
    };
    use gantry_store::Version;

    use super::*;

    fn id<K>(n: u8) -> Id<K> {
        Id::from_bytes([n; 12])
    }

    fn incoming(n: u8, source: u8, path: &str, alias: Option<&str>) -> Incoming {
        let share = Share {
            id: id(n),
            owner: id(1),
            project: id(1),
            source: id(source),
            path: SharePath::parse("path", path).unwrap(),
            target: ShareTarget::Container(id(99)),
            mode: ShareMode::ReadOnly,
            alias: alias.map(|alias| ShareName::parse("alias", alias).unwrap()),
            label: None,
            description: None,
            enabled: true,
            expires_at_ms: None,
            expiry_notified: false,
            created_by: id(1),
            failure: None,
            version: Version::FIRST,
            created_at_ms: i64::from(n),
            updated_at_ms: i64::from(n),
        };
        Incoming {
            share,
            source_phase: Phase::Running,
            source_server: id(1),
            is_rightful: true,
            is_wanted: true,
            failure: None,
        }
    }

    fn mounted(all: &[Incoming]) -> Vec<(u8, String)> {
        let reached = reached(all, id(1), 1000);
        reached.wanted.iter().map(|share| (share.id.as_bytes()[0], share.name.clone())).collect()
    }

    #[test]
    fn names_are_aliases_where_these_are_free() {
        let two: ShareId = id(2);
        let long = format!("web-{two}");
        let all = [
            incoming(1, 50, "/a", Some("web")),
            incoming(2, 50, "/b", Some("web")),
            incoming(3, 50, "/c", None),
            // Chosen to stand where the second one would.
            incoming(4, 50, "/d", Some(&long)),
        ];
        let three: ShareId = id(3);
        let four: ShareId = id(4);
        let want = [
            (1, "web".to_owned()),
            (2, long.clone()),
            (3, three.to_string()),
            (4, format!("{long}-{four}")),
        ];
        assert_eq!(mounted(&all), want);
    }

    #[test]
    fn what_is_off_ended_unwanted_or_doubled_is_not_there() {
        let mut all = [
            incoming(1, 50, "/a", None),
            incoming(2, 50, "/b", None),
            incoming(3, 50, "/c", None),
            incoming(4, 50, "/d", None),
            incoming(5, 50, "/d", None),
            incoming(6, 51, "/d", None),
        ];
        all[0].share.enabled = false;
        all[1].share.expires_at_ms = Some(1000);
        all[2].is_wanted = false;
        for project in [3, 5] {
            all[project].share.target = ShareTarget::Project(id(7));
        }
        let numbers: Vec<u8> = mounted(&all).into_iter().map(|(n, _)| n).collect();
        assert_eq!(numbers, [5, 6]);
    }

    #[test]
    fn what_cannot_be_says_why() {
        let mut all = [
            incoming(1, 50, "/a", None),
            incoming(2, 50, "/b", None),
            incoming(3, 50, "/c", None),
            incoming(4, 50, "/d", None),
        ];
        all[0].is_rightful = false;
        all[1].source_server = id(2);
        all[2].source_phase = Phase::Stopping;
        all[3].source_phase = Phase::Paused;
        let reached = reached(&all, id(1), 1000);
        let failed: Vec<(u8, &str)> =
            reached.failures.iter().map(|(id, why)| (id.as_bytes()[0], why.as_str())).collect();
        let stopped = "the source container is not running";
        assert_eq!(failed, [(1, NOT_RIGHTFUL), (2, OTHER_SERVER), (3, stopped)]);
        let source: ContainerId = id(50);
        assert_eq!(reached.wanted.iter().map(|share| share.source).collect::<Vec<_>>(), [source]);
    }
}
