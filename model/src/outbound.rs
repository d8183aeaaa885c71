//! The outbound network of a container: how what it begins leaves the host.
//!
//! A container without one goes the host's way. With one, nothing leaves it ([`Way::Block`]), or its
//! TCP leaves through a proxy of its owner's ([`Way::Proxy`]). Credentials of a proxy are apart from
//! the rest, because they are never shown again and are sealed where they are kept.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
pub use url::Host;
use url::Url;

use crate::FieldError;

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// SOCKS, version 5.
    Socks5,
    /// HTTP, method CONNECT.
    Http,
    /// The same inside of TLS.
    Https,
}

/// Where a proxy is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// What it speaks.
    pub scheme: Scheme,
    /// Its name in lower case, or its address.
    pub host: Host<String>,
    /// Its port.
    pub port: u16,
}

/// What a proxy wants to hear before it serves. Neither part is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who asks: 1 to 255 octets without control characters and colons.
    pub user: String,
    /// The secret: at most 255 octets without control characters.
    pub password: String,
}

/// How what a container begins leaves the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Not at all.
    Block,
    /// TCP through this proxy, and nothing else.
    Proxy(Endpoint),
}

/// What an owner says of the place that a proxy stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels {
    /// A country.
    pub country: Option<String>,
    /// A city.
    pub city: Option<String>,
    /// A region.
    pub region: Option<String>,
    /// Anything.
    pub comment: Option<String>,
}

/// The outbound network that an owner has configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outbound {
    /// The way.
    pub way: Way,
    /// What is said of it.
    pub labels: Labels,
    /// Who is asked for names, at most [`Outbound::DNS_SERVERS_MAX`].
    pub dns_servers: Vec<IpAddr>,
    /// Whether it is in force; if not, the container goes the host's way.
    pub is_on: bool,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Socks5, Self::Http, Self::Https];

    /// The name in URLs, which the API has for the kind of network, too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Socks5 => "socks5",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Socks5 => 1080,
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Endpoint {
    /// The most characters of a proxy's URL.
    pub const URL_MAX: usize = 1024;

    /// Reads a URL as `socks5://user:secret@proxy.example:1080`. The error is a rule that never repeats
    /// the text, which may hold a secret.
    pub fn parse(scheme: Scheme, text: &str) -> Result<(Self, Option<Credentials>), String> {
        let form = format!("must be a URL as {0}://[user:password@]host[:port]", scheme.as_str());
        if text.len() > Self::URL_MAX {
            return Err(format!("must have at most {} octets", Self::URL_MAX));
        }
        // The parser drops some of them without a word.
        if text.chars().any(|c| c.is_control() || c == ' ' || c == '\\') {
            return Err("must not have spaces, backslashes or control characters".to_owned());
        }
        let url = Url::parse(text).map_err(|_it_holds_secrets| form.clone())?;
        let rest = (url.path(), url.query(), url.fragment());
        if url.scheme() != scheme.as_str() || !matches!(rest, ("" | "/", None, None)) {
            return Err(form);
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => host(name).ok_or_else(|| {
                "must name a host by letters, digits, hyphens and dots, or by its address"
                    .to_owned()
            })?,
            Some(Host::Ipv4(address)) => Host::Ipv4(address),
            Some(Host::Ipv6(address)) => Host::Ipv6(address),
            None => return Err(form),
        };
        let port = url.port().unwrap_or_else(|| scheme.port());
        if port == 0 {
            return Err("must have a port from 1 to 65535".to_owned());
        }
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some(Credentials::decode(user, password.unwrap_or_default())?),
        };
        Ok((Self { scheme, host, port }, credentials))
    }
}

