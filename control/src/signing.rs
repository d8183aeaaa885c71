//! What the installation signs, so that others can check it without asking: claims, and if configured
//! every answer. Ed25519 (RFC 8032); the key is made at the first start and lies sealed in the store.

use std::ops::RangeInclusive;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gantry_model::{ContainerId, FieldError, ProjectId, project::Level};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    actor::{Actor, Via},
    controller::Controller,
    error::{Error, Forbidden, Result, Subject},
    permissions::Leaf,
};

/// How long a claim about a container is good, in seconds.
pub const CONTAINER_CLAIM_SECS: i64 = 6 * 60 * 60;
/// How old a signed answer may be before who checks it should refuse it, in seconds.
pub const REPLAY_TOLERANCE_SECS: i64 = 300;

/// How long a claim about who somebody is is good unless asked otherwise, in seconds.
const IDENTITY_CLAIM_SECS: i64 = 60 * 60;
/// How long it may be asked to be good, in seconds.
const IDENTITY_CLAIM_BOUNDS: RangeInclusive<i64> = 60..=86_400;
/// The longest audience, in octets.
const AUDIENCE_MAX: usize = 256;

/// What is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signing {
    /// Nothing; there is no key.
    Off,
    /// Claims that are asked for.
    #[default]
    Claims,
    /// Claims, and every answer of the API.
    Answers,
}

/// A statement that anyone can check who has the public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The id of the key that signed it.
    pub kid: String,
    /// The statement: JSON in base64url without padding. This text is what is signed.
    pub payload_b64: String,
    /// The signature in hexadecimal digits.
    pub signature_hex: String,
}

/// A claim about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerClaim {
    /// The claim.
    pub claim: Claim,
    /// How long it is good, in seconds.
    pub expires_in_secs: i64,
    /// The container.
    pub container: ContainerId,
    /// Its project.
    pub project: ProjectId,
}

/// A claim about who somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityClaim {
    /// The claim.
    pub claim: Claim,
    /// How long it is good, in seconds.
    pub expires_in_secs: i64,
    /// When it ends, in milliseconds since the epoch.
    pub expires_at_ms: i64,
    /// For whom it is.
    pub audience: String,
}

/// The key that signatures are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Its id.
    pub kid: String,
    /// Its octets.
    pub octets: Vec<u8>,
}

/// What a claim about a container says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AboutContainer {
    /// The account that it was made for.
    sub: String,
    r#type: &'static str,
    container_id: String,
    project_id: String,
    /// Seconds since the epoch.
    iat: i64,
    /// Seconds since the epoch.
    exp: i64,
}

/// What a claim about who somebody is says.
#[derive(Serialize)]
struct AboutUser<'a> {
    /// The account.
    sub: String,
    /// Its name.
    username: &'a str,
    r#type: &'static str,
    /// For whom the claim is: nobody else may take it.
    aud: &'a str,
    /// Seconds since the epoch.
    iat: i64,
    /// Seconds since the epoch.
    exp: i64,
}

/// The installation's key.
pub(crate) struct Signer {
    key: Ed25519KeyPair,
    kid: String,
}

impl Signer {
    /// The key that is made of these 32 octets.
    pub(crate) fn new(seed: &[u8]) -> Result<Self> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|why| Error::internal(format!("the signing key is not usable: {why}")))?;
        let digest = Sha256::digest(key.public_key().as_ref());
        let kid = hex::encode(digest.iter().take(8).copied().collect::<Vec<u8>>());
        Ok(Self { key, kid })
    }

    fn sign_hex(&self, text: &[u8]) -> String {
        hex::encode(self.key.sign(text).as_ref())
    }

    fn claim(&self, payload: &impl Serialize) -> Result<Claim> {
        let json = serde_json::to_vec(payload).map_err(Error::internal)?;
        let payload_b64 = URL_SAFE_NO_PAD.encode(json);
        let signature_hex = self.sign_hex(payload_b64.as_bytes());
        Ok(Claim { kid: self.kid.clone(), payload_b64, signature_hex })
    }
}

impl Controller {
    /// The key that what is signed here can be checked with; [`Error::SigningNotConfigured`] if
    /// nothing is.
    pub fn public_key(&self) -> Result<PublicKey> {
        let signer = self.signer()?;
        let octets = signer.key.public_key().as_ref().to_vec();
        Ok(PublicKey { kid: signer.kid.clone(), octets })
    }

