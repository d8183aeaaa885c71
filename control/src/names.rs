//! The domain name system, as far as custom hostnames need it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, RecordType},
};

/// How long one question may take, all attempts together.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a question comes to.
pub type Answer<'n, T> = Pin<Box<dyn Future<Output = Result<T, LookUpFailed>> + Send + 'n>>;

/// Asks the domain name system. A name that does not exist has no records, which is no failure.
///
/// Names are in lower case and without a final dot, in questions and in answers.
pub trait Names: Send + Sync + 'static {
    /// The name that a CNAME record of this name leads to.
    fn canonical<'n>(&'n self, name: &'n str) -> Answer<'n, Option<String>>;
    /// The texts of the TXT records of this name.
    fn texts<'n>(&'n self, name: &'n str) -> Answer<'n, Vec<String>>;
    /// The addresses that this name leads to in the end.
    fn addresses<'n>(&'n self, name: &'n str) -> Answer<'n, BTreeSet<IpAddr>>;
}

/// The domain name system did not answer; trying again may help.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the domain name system does not answer")]
pub struct LookUpFailed(#[source] Arc<dyn std::error::Error + Send + Sync>);

impl LookUpFailed {
    /// A failure with its cause.
    pub fn new(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(cause))
    }
}

/// Asks the resolvers of the host, `/etc/resolv.conf`; keeps no answers, since whoever checks a
/// binding has just changed them.
pub struct DnsNames {
    resolver: Result<TokioResolver, LookUpFailed>,
}

impl DnsNames {
    /// Reads the host's settings. If they cannot be read, every question fails.
    pub fn of_host() -> Self {
        Self::of(TokioResolver::builder(TokioRuntimeProvider::default()))
    }

    /// Asks one server, over UDP, in the place of the host's.
    pub fn of_server(address: SocketAddr) -> Self {
        let mut connection = ConnectionConfig::udp();
        connection.port = address.port();
        let mut server = NameServerConfig::udp(address.ip());
        server.connections = vec![connection];
        let config = ResolverConfig::from_name_servers(vec![server]);
        let provider = TokioRuntimeProvider::default();
        Self::of(Ok(TokioResolver::builder_with_config(config, provider)))
    }

    fn of(builder: Result<ResolverBuilder<TokioRuntimeProvider>, NetError>) -> Self {
        let resolver = builder.and_then(|mut builder| {
            builder.options_mut().cache_size = 0;
            builder.build()
        });
        Self { resolver: resolver.map_err(LookUpFailed::new) }
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, LookUpFailed> {
        let resolver = self.resolver.as_ref().map_err(Clone::clone)?;
        // With its final dot, so that no search list is tried.
        let question = resolver.lookup(format!("{name}."), kind);
        match tokio::time::timeout(TIMEOUT, question).await {
            Ok(Ok(found)) => Ok(found.answers().iter().map(|record| record.data.clone()).collect()),
            Ok(Err(error)) if is_absence(&error) => Ok(Vec::new()),
            Ok(Err(error)) => Err(LookUpFailed::new(error)),
            Err(over) => Err(LookUpFailed::new(over)),
        }
    }
}

fn is_absence(error: &NetError) -> bool {
    error.is_no_records_found() || error.is_nx_domain()
}

impl std::fmt::Debug for DnsNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsNames").finish_non_exhaustive()
    }
}

impl Names for DnsNames {
    fn canonical<'n>(&'n self, name: &'n str) -> Answer<'n, Option<String>> {
        Box::pin(async move {
            let records = self.ask(name, RecordType::CNAME).await?;
            let target = records.iter().find_map(|data| {
                if let RData::CNAME(target) = data { Some(target.to_ascii()) } else { None }
            });
            Ok(target.map(|target| {
                let text = target.to_ascii_lowercase();
                text.strip_suffix('.').unwrap_or(&text).to_owned()
            }))
        })
    }

    fn texts<'n>(&'n self, name: &'n str) -> Answer<'n, Vec<String>> {
        Box::pin(async move {
            let records = self.ask(name, RecordType::TXT).await?;
            let text = |data: &RData| {
                let RData::TXT(text) = data else { return None };
                Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned())
            };
            Ok(records.iter().filter_map(text).collect())
        })
    }

    fn addresses<'n>(&'n self, name: &'n str) -> Answer<'n, BTreeSet<IpAddr>> {
        Box::pin(async move {
            let mut found = BTreeSet::new();
            for kind in [RecordType::A, RecordType::AAAA] {
                let records = self.ask(name, kind).await?;
                found.extend(records.iter().filter_map(RData::ip_addr));
            }
            Ok(found)
        })
    }
}
