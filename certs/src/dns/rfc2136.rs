//! Dynamic updates (RFC 2136), signed with TSIG (RFC 8945).
//!
//! A value is added to a record set or taken out of it by its data; both are no change where nothing
//! is to be changed, so that repeating them, here or at the next server, does no harm.

use std::{fmt, net::SocketAddr, time::Duration};

use hickory_net::runtime::{Time as _, TokioTime};
use hickory_proto::{
    op::{DnsRequest, DnsResponse, Message, ResponseCode, update_message},
    rr::{
        Name, RData, Record, RecordType, TSigner,
        rdata::{
            TXT,
            tsig::{TSIG, TsigError},
        },
    },
};
use tokio::{net::lookup_host, time::timeout};

use super::{
    DnsError, DnsProvider, Txt, absolute,
    config::{Fault, Rfc2136Config, Server, bounded, noted},
    seconds, wire, written,
};

/// How long resolvers may keep a value, in seconds.
const TTL_S: u32 = 60;

/// How far the server's clock may be from ours, in seconds; what RFC 8945 recommends.
const FUDGE_S: u16 = 300;

/// Changes TXT records at name servers that take signed updates.
pub struct Rfc2136 {
    servers: Vec<Server>,
    zone: Option<Name>,
    signer: TSigner,
    bound: Duration,
}

/// The key's secret is in the signer, which therefore is not shown.
impl fmt::Debug for Rfc2136 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Rfc2136");
        shown.field("servers", &self.servers).field("zone", &self.zone);
        shown.field("key_name", self.signer.signer_name()).field("bound", &self.bound);
        shown.finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
enum Change {
    Append,
    Remove,
}

