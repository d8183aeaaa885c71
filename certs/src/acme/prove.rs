//! Proving to a CA that names are ours.

use std::time::Duration;

use gantry_store::{Challenge, ChallengeKind, Lease, OrderRecord};
use instant_acme::{AuthorizationStatus, ChallengeStatus, ChallengeType, Identifier, Order};

use super::{Authority, Dns, account::At, attempt::Attempt, failure::Failure, shared::Shared};
use crate::dns::Txt;

/// How long the answer to a challenge is kept at most.
const CHALLENGE_LIFE_MS: i64 = 3_600_000;
/// How long every edge has to take an answer up before the CA is told to ask for it: they look twice
/// a second.
const SPREAD: Duration = Duration::from_secs(1);

/// A way to prove a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Dns,
    Edge(ChallengeKind),
}

impl Way {
    fn kind(self) -> ChallengeType {
        match self {
            Self::Dns => ChallengeType::Dns01,
            Self::Edge(ChallengeKind::Http) => ChallengeType::Http01,
            Self::Edge(ChallengeKind::TlsAlpn) => ChallengeType::TlsAlpn01,
        }
    }
}

impl Attempt<'_> {
    /// Publishes a proof for each name that needs one, waits until the world can see it, and tells the CA.
    pub(super) async fn prove(
        &self,
        authority: &Authority,
        at: &At,
        order: &mut Order,
        record: &mut OrderRecord,
    ) -> Result<(), Failure> {
        let failed = |error| Failure::of(&error, &at.manners);
        let (mut texts, mut answers) = (Vec::new(), Vec::new());
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(failed)?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let Identifier::Dns(name) = authorization.identifier().identifier.clone() else {
                return Err(Failure::refused("the CA asks about something that is no hostname"));
            };
            let way = self.shared.way(&name, self.record.attempts);
            let Some(challenge) = authorization.challenge(way.kind()) else {
                let (kind, at) = (way.kind(), &authority.directory);
                return Err(Failure::refused(format!("{at} offers no {kind:?} for {name}")));
            };
            let answer = challenge.key_authorization();
            match way {
                Way::Dns => texts.push(Txt {
                    name: format!("_acme-challenge.{name}"),
                    value: answer.dns_value(),
                }),
                Way::Edge(kind) => answers.push(Challenge {
                    hostname: name,
                    kind,
                    token: challenge.token.clone(),
                    key_authorization: answer.as_str().to_owned(),
                    expires_at_ms: self.shared.now_ms() + CHALLENGE_LIFE_MS,
                }),
            }
        }
        self.publish_texts(texts, record).await?;
        self.publish_answers(answers).await?;

        let shared = self.shared;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(failed)?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let Identifier::Dns(name) = authorization.identifier().identifier.clone() else {
                continue;
            };
            let kind = shared.way(&name, self.record.attempts).kind();
            let Some(mut challenge) = authorization.challenge(kind) else { continue };
            if challenge.status == ChallengeStatus::Pending {
                challenge.set_ready().await.map_err(failed)?;
            }
        }
        order.refresh().await.map_err(failed)?;
        Ok(())
    }

    async fn publish_texts(
        &self,
        texts: Vec<Txt>,
        record: &mut OrderRecord,
    ) -> Result<(), Failure> {
        if texts.is_empty() {
            return Ok(());
        }
        let dns = self.shared.dns()?;
        let mut records = Vec::with_capacity(texts.len());
        for text in texts {
            let name = dns.propagation.resolve_target(&text.name).await?;
            records.push(Txt { name, ..text });
        }
        // Noted first: what may have been published has to be removed.
        for text in &records {
            let noted = (text.name.clone(), text.value.clone());
            if !record.records.contains(&noted) {
                record.records.push(noted);
            }
        }
        self.put(record).await?;
        for text in &records {
            dns.provider.append(text).await?;
        }
        for text in &records {
            dns.propagation.wait(text).await?;
        }
        Ok(())
    }

    async fn publish_answers(&self, answers: Vec<Challenge>) -> Result<(), Failure> {
        if answers.is_empty() {
            return Ok(());
        }
        for answer in &answers {
            let (store, now) = (&self.shared.store, self.shared.now_ms());
            store.put_acme_challenge(answer, self.lease, now).await?;
        }
        self.shared.shelf.refresh().await;
        tokio::time::sleep(SPREAD).await;
        Ok(())
    }
}

impl Shared {
    /// How a name is proved: names of the installation's own at the domain name system, others at the edge, in one
    /// way and then the other.
    pub(crate) fn way(&self, name: &str, attempts: u32) -> Way {
        if self.is_own(name) {
            return Way::Dns;
        }
        // TLS first: whoever gets here by HTTPS can be asked there, port 80 may be closed.
        Way::Edge(if attempts.is_multiple_of(2) {
            ChallengeKind::TlsAlpn
        } else {
            ChallengeKind::Http
        })
    }

    pub(crate) fn dns(&self) -> Result<&Dns, Failure> {
        let missing = "wildcard names are proved at the domain name system alone (DNS-01), and \
                       certificates.dns is not configured";
        self.dns.as_ref().ok_or_else(|| Failure::own(missing))
    }

    /// Refuses names that there is no way to prove.
    pub(crate) fn check_provable(&self, names: &[String]) -> Result<(), Failure> {
        if names.iter().any(|name| self.is_own(name) || name.starts_with("*.")) {
            self.dns()?;
        }
        Ok(())
    }

    /// Takes away what an order has published. The lease is that of its certificate.
    pub(crate) async fn withdraw(&self, order: &OrderRecord, lease: &Lease) -> Result<(), Failure> {
        for name in order.hostnames.iter().filter(|name| !self.is_own(name)) {
            self.store.remove_acme_challenges(name, lease).await?;
        }
        if order.records.is_empty() {
            return Ok(());
        }
        let dns = self.dns()?;
        for (name, value) in &order.records {
            dns.provider.remove(&Txt { name: name.clone(), value: value.clone() }).await?;
        }
        Ok(())
    }
}