/// The host that a name, or an address in the place of one, means.
fn host(name: &str) -> Option<Host<String>> {
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return Some(Host::Ipv4(address));
    }
    let fits = |label: &str| {
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (1..=63).contains(&label.len())
            && label.chars().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label of digits would be an address to some.
    let is_numeric = |label: &str| label.chars().all(|c| c.is_ascii_digit());
    let labels: Vec<_> = name.strip_suffix('.').unwrap_or(name).split('.').collect();
    let fits = name.len() <= 253 && labels.iter().all(|label| fits(label));
    (fits && !labels.last().is_some_and(|label| is_numeric(label)))
        .then(|| Host::Domain(name.to_ascii_lowercase()))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

impl Credentials {
    /// Takes the parts of a URL's userinfo.
    fn decode(user: &str, password: &str) -> Result<Self, String> {
        let decode = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8().ok()?;
            let fits = decoded.len() <= 255 && !decoded.chars().any(char::is_control);
            fits.then(|| decoded.into_owned())
        };
        match (decode(user), decode(password)) {
            (Some(user), Some(password)) if !user.is_empty() && !user.contains(':') => {
                Ok(Self { user, password })
            }
            _ => Err("must have a user of 1 to 255 octets without a colon, and a password of at most 255, \
                      neither with control characters"
                .to_owned()),
        }
    }

    /// The form in which they are sealed: no user has a colon.
    pub fn to_text(&self) -> String {
        format!("{}:{}", self.user, self.password)
    }

    /// Reads what [`Credentials::to_text`] wrote.
    pub fn from_text(text: &str) -> Option<Self> {
        let (user, password) = text.split_once(':')?;
        Some(Self { user: user.to_owned(), password: password.to_owned() })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without what is in it: this text may reach a log.
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Outbound {
    /// The most servers that are asked for names.
    pub const DNS_SERVERS_MAX: usize = 4;
    /// Those of who chooses none.
    pub const DNS_SERVERS: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)), IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8))];
    /// The most characters of a country, city or region.
    pub const LABEL_MAX: usize = 64;
    /// The most characters of a comment.
    pub const COMMENT_MAX: usize = 255;

    /// The name that the API has for the kind of network.
    pub const fn kind(&self) -> &'static str {
        match &self.way {
            Way::Block => "block",
            Way::Proxy(endpoint) => endpoint.scheme.as_str(),
        }
    }

    /// Where the proxy is, if there is one.
    pub const fn endpoint(&self) -> Option<&Endpoint> {
        match &self.way {
            Way::Block => None,
            Way::Proxy(endpoint) => Some(endpoint),
        }
    }

    /// Checks a text that says something of the place, at most so many characters.
    pub fn check_label(field: &str, text: &str, max: usize) -> Result<(), FieldError> {
        if text.chars().count() > max {
            return Err(FieldError::new(field, format!("must have at most {max} characters")));
        }
        if text.chars().any(char::is_control) {
            return Err(FieldError::new(field, "must not have control characters"));
        }
        Ok(())
    }

    /// Reads the addresses of servers that are to be asked for names; none means the usual ones.
    pub fn parse_dns_servers(field: &str, texts: &[String]) -> Result<Vec<IpAddr>, FieldError> {
        if texts.len() > Self::DNS_SERVERS_MAX {
            let rule = format!("must have at most {} addresses", Self::DNS_SERVERS_MAX);
            return Err(FieldError::new(field, rule));
        }
        let mut servers = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            let error = |rule| FieldError::new(format!("{field}[{at}]"), rule);
            let address: Ipv4Addr =
                text.parse().map_err(|_why| error("must be an IPv4 address"))?;
            let address = IpAddr::V4(address);
            if !is_of_one(address) {
                return Err(error(
                    "must be the address of a server that is not the container itself",
                ));
            }
            if servers.contains(&address) {
                return Err(error("must not be there twice"));
            }
            servers.push(address);
        }
        Ok(if servers.is_empty() { Self::DNS_SERVERS.to_vec() } else { servers })
    }

    /// The form in which it is stored.
    pub fn json(&self) -> Value {
        json!({
            "type": self.kind(),
            "proxy": self.endpoint().map(ToString::to_string),
            "country": self.labels.country,
            "city": self.labels.city,
            "region": self.labels.region,
            "comment": self.labels.comment,
            "dns_servers": self.dns_servers,
            "on": self.is_on,
        })
    }

    /// Reads what [`Outbound::json`] wrote.
    pub fn read(value: &Value) -> Result<Self, FieldError> {
        let fault = |field: &str| FieldError::new(field, "is not as it was written");
        let empty = Map::new();
        let object = value.as_object().unwrap_or(&empty);
        let text = |field: &str| object.get(field).and_then(Value::as_str);
        let label = |field: &str| text(field).map(str::to_owned);
        let kind = text("type").ok_or_else(|| fault("type"))?;
        let way = match Scheme::ALL.into_iter().find(|scheme| scheme.as_str() == kind) {
            None if kind == "block" => Way::Block,
            None => return Err(fault("type")),
            Some(scheme) => {
                let url = text("proxy").ok_or_else(|| fault("proxy"))?;
                let (endpoint, _) =
                    Endpoint::parse(scheme, url).map_err(|rule| FieldError::new("proxy", rule))?;
                Way::Proxy(endpoint)
            }
        };
        let servers = object.get("dns_servers").and_then(Value::as_array);
        let servers = servers.ok_or_else(|| fault("dns_servers"))?.iter();
        let servers = servers.map(|text| text.as_str()?.parse().ok()).collect::<Option<_>>();
        Ok(Self {
            way,
            labels: Labels {
                country: label("country"),
                city: label("city"),
                region: label("region"),
                comment: label("comment"),
            },
            dns_servers: servers.ok_or_else(|| fault("dns_servers"))?,
            is_on: object.get("on").and_then(Value::as_bool).ok_or_else(|| fault("on"))?,
        })
    }
}

