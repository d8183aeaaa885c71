//! The bodies that make and change a container.

use std::collections::BTreeMap;

use gantry_control::{ContainerChange, NewContainer};
use gantry_model::{
    FieldError,
    container::{Color, Comment, ContainerName, Environment, ImageName, RamdiskScope},
    ssh::SshPublicKey,
};

use crate::{
    body::JsonObject,
    fields::{Field, Fields, Holds},
    kvm,
    problem::Problem,
};

const NAME: Field = Field::new(
    "name",
    Holds::Text { min: 3, max: 100 },
    "Letters, digits, hyphens and underscores, unique in the project",
);
const COLOR: Field = Field::new("color", Holds::Text { min: 3, max: 7 }, "#RGB or #RRGGBB");
const IMAGE: Field =
    Field::new("container_image", Holds::Text { min: 1, max: 255 }, "<os>/<release>");
const SERVER: Field = Field::new("server_id", Holds::Id, "The server that it runs on");
const KIT: Field = Field::new("hoody_kit", Holds::Flag, "Whether the Kit services are installed");
const DEV_KIT: Field =
    Field::new("dev_kit", Holds::Flag, "Whether the developer services are; as hoody_kit");
const AI: Field = Field::new("ai", Holds::Flag, "Whether AI features are on");
const AUTOSTART: Field =
    Field::new("autostart", Holds::Flag, "Whether it starts after a reboot of the host");
const RAMDISK: Field = Field::new("ramdisk", Holds::Flag, "Whether /ramdisk is mounted");
const NEW_SCOPE: Field = Field::new(
    "ramdisk_scope",
    Holds::Word(&["container", "project"]),
    "Only container; an update makes it project",
);
const SCOPE: Field = Field::new(
    "ramdisk_scope",
    Holds::Word(&["container", "project"]),
    "With project, /ramdisk/project is shared by the containers of the project on the same server that \
     say so; while the container is stopped, and where the project has no members besides its owner",
);
const ENVIRONMENT: Field = Field::new(
    "environment_vars",
    Holds::TextMap,
    "At most 256 variables; names of letters, digits and underscores, not HOODY_…; values of 1 to \
     4096 octets",
);
const KEY: Field = Field::new(
    "ssh_public_key",
    Holds::Text { min: 1, max: 16_384 },
    "One OpenSSH public key line, unique across all containers",
)
.nullable();
const FORWARDING: Field = Field::new(
    "ssh_forwarding",
    Holds::Flag,
    "Whether SSH may carry connections (-L, -R, -D, -W, -J) besides sessions; at once, and what is open ends",
);
const COMMENT: Field =
    Field::new("comment", Holds::Text { min: 0, max: 16_000 }, "The owner's note").nullable();
const REALMS: Field =
    Field::new("realm_ids", Holds::Ids, "The realms that it is visible in, at most 64");

const KVM: [Field; 2] = kvm::FIELDS;

pub(super) static CREATE: [Field; 21] = [
    SERVER.required(),
    NAME,
    COLOR,
    IMAGE.nullable(),
    AI,
    ENVIRONMENT,
    KEY,
    FORWARDING,
    COMMENT,
    KIT,
    DEV_KIT,
    AUTOSTART,
    RAMDISK,
    NEW_SCOPE,
    Field::new("cache", Holds::Flag, "Whether an image built earlier may be used"),
    Field::new("cache_image", Holds::Flag, "Only false is offered yet"),
    Field::new(
        "prespawn",
        Holds::Flag,
        "Makes a container for later: it runs in the warm pool, hidden, until a creation with the same \
         server, image, kit, ramdisk and kvm claims it and answers running; another one takes its place",
    ),
    Field::new(
        "bypass_prespawn",
        Holds::Flag,
        "Whether none that waits in the warm pool is claimed",
    ),
    KVM[0],
    KVM[1],
    REALMS,
];

pub(super) static CHANGE: [Field; 17] = [
    NAME,
    COLOR,
    AI,
    ENVIRONMENT,
    KEY,
    FORWARDING,
    COMMENT,
    AUTOSTART,
    RAMDISK,
    SCOPE,
    REALMS,
    Field::new("container_image", Holds::Text { min: 1, max: 255 }, "Never changes"),
    Field::new("hoody_kit", Holds::Flag, "Never changes"),
    Field::new("dev_kit", Holds::Flag, "Never changes"),
    Field::new("server_id", Holds::Id, "Never changes"),
    Field::new("kvm", Holds::Flag, "Changes only by PUT /api/v1/containers/{id}/kvm"),
    Field::new("dev_kvm", Holds::Flag, "The same"),
];

