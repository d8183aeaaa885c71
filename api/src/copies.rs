//! Copies of containers, and their synchronisation with what they were copied from.

use axum::extract::{OriginalUri, State};
use gantry_control::{Error, Leaf, NewCopy};
use gantry_model::{
    FieldError, Phase,
    container::ContainerName,
    id::kind::{self, Project, Server},
    ssh::SshPublicKey,
};

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    containers::{WAITS, wait},
    fields::{Field, Holds},
    kvm,
    problem::{Kind, Problem},
    surface::{Method, Operation, Surface},
    wire,
};

const TAG: &str = "Containers";

const KVM: [Field; 2] = kvm::FIELDS;
static COPY: [Field; 9] = [
    Field::new("target_project_id", Holds::Id, "The project that the copy belongs to").required(),
    Field::new("target_server_id", Holds::Id, "The server of the copy; the source's when absent")
        .nullable(),
    Field::new("name", Holds::Text { min: 3, max: 100 }, "Its name, unique in the project")
        .nullable(),
    Field::new(
        "ssh_public_key",
        Holds::Text { min: 1, max: 16_384 },
        "One OpenSSH public key line; never inherited from the source",
    )
    .nullable(),
    Field::new(
        "source_snapshot",
        Holds::Text { min: 1, max: 120 },
        "The name of a snapshot of the source; its present state if absent",
    )
    .nullable(),
    Field::new("copy_firewall_rules", Holds::Flag, "Whether its firewall rules are copied"),
    Field::new("copy_network_rules", Holds::Flag, "Whether its outbound network is copied"),
    KVM[0],
    KVM[1],
];
static NO_FIELDS: [Field; 0] = [];

pub(crate) fn surface(surface: Surface) -> Surface {
    surface
        .serve(
            &[Method::Post],
            &["/api/v1/containers/{id}/copy"],
            copy,
            &Operation::new(
                "copyContainer",
                TAG,
                "Makes a container with the files of another one or of a snapshot, and starts it",
            )
            .params(&WAITS)
            .takes(&COPY)
            .answers::<wire::Container>(201),
        )
        .serve(
            &[Method::Post],
            &["/api/v1/containers/{id}/sync"],
            sync,
            &Operation::new("syncContainer", TAG, "Gives a copy the files that its source has now")
                .params(&WAITS)
                .takes(&NO_FIELDS)
                .answers::<wire::Synced>(200),
        )
}

async fn copy(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    OriginalUri(uri): OriginalUri,
    body: JsonObject,
) -> Result<Answer<wire::Container>, Problem> {
    let wait = wait(&uri)?;
    let mut fields = body.fields(&COPY);
    let firewall = fields.flag("copy_firewall_rules").value().unwrap_or(false);
    let network = fields.flag("copy_network_rules").value().unwrap_or(false);
    let new = NewCopy {
        target_project_id: fields
            .id::<Project>("target_project_id")
            .value()
            .map(|id| id.to_string()),
        target_server_id: fields.id::<Server>("target_server_id").value().map(|id| id.to_string()),
        name: fields.checked("name", name_or_random).value(),
        ssh_public_key: fields.checked("ssh_public_key", key).value(),
        source_snapshot: fields.text("source_snapshot").value(),
        kvm: kvm::read(&mut fields).unwrap_or(false),
        copy_firewall_rules: firewall,
        copy_network_rules: network,
    };
    let new = fields.finish(Some(new))?;
    if wait.is_some() {
        // Looked at before anything is made: waiting shows the container.
        actor.require(Leaf::ContainersRead).map_err(Error::from)?;
    }
    let mut view = front.control.copy_container(&actor, id, new).await?;
    if let Some((condition, timeout)) = wait {
        let copied = view.record.id;
        let waited = front.control.wait_for(&actor, copied, condition, timeout).await?;
        view = waited.container.unwrap_or(view);
    }
    let container = wire::Container::new(&view, front.urls(), wire::Include::default());
    Ok(Answer::created(
        "The container is being copied",
        container.into_copy(&view.record, firewall, network),
    ))
}

async fn sync(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    OriginalUri(uri): OriginalUri,
    body: JsonObject,
) -> Result<Answer<wire::Synced>, Problem> {
    body.expect_none()?;
    let timeout = wait(&uri)?.map(|(_, timeout)| timeout);
    let (view, done) = front.control.sync_container(&actor, id, timeout).await?;
    let status = &view.record.status;
    if timeout.is_some() && !done && status.phase == Phase::Failed {
        let why = status.why.as_deref().unwrap_or("no reason is known");
        let message = format!("The container was not synchronised: {why}");
        return Err(Problem::new(Kind::OperationFailed, message));
    }
    let message = if done { "Container synchronised successfully" } else { "Synchronising" };
    Ok(Answer::ok(message, wire::Synced::new(&view.record)))
}

fn name_or_random(field: &str, text: &str) -> Result<(), FieldError> {
    if text == "rand" { Ok(()) } else { ContainerName::parse(field, text).map(drop) }
}

fn key(field: &str, text: &str) -> Result<(), FieldError> {
    SshPublicKey::parse(field, text).map(drop)
}
