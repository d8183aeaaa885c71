//! One message to one server and its answer: by UDP, and by TCP where that does not do.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use hickory_net::{
    NetError,
    runtime::TokioRuntimeProvider,
    udp::UdpClientStream,
    xfer::{DnsHandle as _, FirstAnswer as _},
};
use hickory_proto::{
    op::{DnsRequest, DnsRequestOptions, DnsResponse, Message, Query},
    rr::{Name, RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// What passes by UDP without fragments nearly everywhere (RFC 9715).
const UDP_LEN_MAX: usize = 1232;

/// Asks a server for what it has itself, without recursion.
pub(super) async fn ask(
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
    bound: Duration,
) -> Result<DnsResponse, NetError> {
    let mut options = DnsRequestOptions::default();
    options.recursion_desired = false;
    let query = Query::query(name.clone(), kind);
    exchange(server, DnsRequest::from_query(query, options), bound).await
}

/// Sends the message as it is, signature and all, and gives the answer as it came, unverified.
pub(super) async fn exchange(
    server: SocketAddr,
    request: DnsRequest,
    bound: Duration,
) -> Result<DnsResponse, NetError> {
    let end = Instant::now() + bound;
    let message = request.to_vec()?;
    let id = request.id;
    if message.len() <= UDP_LEN_MAX {
        match by_udp(server, request, bound / 2).await {
            Ok(answer) if !answer.truncation => return Ok(answer),
            Err(error) if is_without_route(&error) => return Err(error),
            // Cut off, lost on the way or garbled: TCP is for that.
            Ok(_) | Err(_) => {}
        }
    }
    let left = end.saturating_duration_since(Instant::now());
    timeout(left, by_tcp(server, id, &message)).await.unwrap_or(Err(NetError::Timeout))
}

async fn by_udp(
    server: SocketAddr,
    request: DnsRequest,
    bound: Duration,
) -> Result<DnsResponse, NetError> {
    let stream = UdpClientStream::builder(server, TokioRuntimeProvider::new());
    stream.with_timeout(Some(bound)).exchange().send(request).first_answer().await
}

/// The library's connections give each message an id of their own, after it was signed.
async fn by_tcp(server: SocketAddr, id: u16, message: &[u8]) -> Result<DnsResponse, NetError> {
    let len = u16::try_from(message.len()).map_err(|error| NetError::Msg(error.to_string()))?;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&[&len.to_be_bytes(), message].concat()).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    let answer = DnsResponse::from_buffer(answer)?;
    if answer.id == id {
        Ok(answer)
    } else {
        Err(NetError::Message("the answer belongs to another question"))
    }
}

/// Whether nothing can be sent from this machine to there, as to IPv6 where there is none.
pub(super) fn is_without_route(error: &NetError) -> bool {
    let NetError::Io(error) = error else { return false };
    let kinds = [
        io::ErrorKind::NetworkUnreachable,
        io::ErrorKind::HostUnreachable,
        io::ErrorKind::AddrNotAvailable,
    ];
    let no_such_family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(no_such_family)
}

/// The values of the TXT records at this name in an answer.
pub(super) fn texts(answer: &Message, name: &Name) -> Vec<Vec<u8>> {
    let at_name = answer.answers.iter().filter(|record| record.name == *name);
    at_name
        .filter_map(|record| {
            let RData::TXT(text) = &record.data else { return None };
            Some(text.txt_data.concat())
        })
        .collect()
}

/// Why a server could not be asked, in words.
pub(super) fn words(error: &NetError) -> String {
    if let NetError::Timeout = error {
        "does not answer in time".to_owned()
    } else if let NetError::Io(error) = error {
        format!("cannot be reached: {error}")
    } else {
        format!("cannot be understood: {error}")
    }
}
