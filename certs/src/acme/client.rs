//! The way to a CA, and its manners: what it says about when to come again is remembered here, because
//! the ACME library keeps it for some answers only.

use std::{
    collections::BTreeSet,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{LOCATION, RETRY_AFTER},
};
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::failure::type_of;
use crate::Clock;

/// The longest answer that is read, in octets: a chain has some thousand.
const ANSWER_MAX: usize = 1024 * 1024;
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a CA is left alone that is overloaded and does not say for how long.
const UNSAID: Duration = Duration::from_mins(1);
/// The longest that a CA is obeyed; what lies further is asked again then.
const OBEYED_MAX: Duration = Duration::from_hours(24);
/// When a CA that does not say is asked again for what anybody may read (RFC 9773, section 4.3.3), in seconds.
const ASK_AGAIN_S: HeaderValue = HeaderValue::from_static("21600");
/// For so many registrable domains in a row a CA refuses orders by limits until that is taken for a limit of the
/// account.
const LIMITED_MANY: usize = 3;

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
    busy: Mutex<Busy>,
    /// The registrable domains that it has refused orders for by limits, since it took one.
    limited: Mutex<BTreeSet<String>>,
}

#[derive(Default)]
struct Busy {
    /// Nothing may be asked before this: it said 429 or 503.
    until: Option<OffsetDateTime>,
    /// Whether the store does not know yet.
    is_news: bool,
}

impl Manners {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, busy: Mutex::default(), limited: Mutex::default() }
    }

    /// Until when it wants to be left alone; nothing if it may be asked.
    pub(crate) fn busy_until(&self) -> Option<OffsetDateTime> {
        let until = self.busy.lock().unwrap_or_else(PoisonError::into_inner).until;
        until.filter(|until| *until > (self.clock)())
    }

    /// As [`Self::busy_until`], once after it has been said.
    pub(crate) fn take_news(&self) -> Option<OffsetDateTime> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut busy.is_news) { busy.until } else { None }
    }

    /// It has issued a certificate.
    pub(crate) fn has_issued(&self) {
        self.limited.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// It has refused an order for names of these domains, or a step of one, by a limit. Says whether it does so whatever the domain.
    pub(crate) fn is_limited_all_over(&self, domains: Vec<String>) -> bool {
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        if limited.len() < LIMITED_MANY {
            limited.extend(domains);
        }
        limited.len() >= LIMITED_MANY
    }

    fn hear(&self, request: &Method, answer: &Response<Bytes>, heard: &Heard) {
        let now = (self.clock)();
        let pause = said(answer, now);
        if *request == Method::POST && heard.is_of_order() && is_limit(answer) {
            heard.limited_until(now + pause.unwrap_or(UNSAID));
            return;
        }
        let is_busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE]
            .contains(&answer.status());
        if is_busy {
            let until = Some(now + pause.unwrap_or(UNSAID));
            let busy = Busy { until, is_news: true };
            *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = busy;
        }
        heard.pause(pause);
    }
}

/// Whether a CA refuses something by a limit. Where that is about an order, the limit may be one of a domain, or of a
/// set of names (as at Let's Encrypt), so that it says nothing of other orders.
fn is_limit(answer: &Response<Bytes>) -> bool {
    let problem = serde_json::from_slice::<Problem>(answer.body());
    answer.status().is_client_error()
        && problem.is_ok_and(|problem| type_of(&problem) == Some("rateLimited"))
}

fn said(answer: &Response<Bytes>, now: OffsetDateTime) -> Option<Duration> {
    let said = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    said.and_then(|value| pause(value, now))
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
    pub(crate) heard: Heard,
}

/// What a CA has said to one client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    /// Whether it is spoken to about one order, a new one or one that it has.
    is_of_order: bool,
    /// Where it keeps what it has made last: an order that the library then does not like is there all the same.
    made: Option<String>,
    /// It has refused the order, or a step of it, by a limit, until then.
    limited: Option<OffsetDateTime>,
    /// What its last answer said about when to ask again.
    pause: Option<Duration>,
}