impl Rfc2136 {
    /// The provider of a configuration; otherwise everything that is wrong with it.
    pub fn new(config: &Rfc2136Config) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let servers = noted(&mut faults, config.servers());
        let zone = noted(&mut faults, config.zone());
        let name = noted(&mut faults, config.key_name());
        let secret = noted(&mut faults, config.secret());
        let bound = noted(&mut faults, bounded("timeout_s", config.timeout_s, 1..=60));
        let (Some(servers), Some(zone), Some(name), Some(secret), Some(bound)) =
            (servers, zone, name, secret, bound)
        else {
            return Err(faults);
        };
        let algorithm = config.key_algorithm.into();
        let signer = TSigner::new(secret.octets().to_vec(), algorithm, name, FUDGE_S)
            .map_err(|error| vec![Fault::new("key_algorithm", error.to_string())])?;
        Ok(Self { servers, zone, signer, bound })
    }

    /// Has the first server that will make the change make it.
    async fn change(&self, change: Change, record: &Txt) -> Result<(), DnsError> {
        let name = absolute(&record.name)?;
        let mut failures = Vec::new();
        for server in &self.servers {
            match timeout(self.bound, self.change_at(server, change, &name, &record.value)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => failures.push(format!("{server}: {why}")),
                Err(_) => {
                    failures.push(format!("{server}: not done within {}", seconds(self.bound)));
                }
            }
        }
        let done = match change {
            Change::Append => "added",
            Change::Remove => "removed",
        };
        let failures = failures.join("; ");
        let name = written(&name);
        Err(DnsError::new(format!("the TXT record at {name} was not {done}: {failures}")))
    }

    async fn change_at(
        &self,
        server: &Server,
        change: Change,
        name: &Name,
        value: &str,
    ) -> Result<(), String> {
        let addresses = lookup_host((server.host.as_str(), server.port))
            .await
            .map_err(|error| format!("its address cannot be found: {error}"))?;
        let mut failure = "it has no address".to_owned();
        for address in addresses {
            match self.change_by(address, change, name, value).await {
                Ok(()) => return Ok(()),
                Err(Failed::Refused(why)) => return Err(why),
                Err(Failed::Silent(why)) => failure = why,
            }
        }
        Err(failure)
    }

    /// By one address of a server, in half of its time, so that a second one has a chance.
    async fn change_by(
        &self,
        server: SocketAddr,
        change: Change,
        name: &Name,
        value: &str,
    ) -> Result<(), Failed> {
        let zone = match &self.zone {
            Some(zone) => zone.clone(),
            None => zone_at(server, name, self.bound / 2).await?,
        };
        if !zone.zone_of(name) {
            let (zone, name) = (written(&zone), written(name));
            return Err(Failed::Refused(format!("{name} is outside of the zone {zone}")));
        }
        let text = RData::TXT(TXT::new(vec![value.to_owned()]));
        let record = Record::from_rdata(name.clone(), TTL_S, text).into();
        let message = match change {
            Change::Append => update_message::append(record, zone.clone(), false, true),
            Change::Remove => update_message::delete_by_rdata(record, zone.clone(), true),
        };
        self.update(server, message, &zone, name).await
    }

    async fn update(
        &self,
        server: SocketAddr,
        mut message: Message,
        zone: &Name,
        name: &Name,
    ) -> Result<(), Failed> {
        let mut verifier = match message.finalize(&self.signer, TokioTime::current_time()) {
            Ok(Some(verifier)) => verifier,
            Ok(None) => return Err(Failed::Refused("the update has no signature".to_owned())),
            Err(error) => {
                return Err(Failed::Refused(format!("the update cannot be signed: {error}")));
            }
        };
        let answer = wire::exchange(server, DnsRequest::from(message), self.bound / 2)
            .await
            .map_err(|error| Failed::Silent(wire::words(&error)))?;
        if answer.response_code != ResponseCode::NoError {
            // Believed without a signature: servers have none for keys that they do not know.
            return Err(Failed::Refused(self.refusal(&answer, zone, name)));
        }
        match verifier.verify(answer.as_buffer()) {
            Ok(_) => Ok(()),
            Err(error) => {
                let why = format!("its answer is not signed with the key: {error}");
                Err(Failed::Refused(why))
            }
        }
    }

    /// Why a server has refused, in words, and what would be right.
    fn refusal(&self, answer: &DnsResponse, zone: &Name, name: &Name) -> String {
        let key = written(self.signer.signer_name());
        let tsig = answer.signature.as_ref().map(|record| &record.data);
        if let Some(TSIG { error: Some(error), time, other, .. }) = tsig {
            return self.key_refusal(*error, &key, &written(name), (*time, other));
        }
        let (zone, name) = (written(zone), written(name));
        let in_the_way = format!("other records at {name} are in the way");
        let codes = [
            (
                ResponseCode::NotAuth,
                "NOTAUTH",
                format!(
                    "it is not the primary of zone {zone}, or does not let key {key} change it"
                ),
            ),
            (
                ResponseCode::Refused,
                "REFUSED",
                format!("its policy does not let key {key} change TXT records at {name}"),
            ),
            (ResponseCode::NotZone, "NOTZONE", format!("{name} is outside of its zone {zone}")),
            (ResponseCode::NXRRSet, "NXRRSET", format!("there are no such records at {name}")),
            (ResponseCode::YXRRSet, "YXRRSET", in_the_way.clone()),
            (ResponseCode::YXDomain, "YXDOMAIN", in_the_way),
            (ResponseCode::NXDomain, "NXDOMAIN", format!("there is no name {name}")),
            (ResponseCode::ServFail, "SERVFAIL", "it has failed; its log says why".to_owned()),
            (ResponseCode::NotImp, "NOTIMP", "it takes no updates".to_owned()),
            (ResponseCode::FormErr, "FORMERR", "it has not understood the update".to_owned()),
        ];
        let code = answer.response_code;
        codes.into_iter().find(|(of, ..)| *of == code).map_or_else(
            || format!("it answers with the code {}", u16::from(code)),
            |(_, code, why)| format!("{code}: {why}"),
        )
    }

    fn key_refusal(
        &self,
        error: TsigError,
        key: &str,
        name: &str,
        (ours, theirs): (u64, &[u8]),
    ) -> String {
        let algorithm = self.signer.algorithm();
        let why = match error {
            // Knot says that of keys that it knows, too, where its rules do not let them.
            TsigError::BadKey => format!(
                "BADKEY, it knows no key {key} of algorithm {algorithm}, or its rules do not let that \
                 key change TXT records at {name}"
            ),
            TsigError::BadSig => format!("BADSIG, the secret of key {key} is another one there"),
            TsigError::BadTime => {
                // The answer repeats our time; its own is in the octets that follow (RFC 8945, 5.2.3).
                let theirs = theirs.iter().fold(0, |sum, octet| (sum << 8) | u64::from(*octet));
                let apart = theirs.abs_diff(ours);
                format!("BADTIME, its clock is {apart} s from ours; at most {FUDGE_S} are allowed")
            }
            TsigError::BadTrunc => "BADTRUNC, it wants another length of MAC".to_owned(),
            TsigError::Unknown(code) => format!("error {code}"),
        };
        format!("TSIG refused: {why}")
    }
}

