//! What is signed, and the keys that it is checked with.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use gantry_control as control;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Hex, Timestamp};

/// A statement that anyone can check who has the public key.
#[derive(Serialize, ToSchema)]
pub(crate) struct Claim {
    /// Which of the public keys.
    kid: String,
    /// The statement: a JSON object in base64url without padding.
    payload_b64: String,
    /// The Ed25519 signature of the text in `payload_b64`, as 128 hexadecimal digits.
    signature_hex: String,
}

/// A claim about a container.
#[derive(Serialize, ToSchema)]
pub(crate) struct ContainerClaim {
    container_claim: Claim,
    /// How long it is good, in seconds.
    expires_in: i64,
    container_id: Hex,
    project_id: Hex,
}

/// A claim about who somebody is.
#[derive(Serialize, ToSchema)]
pub(crate) struct IdentityClaim {
    identity_claim: Claim,
    /// How long it is good, in seconds.
    expires_in: i64,
    expires_at: Timestamp,
    /// For whom it is.
    audience: String,
}

/// The keys that claims and signed answers are checked with.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PublicKeys {
    keys: Vec<PublicKey>,
    /// The key that signs now.
    active_kid: String,
    /// What is signed.
    usage: Vec<&'static str>,
    signing_format: SigningFormat,
}

/// One key in three spellings.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PublicKey {
    kid: String,
    /// Always `ed25519`.
    algorithm: &'static str,
    /// 64 hexadecimal digits.
    public_key_hex: String,
    public_key_b64: String,
    /// Without padding.
    public_key_b64url: String,
}

/// What signatures are made over.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SigningFormat {
    /// The header of a signed answer.
    header: &'static str,
    /// What stands in it.
    header_format: &'static str,
    /// What an answer's signature is made over.
    signed: &'static str,
    /// What a claim's signature is made over.
    claim_signed: &'static str,
    /// How old a signed answer may be before it should be refused, in seconds.
    replay_tolerance_seconds: i64,
}

impl IdentityClaim {
    pub(crate) fn new(claim: control::IdentityClaim) -> Self {
        let control::Claim { kid, payload_b64, signature_hex } = claim.claim;
        Self {
            identity_claim: Claim { kid, payload_b64, signature_hex },
            expires_in: claim.expires_in_secs,
            expires_at: Timestamp(claim.expires_at_ms),
            audience: claim.audience,
        }
    }
}

impl ContainerClaim {
    pub(crate) fn new(claim: control::ContainerClaim) -> Self {
        let control::Claim { kid, payload_b64, signature_hex } = claim.claim;
        Self {
            container_claim: Claim { kid, payload_b64, signature_hex },
            expires_in: claim.expires_in_secs,
            container_id: claim.container.into(),
            project_id: claim.project.into(),
        }
    }
}

impl PublicKeys {
    pub(crate) fn new(key: &control::PublicKey, signs_answers: bool) -> Self {
        let of_answers = signs_answers.then_some("response");
        Self {
            keys: vec![PublicKey {
                kid: key.kid.clone(),
                algorithm: "ed25519",
                public_key_hex: hex::encode(&key.octets),
                public_key_b64: STANDARD.encode(&key.octets),
                public_key_b64url: URL_SAFE_NO_PAD.encode(&key.octets),
            }],
            active_kid: key.kid.clone(),
            usage: std::iter::once("container_claim").chain(of_answers).collect(),
            signing_format: SigningFormat {
                header: "X-Hoody-Signature",
                header_format: "t=<unix seconds>,kid=<kid>,m=<method>,s=<status>,path=<path>,\
                                sig=<128 hexadecimal digits>",
                signed: "t \"\\n\" method \"\\n\" status \"\\n\" path \"\\n\" body",
                claim_signed: "the text of payload_b64",
                replay_tolerance_seconds: control::REPLAY_TOLERANCE_SECS,
            },
        }
    }
}