impl Heard {
    fn with<T>(&self, work: impl FnOnce(&mut Said) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on requests are about one order.
    pub(crate) fn begin_order(&self) {
        self.with(|said| *said = Said { is_of_order: true, ..Said::default() });
    }

    /// The address of what the CA has made last, once.
    pub(crate) fn take_made(&self) -> Option<String> {
        self.with(|said| said.made.take())
    }

    /// Until when it wants to hear nothing of the order that it has refused by a limit, once.
    pub(crate) fn take_limited(&self) -> Option<OffsetDateTime> {
        self.with(|said| said.limited.take())
    }

    /// What the last answer said about when to ask again, once.
    pub(crate) fn take_pause(&self) -> Option<Duration> {
        self.with(|said| said.pause.take())
    }

    /// Forgets that it has refused a step by a limit.
    pub(crate) fn forget_limit(&self) {
        self.with(|said| said.limited = None);
    }

    fn is_of_order(&self) -> bool {
        self.with(|said| said.is_of_order)
    }

    fn limited_until(&self, until: OffsetDateTime) {
        self.with(|said| said.limited = Some(until));
    }

    fn pause(&self, pause: Option<Duration>) {
        self.with(|said| said.pause = pause);
    }

    fn hear(&self, answer: &Response<Bytes>) {
        let at = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        if let (StatusCode::CREATED, Some(at)) = (answer.status(), at) {
            self.with(|said| said.made = Some(at.to_owned()));
        }
    }
}

impl Client {
    /// Sends a request, unless the CA wants to be left alone.
    pub(super) async fn carry(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        if self.manners.busy_until().is_some() {
            return Err(Error::Str("the CA wants to be left alone for a while"));
        }
        let method = request.method().clone();
        let answer = self.transport.send(request).await;
        let answer = answer.map_err(|error| Error::Other(Box::new(error)))?;
        self.manners.hear(&method, &answer, &self.heard);
        self.heard.hear(&answer);
        Ok(answer)
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let method = parts.method.clone();
            let answer = client.carry(Request::from_parts(parts, body)).await?;
            let is_unsaid = said(&answer, (client.manners.clock)()).is_none();
            let (mut parts, body) = answer.into_parts();
            if method == Method::GET && is_unsaid {
                // The library discards a suggestion about renewal that does not say when to ask again.
                parts.headers.insert(RETRY_AFTER, ASK_AGAIN_S);
            }
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

    /// A CA that answers everything in one way.
    #[derive(Debug)]
    struct Parrot(u16, Option<&'static str>, &'static str);

    #[async_trait::async_trait]
    impl Transport for Parrot {
        async fn send(&self, _request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
            let Self(status, after, body) = *self;
            let answer = Response::builder().status(status);
            let answer = match after {
                Some(after) => answer.header(RETRY_AFTER, after),
                None => answer,
            };
            answer.body(Bytes::from(body)).map_err(|error| TransportError(error.to_string()))
        }
    }

    const NOW: i64 = 784_111_777;
    const LIMITED: &str = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"slow"}"#;

    fn client(parrot: Parrot) -> Client {
        let clock: Clock = Arc::new(|| OffsetDateTime::from_unix_timestamp(NOW).unwrap());
        Client {
            transport: Arc::new(parrot),
            manners: Arc::new(Manners::new(clock)),
            heard: Heard::default(),
        }
    }

    async fn ask(client: &Client, method: Method) -> BytesResponse {
        let request = Request::builder().method(method).uri("https://ca/x");
        client.request(request.body(BodyWrapper::default()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_limit_of_an_order_holds_that_and_nothing_else() {
        let cases = [
            // Until when (in seconds) the CA is left alone, and the order.
            (Method::POST, true, Parrot(429, Some("86400"), LIMITED), None, Some(86_400)),
            (Method::POST, true, Parrot(403, None, LIMITED), None, Some(60)),
            (Method::POST, true, Parrot(429, Some("100"), "slow down"), Some(100), None),
            (Method::POST, true, Parrot(503, Some("100"), LIMITED), Some(100), None),
            (Method::POST, false, Parrot(429, Some("100"), LIMITED), Some(100), None),
            // As for a number that is used once.
            (Method::HEAD, true, Parrot(429, None, ""), Some(60), None),
            (Method::GET, false, Parrot(200, Some("100"), ""), None, None),
        ];
        for (method, is_order, parrot, busy, limited) in cases {
            let case = format!("{method} {is_order} {parrot:?}");
            let client = client(parrot);
            if is_order {
                client.heard.begin_order();
            }
            ask(&client, method).await;
            let left = |until: Option<OffsetDateTime>| until.map(|it| it.unix_timestamp() - NOW);
            assert_eq!(left(client.manners.busy_until()), busy, "{case}");
            assert_eq!(left(client.heard.take_limited()), limited, "{case}");
            // It is told once, for the store.
            assert_eq!(left(client.manners.take_news()), busy, "{case}");
            assert_eq!(client.manners.take_news(), None, "{case}");
        }
    }

    #[test]
    fn limits_of_three_domains_in_a_row_are_one_of_the_account() {
        let manners = client(Parrot(200, None, "")).manners;
        let limited = |domain: &str| manners.is_limited_all_over(vec![domain.to_owned()]);
        assert!(!limited("one.test") && !limited("two.test") && !limited("one.test"));
        manners.has_issued();
        assert!(!limited("three.test") && !limited("two.test"));
        assert!(limited("one.test") && limited("one.test"));
        manners.has_issued();
        assert!(!limited("one.test"));
    }

    #[tokio::test]
    async fn a_suggestion_without_a_time_is_asked_for_again_in_six_hours() {
        let after = |answer: &BytesResponse| {
            answer.parts.headers.get(RETRY_AFTER).map(|it| it.to_str().unwrap().to_owned())
        };
        for (said, want) in [(None, "21600"), (Some("soon"), "21600"), (Some("7"), "7")] {
            let client = client(Parrot(200, said, "{}"));
            assert_eq!(after(&ask(&client, Method::GET).await).as_deref(), Some(want));
            // That is for the library alone.
            let pause = said.and_then(|said| said.parse().ok()).map(Duration::from_secs);
            assert_eq!(client.heard.take_pause(), pause);
            assert_eq!(client.heard.take_pause(), None);
        }
        assert_eq!(after(&ask(&client(Parrot(200, None, "{}")), Method::POST).await), None);
    }
}