/// Whether an address can be that of one other machine.
fn is_of_one(address: IpAddr) -> bool {
    let v6 = |address: Ipv6Addr| address.to_ipv4_mapped().is_none();
    !address.is_unspecified()
        && !address.is_loopback()
        && !address.is_multicast()
        && match address {
            IpAddr::V4(address) => !address.is_broadcast(),
            IpAddr::V6(address) => v6(address),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_from_its_url_and_its_secret_is_in_no_text() {
        let (endpoint, credentials) =
            Endpoint::parse(Scheme::Socks5, "socks5://al%40b:s%3Acret@Proxy.Example").unwrap();
        assert_eq!(endpoint.to_string(), "socks5://proxy.example:1080");
        let credentials = credentials.unwrap();
        assert_eq!((&*credentials.user, &*credentials.password), ("al@b", "s:cret"));
        assert_eq!(Credentials::from_text(&credentials.to_text()), Some(credentials.clone()));
        assert!(!format!("{credentials:?}").contains("cret"));
        for (scheme, url, want) in [
            (Scheme::Http, "http://192.0.2.1", "http://192.0.2.1:80"),
            (Scheme::Http, "http://192.0.2.1:3128/", "http://192.0.2.1:3128"),
            (Scheme::Https, "https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
            (Scheme::Socks5, "socks5://192.0.2.1", "socks5://192.0.2.1:1080"),
        ] {
            let (endpoint, credentials) = Endpoint::parse(scheme, url).unwrap();
            assert_eq!((endpoint.to_string(), credentials), (want.to_owned(), None), "{url}");
            assert_eq!(Endpoint::parse(scheme, want).unwrap().0, endpoint, "{url}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_its_text() {
        let long = format!("http://{}", "a".repeat(2000));
        for url in [
            "",
            "secret",
            "secret:3128",
            "socks5://secret",
            "https://secret",
            "http://",
            "http://secret:0",
            "http://secret:65536",
            "http://secret/path",
            "http://secret?q",
            "http://secret#f",
            "http://:secret@host",
            "http://a%3Ab:secret@host",
            "http://a%0a:secret@host",
            "http://a:%ff@secret",
            "http://sec ret",
            "http://sec\tret",
            "http://-secret",
            "http://secret..x",
            "http://se_cret",
            &long,
        ] {
            let rule = Endpoint::parse(Scheme::Http, url).unwrap_err();
            assert!(!rule.contains("secret"), "{url}: {rule}");
        }
        for url in ["socks5://1.2", "socks5://x.1", "socks5://%6c", "socks5://0x7f000001.1"] {
            assert!(Endpoint::parse(Scheme::Socks5, url).is_err(), "{url}");
        }
    }

    #[test]
    fn servers_of_names_are_addresses_of_others() {
        let read = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            Outbound::parse_dns_servers("d", &texts)
        };
        assert_eq!(read(&[]).unwrap(), Outbound::DNS_SERVERS);
        assert_eq!(read(&["9.9.9.9", "149.112.112.112"]).unwrap().len(), 2);
        for (texts, field) in [
            (&["1.1.1.1", "name"][..], "d[1]"),
            (&["127.0.0.1"], "d[0]"),
            (&["0.0.0.0"], "d[0]"),
            (&["224.0.0.1"], "d[0]"),
            (&["::ffff:127.0.0.1"], "d[0]"),
            (&["2620:fe::fe"], "d[0]"),
            (&["1.1.1.1", "1.1.1.1"], "d[1]"),
            (&["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4", "1.1.1.5"], "d"),
        ] {
            assert_eq!(read(texts).unwrap_err().field, field, "{texts:?}");
        }
    }

    #[test]
    fn what_is_stored_is_read_as_it_was() {
        let (endpoint, _) = Endpoint::parse(Scheme::Https, "https://proxy.example:8443").unwrap();
        for way in [Way::Block, Way::Proxy(endpoint)] {
            let labels = Labels { country: Some("NL".to_owned()), ..Labels::default() };
            let dns_servers = Outbound::DNS_SERVERS.to_vec();
            let outbound = Outbound { way, labels, dns_servers, is_on: false };
            assert_eq!(Outbound::read(&outbound.json()).unwrap(), outbound);
        }
        assert!(Outbound::read(&json!({ "type": "direct" })).is_err());
    }
}