    /// A claim that the actor may use a container, for whoever it is shown to. It is good for six hours, but
    /// no longer than the token that it is made with; one that is bound to addresses makes none, because
    /// those who check claims could not keep to that.
    pub async fn claim_container(&self, actor: &Actor, id: ContainerId) -> Result<ContainerClaim> {
        actor.require(Leaf::ContainersExec)?;
        let container = self.container_for(actor, id, Level::Edit).await?;
        let iat = self.now_ms().div_euclid(1000);
        let exp = iat.saturating_add(CONTAINER_CLAIM_SECS);
        let exp = match &actor.via {
            Via::Token { ip_whitelist, .. } if !ip_whitelist.is_empty() => {
                return Err(Forbidden::Wider(Subject::IpWhitelist).into());
            }
            Via::Token { expires_at_ms: Some(at), .. } => exp.min(at.div_euclid(1000)),
            Via::Token { .. } | Via::Session { .. } | Via::Password => exp,
        };
        let claim = self.signer()?.claim(&AboutContainer {
            sub: actor.user.to_string(),
            r#type: "container",
            container_id: container.id.to_string(),
            project_id: container.project.to_string(),
            iat,
            exp,
        })?;
        Ok(ContainerClaim {
            claim,
            expires_in_secs: exp.saturating_sub(iat),
            container: container.id,
            project: container.project,
        })
    }

    /// A claim for one audience that who shows it is the actor: good for an hour unless asked otherwise, but no longer
    /// than the session that it is made by. Only for sessions.
    pub fn claim_identity(
        &self,
        actor: &Actor,
        audience: &str,
        expires_in_secs: Option<i64>,
    ) -> Result<IdentityClaim> {
        let Via::Session { expires_at_ms, .. } = actor.via else {
            return Err(Forbidden::SessionOnly.into());
        };
        let mut errors = Vec::new();
        let printable = |octet: u8| octet.is_ascii_graphic() && octet != b'"';
        if !(1..=AUDIENCE_MAX).contains(&audience.len()) || !audience.bytes().all(printable) {
            let rule =
                "must be 1 to 256 printable ASCII characters without spaces and double quotes";
            errors.push(FieldError::new("audience", rule));
        }
        let asked = expires_in_secs.unwrap_or(IDENTITY_CLAIM_SECS);
        if !IDENTITY_CLAIM_BOUNDS.contains(&asked) {
            errors.push(FieldError::new("expires_in", "must be 60 to 86400 seconds"));
        }
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let iat = self.now_ms().div_euclid(1000);
        let exp = iat.saturating_add(asked).min(expires_at_ms.div_euclid(1000));
        let claim = self.signer()?.claim(&AboutUser {
            sub: actor.user.to_string(),
            username: &actor.username,
            r#type: if actor.is_admin { "admin" } else { "user" },
            aud: audience,
            iat,
            exp,
        })?;
        Ok(IdentityClaim {
            claim,
            expires_in_secs: exp.saturating_sub(iat),
            expires_at_ms: exp.saturating_mul(1000),
            audience: audience.to_owned(),
        })
    }

    /// Whether answers are to be signed.
    pub fn signs_answers(&self) -> bool {
        self.inner.signing == Signing::Answers
    }

    /// The signature of an answer as it stands in its header, if answers are signed: made over its time,
    /// method, status, path and body, with line feeds between them.
    pub fn sign_answer(
        &self,
        method: &str,
        status: u16,
        path: &str,
        body: &[u8],
    ) -> Option<String> {
        let signer = self.inner.signer.as_ref().filter(|_| self.signs_answers())?;
        let at = self.now_ms().div_euclid(1000);
        let mut text = Vec::with_capacity(body.len().saturating_add(path.len()).saturating_add(64));
        text.extend_from_slice(format!("{at}\n{method}\n{status}\n{path}\n").as_bytes());
        text.extend_from_slice(body);
        let (kid, signature) = (&signer.kid, signer.sign_hex(&text));
        Some(format!("t={at},kid={kid},m={method},s={status},path={path},sig={signature}"))
    }

    fn signer(&self) -> Result<&Signer> {
        self.inner.signer.as_ref().ok_or(Error::SigningNotConfigured)
    }
}
