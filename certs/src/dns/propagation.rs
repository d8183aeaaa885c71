//! When a record is visible to whoever validates: when every name server of its zone has it.
//!
//! A CA looks from several places, each of which asks whichever name server of the zone answers it, so
//! one server that lags can fail a validation; lego and Caddy wait for all of them likewise. But they ask one
//! address of each, and wait in vain where that is one of IPv6 and the machine has none. Here:
//!
//! - every address of every name server is asked directly, without recursion; a server has the value
//!   if all of its addresses that answer have it;
//! - an address to which this machine has no route says nothing, and a server that has no other
//!   address is left out, because nothing can be learned of it from here;
//! - a server that could be reached but does not answer is waited for, [`GRACE_MAX`] or a third of the whole
//!   time, and left out then, because who validates turns to another one, too;
//! - at least one server must have it, and no server that answers may lack it.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, RecordType},
};
use hickory_resolver::TokioResolver;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout, timeout_at},
};

use super::{
    DnsError, Txt, absolute,
    config::{Fault, PropagationConfig, bounded, noted},
    delegation::{self, NameServer},
    seconds, wire, written,
};

/// How long a server that does not answer is waited for, at most.
const GRACE_MAX: Duration = Duration::from_secs(20);

/// How long one address may take to answer, at most.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// How long further addresses of servers that have answered already may take.
const FURTHER_MAX: Duration = Duration::from_secs(1);

/// The pause between two looks: this at first, then twice as much each time, up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));

/// The most addresses that are asked at the same time; no zone has as many.
const ADDRESSES_MAX: usize = 64;

/// Looks where records are to be written and whether the world sees them.
#[derive(Clone)]
pub struct Propagation(Arc<Inner>);

struct Inner {
    resolver: TokioResolver,
    check: bool,
    port: u16,
    bound: Duration,
    delay: Duration,
}

impl fmt::Debug for Propagation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { check, port, bound, delay, .. } = &*self.0;
        let mut shown = formatter.debug_struct("Propagation");
        shown.field("check", check).field("port", port).field("bound", bound).field("delay", delay);
        shown.finish_non_exhaustive()
    }
}

