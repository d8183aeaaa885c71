//! Hardware virtualisation of a container, and the two names that bodies have for it.

use axum::extract::State;
use gantry_model::{FieldError, id::kind};

use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    fields::{Field, Fields, Holds},
    problem::Problem,
    surface::{Operation, Surface, UPDATE},
    wire,
};

/// What a body may call it; both must say the same.
pub(crate) const FIELDS: [Field; 2] = [
    Field::new(
        "kvm",
        Holds::Flag,
        "Whether it has the host's /dev/kvm; 403 where the server does not offer that",
    ),
    Field::new("dev_kvm", Holds::Flag, "The same; both must say the same where both are given"),
];
static SET: [Field; 2] = FIELDS;

pub(crate) fn surface(surface: Surface) -> Surface {
    surface.serve(
        &UPDATE,
        &["/api/v1/containers/{id}/kvm"],
        set,
        &Operation::new(
            "setContainerKvm",
            "Containers",
            "Gives a stopped container the host's /dev/kvm, or takes it away",
        )
        .takes(&SET)
        .answers::<wire::KvmOfContainer>(200),
    )
}

async fn set(
    State(front): State<Front>,
    Caller(actor): Caller,
    PathId(id): PathId<kind::Container>,
    body: JsonObject,
) -> Result<Answer<wire::KvmOfContainer>, Problem> {
    let mut fields = body.fields(&SET);
    let kvm = read(&mut fields);
    if kvm.is_none() && fields.is_right() {
        fields.refuse_all([FieldError::new("kvm", "is required")]);
    }
    let kvm = fields.finish(kvm)?;
    let view = front.control.set_kvm(&actor, id, kvm).await?;
    Ok(Answer::ok("Container KVM setting updated successfully", wire::KvmOfContainer::new(&view)))
}

/// Reads both names.
pub(crate) fn read(fields: &mut Fields) -> Option<bool> {
    match (fields.flag("kvm").value(), fields.flag("dev_kvm").value()) {
        (Some(kvm), Some(dev_kvm)) if kvm != dev_kvm => {
            let rule = "must be the same as kvm, or left out";
            fields.refuse_all([FieldError::new("dev_kvm", rule)]);
            None
        }
        (kvm, dev_kvm) => kvm.or(dev_kvm),
    }
}