/// Reads the body of a creation; every mistake at once.
pub(super) fn create(body: JsonObject) -> Result<NewContainer, Problem> {
    let mut fields = body.fields(&CREATE);
    fields.only("cache_image", false);
    if fields.word("ramdisk_scope", RamdiskScope::from_word).value() == Some(RamdiskScope::Project)
    {
        let rule = "must be \"container\" for a new container; stop it and update it to share more";
        fields.refuse_all([FieldError::new("ramdisk_scope", rule)]);
    }
    let server_id = fields.id::<gantry_model::id::kind::Server>("server_id").value();
    let new = NewContainer {
        server_id: server_id.map(|id| id.to_string()),
        name: fields.checked("name", name_or_random).value(),
        color: fields.checked("color", color).value(),
        container_image: fields.checked("container_image", image).value(),
        ssh_public_key: fields.checked("ssh_public_key", key).value(),
        ssh_forwarding: fields.flag("ssh_forwarding").value(),
        comment: fields.checked("comment", comment).value(),
        hoody_kit: fields.flag("hoody_kit").value(),
        dev_kit: fields.flag("dev_kit").value(),
        ai: fields.flag("ai").value(),
        autostart: fields.flag("autostart").value(),
        ramdisk: fields.flag("ramdisk").value(),
        cache: fields.flag("cache").value(),
        prespawn: fields.flag("prespawn").value(),
        bypass_prespawn: fields.flag("bypass_prespawn").value(),
        kvm: kvm::read(&mut fields),
        environment_vars: environment(&mut fields).unwrap_or_default(),
        realm_ids: fields.realms("realm_ids").value().unwrap_or_default(),
    };
    fields.finish(Some(new))
}

/// Reads the body of a change; every mistake at once.
pub(super) fn change(body: JsonObject) -> Result<ContainerChange, Problem> {
    let mut fields = body.fields(&CHANGE);
    let server_id = fields.id::<gantry_model::id::kind::Server>("server_id").value();
    let change = ContainerChange {
        name: fields.checked("name", name).value(),
        environment_vars: environment(&mut fields),
        ramdisk: fields.flag("ramdisk").value(),
        ramdisk_scope: fields.word("ramdisk_scope", RamdiskScope::from_word).value(),
        color: fields.checked("color", color).value(),
        comment: fields.checked("comment", comment).patch(),
        ssh_public_key: fields.checked("ssh_public_key", key).patch(),
        ssh_forwarding: fields.flag("ssh_forwarding").value(),
        realm_ids: fields.realms("realm_ids").value(),
        autostart: fields.flag("autostart").value(),
        ai: fields.flag("ai").value(),
        container_image: fields.text("container_image").value(),
        hoody_kit: fields.flag("hoody_kit").value(),
        dev_kit: fields.flag("dev_kit").value(),
        kvm: kvm::read(&mut fields),
        server_id: server_id.map(|id| id.to_string()),
    };
    fields.finish(Some(change))
}

fn environment(fields: &mut Fields) -> Option<BTreeMap<String, String>> {
    let vars = fields.text_map("environment_vars").value()?;
    match Environment::parse("environment_vars", vars) {
        Ok(environment) => Some(environment.vars().clone()),
        Err(errors) => {
            fields.refuse_all(errors);
            None
        }
    }
}

fn name_or_random(field: &str, text: &str) -> Result<(), FieldError> {
    if text == "rand" { Ok(()) } else { name(field, text) }
}

fn name(field: &str, text: &str) -> Result<(), FieldError> {
    ContainerName::parse(field, text).map(drop)
}

fn color(field: &str, text: &str) -> Result<(), FieldError> {
    Color::parse(field, text).map(drop)
}

fn image(field: &str, text: &str) -> Result<(), FieldError> {
    ImageName::parse(field, text).map(drop)
}

fn key(field: &str, text: &str) -> Result<(), FieldError> {
    SshPublicKey::parse(field, text).map(drop)
}

fn comment(field: &str, text: &str) -> Result<(), FieldError> {
    Comment::parse(field, text).map(drop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;
    use crate::problem::Kind;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[0-9a-f]{24}".prop_map(Value::from),
            "#?[0-9a-fA-F]{3}([0-9a-fA-F]{3})?".prop_map(Value::from),
            "[a-z]{1,8}[/:-][0-9.]{1,5}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| map.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    fn object(table: &'static [Field]) -> impl Strategy<Value = Map<String, Value>> {
        let name = prop_oneof![
            9 => prop::sample::select(table).prop_map(|field| field.name.to_owned()),
            1 => any::<String>(),
        ];
        prop::collection::vec((name, json()), 0..12).prop_map(|pairs| pairs.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever a client sends is read or refused, and refused means a kind that says so.
        #[test]
        fn any_object_is_read_or_refused(
            new in object(&CREATE),
            changed in object(&CHANGE),
        ) {
            let without_server = !new.contains_key("server_id");
            match create(JsonObject::from(new)) {
                Ok(new) => prop_assert!(new.server_id.is_some()),
                Err(problem) => {
                    let kind = problem.kind();
                    prop_assert!(matches!(kind, Kind::Invalid | Kind::NotImplemented), "{kind:?}");
                    prop_assert!(!without_server || kind == Kind::Invalid);
                }
            }
            if let Err(problem) = change(JsonObject::from(changed)) {
                let kind = problem.kind();
                prop_assert!(matches!(kind, Kind::Invalid | Kind::NotImplemented), "{kind:?}");
            }
        }
    }
}