impl Propagation {
    /// What a configuration describes; otherwise everything that is wrong with it.
    pub fn new(config: &PropagationConfig) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let bound = noted(&mut faults, bounded("timeout_s", config.timeout_s, 1..=3600));
        let delay = noted(&mut faults, bounded("delay_s", config.delay_s, 0..=3600));
        if config.port == 0 {
            faults.push(Fault::new("port", "must be 1 to 65535, usually 53"));
        }
        let resolver = delegation::resolver(&config.resolvers).map_err(|error| {
            let rule = format!("the machine's own resolvers cannot be read; name some: {error}");
            Fault::new("resolvers", rule)
        });
        let resolver = noted(&mut faults, resolver);
        match (bound, delay, resolver) {
            (Some(bound), Some(delay), Some(resolver)) if faults.is_empty() => {
                let PropagationConfig { check, port, .. } = *config;
                Ok(Self(Arc::new(Inner { resolver, check, port, bound, delay })))
            }
            _ => Err(faults),
        }
    }

    /// Who is asked where names lead.
    pub(super) fn resolver(&self) -> &TokioResolver {
        &self.0.resolver
    }

    /// Where a record for this name must be written: the end of the CNAME delegation that begins
    /// there, or the name itself. A CNAME that comes from a wildcard is no delegation.
    pub async fn resolve_target(&self, name: &str) -> Result<String, DnsError> {
        let name = absolute(name)?;
        Ok(written(&delegation::follow(&self.0.resolver, &name).await?))
    }

    /// Waits until the value is at every name server of the zone that has the record's name, or of
    /// that to which the name is delegated. Without the check only the delay is waited.
    pub async fn wait(&self, record: &Txt) -> Result<(), DnsError> {
        if self.0.check {
            self.wait_for_servers(record).await?;
        }
        sleep(self.0.delay).await;
        Ok(())
    }

    async fn wait_for_servers(&self, record: &Txt) -> Result<(), DnsError> {
        let name = absolute(&record.name)?;
        let begin = Instant::now();
        let end = begin + self.0.bound;
        let grace = GRACE_MAX.min(self.0.bound / 3);
        let mut pause = PAUSES.0;
        let mut last = "its name servers were not found in time".to_owned();
        while let Ok(look) = timeout_at(end.into(), self.look(&name, &record.value)).await {
            match look {
                Ok(look) if look.is_everywhere(begin.elapsed() >= grace) => {
                    for server in look.servers.iter().filter(|server| !server.has_it()) {
                        tracing::warn!(name = record.name, %server, "a name server was left out");
                    }
                    return Ok(());
                }
                Ok(look) => last = look.to_string(),
                Err(error) => last = error.to_string(),
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            tracing::debug!(name = record.name, found = last, "not everywhere yet");
            sleep(pause.min(left)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        let (name, bound) = (&record.name, seconds(self.0.bound));
        Err(DnsError::new(format!(
            "the TXT record at {name} was not visible within {bound}: {last}"
        )))
    }

    /// Asks everybody once.
    async fn look(&self, name: &Name, value: &str) -> Result<Look, DnsError> {
        let resolver = &self.0.resolver;
        let name = delegation::follow(resolver, name).await?;
        let zone = delegation::zone(resolver, &name).await?;
        let servers = delegation::name_servers(resolver, &zone).await?;
        let bound = ANSWER_MAX.min(self.0.bound / 4);
        let mut asked = JoinSet::new();
        let value: Arc<[u8]> = value.as_bytes().into();
        let mut sights: Vec<Sight> = Vec::new();
        for (at, NameServer { name: server, addresses }) in servers.into_iter().enumerate() {
            let mut sight = Sight { server, found: Vec::new(), note: None };
            match addresses {
                Ok(addresses) if addresses.is_empty() => sight.note = Some("has no address".into()),
                Ok(addresses) => {
                    let free = ADDRESSES_MAX.saturating_sub(asked.len());
                    for address in addresses.into_iter().take(free) {
                        let address = SocketAddr::new(address, self.0.port);
                        let (name, value) = (name.clone(), Arc::clone(&value));
                        asked.spawn(async move {
                            (at, address, find(address, &name, &value, bound).await)
                        });
                    }
                }
                Err(why) => sight.note = Some(why),
            }
            sights.push(sight);
        }
        loop {
            let patience =
                if sights.iter().all(Sight::has_answered) { FURTHER_MAX } else { bound * 2 };
            let Ok(Some(one)) = timeout(patience, asked.join_next()).await else { break };
            let one = one.map_err(|error| DnsError::new(format!("a question has failed: {error}")));
            let (at, address, found) = one?;
            if let Some(sight) = sights.get_mut(at) {
                sight.found.push((address, found));
            }
        }
        for sight in &mut sights {
            sight.found.sort_by_key(|(address, _)| *address);
        }
        Ok(Look { zone: written(&zone), servers: sights })
    }
}

/// What an address says about a value.
#[derive(Debug)]
enum Found {
    Has,
    Lacks(String),
    Silent(String),
    NoRoute,
}

async fn find(server: SocketAddr, name: &Name, value: &[u8], bound: Duration) -> Found {
    let answer = match wire::ask(server, name, RecordType::TXT, bound).await {
        Ok(answer) => answer,
        Err(error) if wire::is_without_route(&error) => return Found::NoRoute,
        Err(error) => return Found::Silent(wire::words(&error)),
    };
    let texts = wire::texts(&answer, name);
    if texts.iter().any(|text| text == value) {
        return Found::Has;
    }
    let alias = answer.answers.iter().find(|record| record.name == *name);
    if let Some(RData::CNAME(target)) = alias.map(|record| &record.data) {
        return Found::Lacks(format!("has a CNAME to {} there", written(target)));
    }
    Found::Lacks(match (answer.response_code, texts.len()) {
        (ResponseCode::NoError, 0) => "has no TXT record there".to_owned(),
        (ResponseCode::NoError, others) => format!("has {others} other TXT records there"),
        (ResponseCode::NXDomain, _) => "has no such name".to_owned(),
        (ResponseCode::Refused, _) => "refuses to answer for the zone".to_owned(),
        (ResponseCode::ServFail, _) => "cannot answer for the zone (SERVFAIL)".to_owned(),
        (other, _) => format!("answers {other}"),
    })
}

/// What all servers say at one time.
#[derive(Debug)]
struct Look {
    zone: String,
    servers: Vec<Sight>,
}

/// What the addresses of one server say.
#[derive(Debug)]
struct Sight {
    server: String,
    found: Vec<(SocketAddr, Found)>,
    note: Option<String>,
}

impl Look {
    fn is_everywhere(&self, is_grace_over: bool) -> bool {
        let is_lacking = self.servers.iter().any(Sight::lacks_it);
        let is_awaited = !is_grace_over && self.servers.iter().any(Sight::is_awaited);
        !is_lacking && !is_awaited && self.servers.iter().any(Sight::has_it)
    }
}

impl Sight {
    fn lacks_it(&self) -> bool {
        self.found.iter().any(|(_, found)| matches!(found, Found::Lacks(_)))
    }

    fn has_it(&self) -> bool {
        !self.lacks_it() && self.found.iter().any(|(_, found)| matches!(found, Found::Has))
    }

    fn has_answered(&self) -> bool {
        self.found.iter().any(|(_, found)| matches!(found, Found::Has | Found::Lacks(_)))
    }

    /// Whether it says nothing yet and may do so later.
    fn is_awaited(&self) -> bool {
        let may_say = |(_, found): &(_, Found)| matches!(found, Found::Silent(_));
        let is_unknown = self.found.is_empty() || self.found.iter().any(may_say);
        is_unknown && !self.has_answered()
    }
}

impl fmt::Display for Look {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "of the name servers of {}, ", self.zone)?;
        for (at, server) in self.servers.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(formatter, "{separator}{server}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.server)?;
        if let Some(note) = &self.note {
            return write!(formatter, " {note}");
        }
        for (at, (address, found)) in self.found.iter().enumerate() {
            let separator = if at == 0 { "" } else { "," };
            let found = match found {
                Found::Has => "has it",
                Found::NoRoute => "has no route from here",
                Found::Lacks(what) | Found::Silent(what) => what,
            };
            write!(formatter, "{separator} ({address}) {found}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look of servers that are written as letters, one for each address: it *h*as the value,
    /// *l*acks it, is *s*ilent, has *n*o route.
    fn look(servers: &[&str]) -> Look {
        let found = |(at, letter): (usize, char)| {
            let address = SocketAddr::from(([192, 0, 2, u8::try_from(at).unwrap()], 53));
            let found = match letter {
                'h' => Found::Has,
                'l' => Found::Lacks("has no TXT record there".to_owned()),
                's' => Found::Silent("does not answer in time".to_owned()),
                _ => Found::NoRoute,
            };
            (address, found)
        };
        let sight = |letters: &&str| {
            let found = letters.chars().enumerate().map(found).collect();
            Sight { server: (*letters).to_owned(), found, note: None }
        };
        Look { zone: "example.test".to_owned(), servers: servers.iter().map(sight).collect() }
    }

    #[test]
    fn every_server_that_can_be_asked_must_have_it() {
        for (servers, want, want_after_grace) in [
            (&["h", "h"][..], true, true),
            (&["h", "l"], false, false),
            (&["h", "hl"], false, false), // one address lags
            (&["hs", "hn"], true, true),  // one address of each answers
            (&["h", "nn"], true, true),   // nothing to be learned from here
            (&["h", "sn"], false, true),  // may come back
            (&["h", ""], false, true),    // its address was not found
            (&["n", "n"], false, false),  // nobody says that it is there
            (&["s", "s"], false, false),
            (&["s", "l"], false, false),
            (&[], false, false),
        ] {
            let look = look(servers);
            let got = (look.is_everywhere(false), look.is_everywhere(true));
            assert_eq!(got, (want, want_after_grace), "{servers:?}");
        }
    }

    #[test]
    fn a_look_says_who_has_what() {
        let text = look(&["hl", "sn"]).to_string();
        assert_eq!(
            text,
            "of the name servers of example.test, \
             hl (192.0.2.0:53) has it, (192.0.2.1:53) has no TXT record there; \
             sn (192.0.2.0:53) does not answer in time, (192.0.2.1:53) has no route from here"
        );
    }

    #[test]
    fn no_route_is_told_from_no_answer() {
        for (code, want) in [
            (rustix::io::Errno::NETUNREACH, true),
            (rustix::io::Errno::HOSTUNREACH, true),
            (rustix::io::Errno::ADDRNOTAVAIL, true),
            (rustix::io::Errno::AFNOSUPPORT, true),
            (rustix::io::Errno::CONNREFUSED, false),
        ] {
            let error = std::io::Error::from_raw_os_error(code.raw_os_error());
            assert_eq!(wire::is_without_route(&error.into()), want, "{code}");
        }
    }
}
