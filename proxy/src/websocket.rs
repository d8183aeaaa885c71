//! `WebSocket`s that come as streams of HTTP/2 (RFC 8441).
//!
//! Containers speak HTTP/1.1 here. What a client asks by an extended `CONNECT` is asked of the
//! container by an upgrade, with a key of the edge's own; the container's proof is checked by the
//! edge, and what follows is the same octets both ways.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use h2::ext::Protocol;
use http::{HeaderMap, HeaderValue, Method, header};

use crate::{answer::Failure, deps::RequestId, forward::Downstreams, headers::Survey};

/// What every server of `WebSocket`s appends to a key (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The edge's half of an HTTP/1.1 handshake.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    key: HeaderValue,
    accept: String,
}

/// Makes an extended `CONNECT` the GET that opens a `WebSocket` over HTTP/1.1. The request's id is
/// the key: it need only be another one each time.
pub(crate) fn translate(
    request: Downstreams<'_>,
    survey: &mut Survey,
    id: RequestId,
) -> Result<Handshake, Failure> {
    let protocol = request.extensions().get::<Protocol>().map(Protocol::as_str);
    if !protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")) {
        return Err(Failure::MethodNotSupported);
    }
    *request.method_mut() = Method::GET;
    survey.upgrade = Some(HeaderValue::from_static("websocket"));
    Handshake::new(id.0)
}

impl Handshake {
    fn new(key: [u8; 16]) -> Result<Self, Failure> {
        let key = STANDARD.encode(key);
        let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
        let key = HeaderValue::try_from(key).or(Err(Failure::UpstreamBroken))?;
        Ok(Self { key, accept: STANDARD.encode(proof) })
    }

    /// Adds what HTTP/1.1 wants and HTTP/2 does not have.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::SEC_WEBSOCKET_KEY, self.key.clone());
        let version = headers.entry(header::SEC_WEBSOCKET_VERSION);
        version.or_insert(HeaderValue::from_static("13"));
        headers.remove(header::CONTENT_LENGTH);
    }

    /// Whether a 101 proves that the container has read the key. Takes the proof out, which HTTP/2
    /// does not have.
    pub(crate) fn is_accepted(&self, headers: &mut HeaderMap) -> bool {
        headers.remove(header::CONTENT_LENGTH);
        let accept = headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        accept.is_some_and(|accept| accept.as_bytes().trim_ascii() == self.accept.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_the_standard() {
        let handshake = Handshake::new(*b"the sample nonce").unwrap();
        assert_eq!(handshake.key, "dGhlIHNhbXBsZSBub25jZQ==");
        for (accept, want) in [
            (Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), true),
            (Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOp="), false),
            (Some(""), false),
            (None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(handshake.is_accepted(&mut headers), want, "{accept:?}");
            assert!(headers.is_empty());
        }
    }
}
