//! The vault: what users put away, sealed at rest.

use axum::extract::{OriginalUri, State};
use gantry_control::{METADATA_MAX, VALUE_MAX, VaultWrite};
use gantry_model::RealmId;
use http::Uri;

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::Caller,
    fields::{Field, Holds},
    problem::Problem,
    proxy::Segments,
    query::{Param, Query, REALM},
    surface::{Method, Operation, Surface, UPDATE},
    wire,
};

const TAG: &str = "Vault";

static ONE: [Param; 1] =
    [Param { about: "The realm of the key, as the realm's host says it; none if absent", ..REALM }];
static ALL: [Param; 1] =
    [Param { about: "Only what is of this realm; everything if absent", ..REALM }];
static WRITE: [Field; 2] = [
    Field::new(
        "value",
        Holds::Text { min: 0, max: VALUE_MAX },
        "What to put away; required for a new key, and that of before stays if absent",
    ),
    Field::new("metadata", Holds::Object, METADATA).nullable(),
];
const METADATA: &str = "What to say of it, at most 256 KiB of JSON; that of before stays if absent";
const _: () = assert!(METADATA_MAX == 256 * 1024, "the description says so");

pub(crate) fn surface(surface: Surface) -> Surface {
    let one = &["/api/v1/vault/keys/{key}"];
    surface
        .serve(
            &[Method::Get],
            &["/api/v1/vault/stats"],
            stats,
            &Operation::new("getVaultStats", TAG, "Tells how much the caller has put away")
                .params(&ALL)
                .answers::<wire::VaultStats>(200),
        )
        .serve(
            &[Method::Get],
            &["/api/v1/vault/keys"],
            list,
            &Operation::new("listVaultKeys", TAG, "Lists the caller's keys without their values")
                .params(&ALL)
                .answers_list::<wire::VaultKey>(200),
        )
        .serve(
            &[Method::Get],
            one,
            show,
            &Operation::new("getVaultKey", TAG, "Shows a key with its value")
                .params(&ONE)
                .answers::<wire::VaultValue>(200),
        )
        .serve(
            &UPDATE,
            one,
            write,
            &Operation::new("setVaultKey", TAG, "Puts a value away under a key, new or not")
                .params(&ONE)
                .takes(&WRITE)
                .answers::<wire::VaultKey>(200),
        )
        .serve(
            &[Method::Delete],
            one,
            delete,
            &Operation::new("deleteVaultKey", TAG, "Removes a key and its value").params(&ONE),
        )
        .serve(
            &[Method::Delete],
            &["/api/v1/vault"],
            clear,
            &Operation::new("clearVault", TAG, "Removes every key of the caller")
                .params(&ALL)
                .answers::<wire::ClearedVault>(200),
        )
}

/// The realm that is asked for. Other parameters are refused: a misspelt one would mean another key.
fn realm(uri: &Uri, table: &'static [Param]) -> Result<Option<RealmId>, Problem> {
    let mut query = Query::new(uri, table);
    query.refuse_unknown();
    let realm = query.id_of_any_case(REALM.name);
    query.finish()?;
    Ok(realm)
}

async fn stats(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::VaultStats>, Problem> {
    let stats = front.control.vault_stats(&actor, realm(&uri, &ALL)?).await?;
    Ok(Answer::ok("Vault statistics retrieved successfully", wire::VaultStats::new(stats)))
}

async fn list(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<Vec<wire::VaultKey>>, Problem> {
    let keys = front.control.vault_keys(&actor, realm(&uri, &ALL)?).await?;
    let keys = keys.into_iter().map(wire::VaultKey::new).collect();
    Ok(Answer::ok("Vault keys retrieved successfully", keys))
}

async fn show(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
    segments: Segments,
) -> Result<Answer<wire::VaultValue>, Problem> {
    let realm = realm(&uri, &ONE)?;
    let value = front.control.vault_value(&actor, realm, segments.get("key")).await?;
    Ok(Answer::ok("Vault key retrieved successfully", wire::VaultValue::new(value)))
}

async fn write(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
    segments: Segments,
    body: JsonObject,
) -> Result<Answer<wire::VaultKey>, Problem> {
    let realm = realm(&uri, &ONE)?;
    let mut fields = body.fields(&WRITE);
    let value = fields.text("value").value();
    let metadata = fields.object("metadata").patch();
    let write = fields.finish(Some(VaultWrite { value, metadata }))?;
    let key = front.control.write_vault(&actor, realm, segments.get("key"), write).await?;
    Ok(Answer::ok("Vault key stored successfully", wire::VaultKey::new(key)))
}

async fn delete(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
    segments: Segments,
) -> Result<Answer<()>, Problem> {
    let realm = realm(&uri, &ONE)?;
    front.control.delete_vault_key(&actor, realm, segments.get("key")).await?;
    Ok(Answer::ok("Vault key deleted successfully", ()))
}

async fn clear(
    State(front): State<Front>,
    Caller(actor): Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<wire::ClearedVault>, Problem> {
    let count = front.control.clear_vault(&actor, realm(&uri, &ALL)?).await?;
    Ok(Answer::ok("Vault cleared successfully", wire::ClearedVault::new(count)))
}
