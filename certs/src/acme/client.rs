//! The way to a CA, and its manners: what it says about when to come again is remembered here, because
//! the ACME library keeps it for some answers only.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{LOCATION, RETRY_AFTER},
};
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use crate::Clock;

/// The longest answer that is read, in octets: a chain has some thousand.
const ANSWER_MAX: usize = 1024 * 1024;
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a CA is left alone that is overloaded and does not say for how long.
const UNSAID: Duration = Duration::from_mins(1);
/// The longest that a CA is obeyed; what lies further is asked again then.
const OBEYED_MAX: Duration = Duration::from_hours(24);

/// Carries requests to CAs.
#[async_trait::async_trait]
pub trait Transport: fmt::Debug + Send + Sync {
    /// Sends a request and reads the whole answer, of whatever status.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError>;
}

/// A request got no answer.
#[derive(Debug, thiserror::Error)]
#[error("the CA cannot be reached: {0}")]
pub struct TransportError(pub String);

/// HTTPS, with the CAs that browsers trust, or another one.
#[derive(Clone, Debug)]
pub struct Https(reqwest::Client);

impl Https {
    /// A client that trusts `roots` (PEM) instead of the usual CAs, if given: for CAs of one's own.
    pub fn new(roots: Option<&[u8]>) -> Result<Self, TransportError> {
        let refused = |error: reqwest::Error| TransportError(chain(&error));
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("gantry/", env!("CARGO_PKG_VERSION")));
        if let Some(roots) = roots {
            let roots = reqwest::Certificate::from_pem_bundle(roots).map_err(refused)?;
            builder = builder.tls_certs_only(roots);
        }
        builder.build().map(Self).map_err(refused)
    }
}

#[async_trait::async_trait]
impl Transport for Https {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let refused = |error: reqwest::Error| TransportError(chain(&error.without_url()));
        let request = reqwest::Request::try_from(request).map_err(refused)?;
        let mut answer = self.0.execute(request).await.map_err(refused)?;
        let mut made = Response::builder().status(answer.status());
        if let Some(headers) = made.headers_mut() {
            std::mem::swap(headers, answer.headers_mut());
        }
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(refused)? {
            if body.len() + part.len() > ANSWER_MAX {
                return Err(TransportError(format!("its answer is over {ANSWER_MAX} octets")));
            }
            body.extend_from_slice(&part);
        }
        made.body(body.into()).map_err(|error| TransportError(error.to_string()))
    }
}

/// What a CA has said about when it wants to be asked again.
pub(crate) struct Manners {
    clock: Clock,
    /// Nothing may be asked before this: it said 429 or 503.
    busy_until: Mutex<Option<OffsetDateTime>>,
    /// What its last answer said.
    last: Mutex<Option<Duration>>,
}

impl Manners {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, busy_until: Mutex::default(), last: Mutex::default() }
    }

    /// Until when it wants to be left alone; nothing if it may be asked.
    pub(crate) fn busy_until(&self) -> Option<OffsetDateTime> {
        let until = *self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.filter(|until| *until > (self.clock)())
    }

    /// What the last answer said about when to ask again, once.
    pub(crate) fn take_pause(&self) -> Option<Duration> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn hear(&self, answer: &Response<Bytes>) {
        let now = (self.clock)();
        let said = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let pause = said.and_then(|value| pause(value, now));
        let is_busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE]
            .contains(&answer.status());
        if is_busy {
            let until = now + pause.unwrap_or(UNSAID);
            *self.busy_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = pause;
    }
}

impl fmt::Debug for Manners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manners").field("busy_until", &self.busy_until()).finish_non_exhaustive()
    }
}

/// RFC 9110, section 10.2.3: seconds, or a date.
fn pause(value: &str, now: OffsetDateTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(OBEYED_MAX));
    }
    // An HTTP date is one of RFC 2822 but for the name of its zone.
    let date = value.strip_suffix("GMT").map(|date| format!("{date}+0000"))?;
    let at = OffsetDateTime::parse(&date, &Rfc2822).ok()?;
    Some(Duration::try_from(at - now).unwrap_or_default().min(OBEYED_MAX))
}

/// A [`Transport`] as the ACME library wants it. It does not ask a CA that wants to be left alone.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) manners: Arc<Manners>,
    pub(crate) made: Made,
}

/// Where the CA keeps what it has made last at a client's request: an order that the library then does not like is
/// there all the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Made(Arc<Mutex<Option<String>>>);

impl Made {
    /// The address, once.
    pub(crate) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn hear(&self, answer: &Response<Bytes>) {
        let at = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        if let (StatusCode::CREATED, Some(at)) = (answer.status(), at) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(at.to_owned());
        }
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (transport, manners) = (Arc::clone(&self.transport), Arc::clone(&self.manners));
        let made = self.made.clone();
        Box::pin(async move {
            if manners.busy_until().is_some() {
                return Err(Error::Str("the CA wants to be left alone for a while"));
            }
            let (parts, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let answer = transport.send(Request::from_parts(parts, body)).await;
            let answer = answer.map_err(|error| Error::Other(Box::new(error)))?;
            manners.hear(&answer);
            made.hear(&answer);
            let (parts, body) = answer.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

/// An error with all that it comes from.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    gantry_model::Chain(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_read_as_seconds_and_as_a_date_and_has_a_bound() {
        let now = OffsetDateTime::from_unix_timestamp(784_111_777).unwrap();
        assert_eq!(pause("120", now), Some(Duration::from_mins(2)));
        // The date of RFC 9110's examples is the second above.
        assert_eq!(pause("Sun, 06 Nov 1994 08:50:37 GMT", now), Some(Duration::from_mins(1)));
        assert_eq!(pause("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(pause("99999999999", now), Some(OBEYED_MAX));
        for bad in ["", "-1", "soon", "GMT"] {
            assert_eq!(pause(bad, now), None, "{bad}");
        }
    }

    #[test]
    fn a_ca_that_is_busy_is_left_alone_and_others_are_only_heard() {
        let now = OffsetDateTime::from_unix_timestamp(784_111_777).unwrap();
        let manners = Manners::new(Arc::new(move || now));
        let answer = |status: u16, after: &str| {
            let answer = Response::builder().status(status).header(RETRY_AFTER, after);
            answer.body(Bytes::new()).unwrap()
        };
        manners.hear(&answer(200, "7"));
        assert_eq!(manners.busy_until(), None);
        assert_eq!(manners.take_pause(), Some(Duration::from_secs(7)));
        assert_eq!(manners.take_pause(), None);
        manners.hear(&answer(429, "100"));
        assert_eq!(manners.busy_until(), Some(now + Duration::from_secs(100)));
    }
}
