//! From rows to shares, and from filters to conditions.

use gantry_model::share::{ShareMode, ShareName, SharePath};

use super::{Incoming, Share, ShareFilter, ShareMount, ShareTarget};
use crate::{
    columns::{self, damaged},
    error::Result,
    listing,
    record::Version,
    sqlite::{Db, Row},
};

/// Adds the conditions of a filter.
pub(super) fn push_filter(query: &mut sqlx::QueryBuilder<Db>, filter: ShareFilter) {
    let ShareFilter {
        seen_by,
        received_by,
        source,
        received_in,
        realm,
        target_kind,
        label,
        enabled,
        has_failed,
        alive_at_ms,
    } = filter;
    if let Some(user) = seen_by {
        listing::push_seen_by(query.push(" AND "), "s.", "project", *user.as_bytes());
    }
    if let Some(user) = received_by {
        query.push(" AND (s.target_container IN (SELECT t.id FROM containers t WHERE ");
        listing::push_seen_by(query, "t.", "project", *user.as_bytes());
        query.push(") OR s.target_project IN (SELECT t.id FROM projects t WHERE ");
        listing::push_seen_by(query, "t.", "id", *user.as_bytes());
        query.push("))");
    }
    if let Some(source) = source {
        query.push(" AND s.source = ").push_bind(source.as_bytes().to_vec());
    }
    if let Some((container, project)) = received_in {
        query.push(" AND s.source <> ").push_bind(container.as_bytes().to_vec());
        query.push(" AND (s.target_container = ").push_bind(container.as_bytes().to_vec());
        query.push(" OR s.target_project = ").push_bind(project.as_bytes().to_vec()).push(")");
    }
    if let Some(realm) = realm {
        query.push(" AND s.source IN (SELECT container FROM container_realms WHERE realm = ");
        query.push_bind(realm.as_bytes().to_vec()).push(")");
    }
    match target_kind {
        None => {}
        Some("project") => {
            query.push(" AND s.target_project IS NOT NULL");
        }
        Some(_) => {
            query.push(" AND s.target_container IS NOT NULL");
        }
    }
    if let Some(label) = label {
        query.push(" AND s.label = ").push_bind(label);
    }
    if let Some(enabled) = enabled {
        query.push(" AND s.enabled = ").push_bind(enabled);
    }
    if let Some(has_failed) = has_failed {
        query.push(if has_failed {
            " AND m.failure IS NOT NULL"
        } else {
            " AND m.failure IS NULL"
        });
    }
    if let Some(now_ms) = alive_at_ms {
        query.push(" AND (s.expires_at_ms IS NULL OR s.expires_at_ms > ");
        query.push_bind(now_ms).push(")");
    }
}

/// Reads a row of `shares` with its first failure.
pub(super) fn share(row: &Row) -> Result<Share> {
    let id = columns::id(row, "id")?;
    let read = || -> Result<Share> {
        let text = |column| columns::get::<Option<String>>(row, column);
        let name = |column: &'static str| -> Result<Option<ShareName>> {
            let name = text(column)?.map(|text| ShareName::parse(column, &text)).transpose();
            name.map_err(|_error| damaged(column, "is no name"))
        };
        let target = match columns::optional_id(row, "target_container")? {
            Some(container) => ShareTarget::Container(container),
            None => ShareTarget::Project(columns::id(row, "target_project")?),
        };
        let path: String = columns::get(row, "source_path")?;
        let failed_in = columns::optional_id(row, "failed_in")?;
        Ok(Share {
            id,
            owner: columns::id(row, "owner")?,
            project: columns::id(row, "project")?,
            source: columns::id(row, "source")?,
            path: SharePath::parse("source_path", &path)
                .map_err(|_error| damaged("source_path", "is no path"))?,
            target,
            mode: ShareMode::from_word(columns::get(row, "mode")?)
                .ok_or_else(|| damaged("mode", "is no mode"))?,
            alias: name("alias")?,
            label: name("label")?,
            description: text("description")?,
            enabled: columns::get(row, "enabled")?,
            expires_at_ms: columns::get(row, "expires_at_ms")?,
            expiry_notified: columns::get(row, "expiry_notified")?,
            created_by: columns::id(row, "created_by")?,
            failure: failed_in.zip(text("failure")?),
            version: Version(columns::count(row, "version")?),
            created_at_ms: columns::get(row, "created_at_ms")?,
            updated_at_ms: columns::get(row, "updated_at_ms")?,
        })
    };
    read().map_err(columns::of("share", id))
}

/// Reads a share as one that reaches a container.
pub(super) fn incoming(row: &Row) -> Result<Incoming> {
    Ok(Incoming {
        share: share(row)?,
        source_phase: columns::phase(row, "source_phase")?,
        source_server: columns::id(row, "source_server")?,
        is_rightful: columns::get(row, "is_rightful")?,
        is_wanted: columns::get::<Option<bool>>(row, "is_wanted")?.unwrap_or(true),
        failure: columns::get(row, "failure_here")?,
    })
}

/// Reads a row of `share_mounts`.
pub(super) fn mount(row: &Row) -> Result<ShareMount> {
    Ok(ShareMount {
        id: columns::id(row, "id")?,
        share: columns::id(row, "share")?,
        container: columns::id(row, "container")?,
        is_wanted: columns::get(row, "is_wanted")?,
        created_at_ms: columns::get(row, "created_at_ms")?,
        updated_at_ms: columns::get(row, "updated_at_ms")?,
    })
}
