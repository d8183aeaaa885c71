//! Connections through a proxy.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use gantry_model::outbound::{Endpoint, Host, Scheme};
use http::{HeaderValue, Uri};
use hyper_util::{
    client::legacy::connect::proxy::{SocksV5, Tunnel},
    rt::TokioIo,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tower::{ServiceExt as _, service_fn};

use super::{Client, addresses::Addresses};
use crate::BoxError;

/// How long the host may take to reach a proxy, and the proxy to reach what is behind it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CARRY_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection of either kind.
pub(super) trait Octets: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Octets for T {}

/// A connection to a proxy, or through one.
pub(super) type Stream = Box<dyn Octets>;

/// What makes connections.
#[derive(Debug)]
pub(super) struct Dialler {
    addresses: Addresses,
    tls: Arc<ClientConfig>,
}

impl Dialler {
    /// Trusts the usual authorities and `roots`.
    pub(super) fn new(addresses: Addresses, roots: &[CertificateDer<'static>]) -> Self {
        let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let (_, unread) = store.add_parsable_certificates(roots.iter().cloned());
        if unread > 0 {
            tracing::error!(unread, "certificates that proxies are trusted by cannot be read");
        }
        let tls = ClientConfig::builder().with_root_certificates(store).with_no_client_auth();
        Self { addresses, tls: Arc::new(tls) }
    }

    /// Connects to `aim` through the proxy of a container, and notes whether that can be used.
    pub(super) async fn dial(&self, client: &Client, aim: SocketAddr) -> Result<Stream, BoxError> {
        let endpoint = &client.proxy.endpoint;
        let connected = timeout(CONNECT_TIMEOUT, self.connect(endpoint)).await;
        let connected =
            connected.unwrap_or_else(|_elapsed| Err("it does not answer in time".into()));
        let stream = match connected {
            Ok(stream) => stream,
            Err(error) => {
                let why = format!("the proxy cannot be reached: {error}");
                *client.fault() = Some(why.clone());
                return Err(why.into());
            }
        };
        let asked = timeout(CARRY_TIMEOUT, ask(client, stream, aim)).await;
        match asked.unwrap_or_else(|_elapsed| Err("the proxy does not connect in time".into())) {
            Ok(stream) => {
                *client.fault() = None;
                Ok(stream)
            }
            Err(error) => {
                // The library tells only in words what was refused. That one address cannot be reached
                // says nothing of the proxy.
                let said = error.to_string();
                let is_about_credentials = ["authorization", "authentication", "credentials"]
                    .iter()
                    .any(|it| said.contains(it));
                *client.fault() =
                    is_about_credentials.then(|| "the proxy refuses the credentials".to_owned());
                Err(error)
            }
        }
    }

    /// Connects to a proxy. The addresses that are checked are those that are connected to, however
    /// often its name is resolved elsewhere.
    async fn connect(&self, endpoint: &Endpoint) -> Result<Stream, BoxError> {
        let port = endpoint.port;
        let (places, name): (Vec<_>, _) = match &endpoint.host {
            Host::Domain(name) => {
                let places = lookup_host((name.as_str(), port)).await?.collect();
                (places, ServerName::try_from(name.trim_end_matches('.').to_owned()))
            }
            Host::Ipv4(address) => {
                let address = IpAddr::V4(*address);
                (vec![(address, port).into()], Ok(ServerName::from(address)))
            }
            Host::Ipv6(address) => {
                let address = IpAddr::V6(*address);
                (vec![(address, port).into()], Ok(ServerName::from(address)))
            }
        };
        let mut why: BoxError = "its address is one that the operator does not allow".into();
        for place in places {
            if !self.addresses.may_be_proxy(place.ip()) {
                continue;
            }
            match TcpStream::connect(place).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return match endpoint.scheme {
                        Scheme::Socks5 | Scheme::Http => Ok(Box::new(stream)),
                        Scheme::Https => {
                            let tls = TlsConnector::from(Arc::clone(&self.tls));
                            Ok(Box::new(tls.connect(name?, stream).await?))
                        }
                    };
                }
                Err(error) => why = error.into(),
            }
        }
        Err(why)
    }
}

/// Has a proxy connect to `aim`.
async fn ask(client: &Client, stream: Stream, aim: SocketAddr) -> Result<Stream, BoxError> {
    let proxy = Uri::from_static("http://proxy");
    let aim: Uri = format!("http://{aim}").parse()?;
    // Asked once.
    let mut stream = Some(TokioIo::new(Sips(stream)));
    let connector = service_fn(move |_proxy: Uri| {
        let taken = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(taken)
    });
    let credentials = client.proxy.credentials.as_ref();
    let connected = match client.proxy.endpoint.scheme {
        Scheme::Socks5 => {
            let mut socks = SocksV5::new(proxy, connector);
            if let Some(it) = credentials {
                socks = socks.with_auth(it.user.clone(), it.password.clone());
            }
            socks.oneshot(aim).await?
        }
        Scheme::Http | Scheme::Https => {
            let mut tunnel = Tunnel::new(proxy, connector);
            if let Some(it) = credentials {
                let value = format!("Basic {}", BASE64.encode(it.to_text()));
                tunnel = tunnel.with_auth(HeaderValue::try_from(value)?);
            }
            tunnel.oneshot(aim).await?
        }
    };
    Ok(connected.into_inner().0)
}

/// Reads octet by octet. The library reads as much as there is and keeps nothing: what a server behind
/// the proxy says at once, it would lose together with the proxy's own last word.
struct Sips(Stream);

impl AsyncRead for Sips {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut one = [0];
        let mut sip = ReadBuf::new(&mut one);
        match Pin::new(&mut self.0).poll_read(context, &mut sip) {
            Poll::Ready(Ok(())) => {
                buffer.put_slice(sip.filled());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Sips {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