/// Why a change was not made by an address of a server.
enum Failed {
    /// It does not answer here; another address may.
    Silent(String),
    Refused(String),
}

/// The zone that this server has for a name: the nearest name above with an SOA record.
async fn zone_at(server: SocketAddr, name: &Name, bound: Duration) -> Result<Name, Failed> {
    let mut at = name.clone();
    while !at.is_root() {
        let answer = wire::ask(server, &at, RecordType::SOA, bound)
            .await
            .map_err(|error| Failed::Silent(wire::words(&error)))?;
        if let Some(zone) = authority(&answer, name) {
            return Ok(zone);
        }
        at = at.base_name();
    }
    let name = written(name);
    Err(Failed::Refused(format!("it has no zone for {name}; set zone if it hides it")))
}

/// The owner of an SOA record that holds for the name, from whichever section.
fn authority(answer: &Message, name: &Name) -> Option<Name> {
    let mut records = answer.answers.iter().chain(&answer.authorities);
    let soa = records.find(|record| record.record_type() == RecordType::SOA)?;
    let zone = soa.name.to_lowercase();
    (answer.authoritative && !zone.is_root() && zone.zone_of(name)).then_some(zone)
}

#[async_trait::async_trait]
impl DnsProvider for Rfc2136 {
    async fn append(&self, record: &Txt) -> Result<(), DnsError> {
        self.change(Change::Append, record).await
    }

    async fn remove(&self, record: &Txt) -> Result<(), DnsError> {
        self.change(Change::Remove, record).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::KeyAlgorithm;

    /// What is said of an answer with this code, and this TSIG record if any.
    fn refused(code: ResponseCode, tsig: Option<TSIG>) -> String {
        let config =
            serde_json::json!({ "servers": ["ns1"], "key_name": "k", "key_secret": "c2VjcmV0" });
        let config: Rfc2136Config = serde_json::from_value(config).unwrap();
        let mut answer = Message::response(1, hickory_proto::op::OpCode::Update);
        answer.metadata.response_code = code;
        if let Some(tsig) = tsig {
            answer.set_signature(Box::new(Record::from_rdata(absolute("k").unwrap(), 0, tsig)));
        }
        let answer = DnsResponse::from_message(answer).unwrap();
        let (zone, name) = ("example.test", "_acme-challenge.example.test");
        let (zone, name) = (absolute(zone).unwrap(), absolute(name).unwrap());
        Rfc2136::new(&config).unwrap().refusal(&answer, &zone, &name)
    }

    /// Servers of tests have the time of the tests.
    #[test]
    fn a_clock_that_is_wrong_is_named() {
        let (ours, mac) = (1_800_000_000_u64, vec![0; 32]);
        let theirs = (ours + 4000).to_be_bytes()[2..].to_vec();
        let algorithm = KeyAlgorithm::HmacSha256.into();
        let tsig = TSIG::new(algorithm, ours, FUDGE_S, mac, 1, Some(TsigError::BadTime), theirs);
        assert_eq!(
            refused(ResponseCode::NotAuth, Some(tsig)),
            "TSIG refused: BADTIME, its clock is 4000 s from ours; at most 300 are allowed"
        );
    }

    #[test]
    fn a_code_is_put_into_words() {
        for (code, want) in [
            (ResponseCode::NotAuth, "NOTAUTH: it is not the primary of zone example.test, or does"),
            (ResponseCode::Refused, "REFUSED: its policy does not let key k change TXT records at"),
            (ResponseCode::NXRRSet, "NXRRSET: there are no such records at _acme-challenge.ex"),
            (ResponseCode::ServFail, "SERVFAIL: it has failed; its log says why"),
            (ResponseCode::Unknown(4000), "it answers with the code 4000"),
        ] {
            let got = refused(code, None);
            assert!(got.starts_with(want), "{code}: {got}");
        }
    }
}
