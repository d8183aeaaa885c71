//! Which host a request is for.
//!
//! A request may name its host in up to two places. They must agree, and the name must be one that a
//! host can have; everything else is refused before anything is looked up.

use gantry_model::Hostname;
use http::{HeaderValue, Uri, Version, uri::Scheme};

use crate::{answer::Failure, headers::Survey};

/// The authority that a request is for, as the client typed it: `host[:port]`.
pub(crate) fn authority(
    uri: &Uri,
    version: Version,
    survey: &Survey,
) -> Result<HeaderValue, Failure> {
    if survey.host_twice {
        return Err(Failure::HostInvalid);
    }
    let Some(target) = uri.authority() else {
        return survey.host.clone().ok_or(Failure::HostMissing);
    };
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => {}
        Some(_) => return Err(Failure::BadRequest("the target is of another scheme")),
        // The form of CONNECT alone (RFC 9112, 3.2.3).
        None => return Err(Failure::BadRequest("the target is a host and no path")),
    }
    let https = uri.scheme() == Some(&Scheme::HTTPS);
    match &survey.host {
        Some(host) if agree(host, target.as_str(), https) => Ok(host.clone()),
        Some(_) => Err(Failure::HostInvalid),
        // Since HTTP/2 the authority stands for the field; HTTP/1.1 wants both (RFC 9112, 3.2.2).
        None if matches!(version, Version::HTTP_2 | Version::HTTP_3) => {
            HeaderValue::from_str(target.as_str()).or(Err(Failure::HostInvalid))
        }
        None => Err(Failure::HostMissing),
    }
}

/// The hostname of `authority`. The port is checked for its form and then ignored: it says how the
/// client came here, not what for.
pub(crate) fn hostname(authority: &HeaderValue) -> Result<Hostname<'_>, Failure> {
    let text = authority.to_str().or(Err(Failure::HostInvalid))?;
    let (hostname, _port) = Hostname::parse_authority(text).or(Err(Failure::HostInvalid))?;
    Ok(hostname)
}

/// Whether `Host` and the authority of the target mean the same.
fn agree(host: &HeaderValue, target: &str, https: bool) -> bool {
    if host.as_bytes() == target.as_bytes() {
        return true;
    }
    let port = if https { 443 } else { 80 };
    let parse = |text| {
        Hostname::parse_authority(text).map(|(name, given)| (name, given.unwrap_or(port))).ok()
    };
    let host = host.to_str().ok().and_then(parse);
    host.is_some() && host == parse(target)
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use http::{HeaderMap, header};

    use super::*;

    fn ask(target: &str, hosts: &[&str], version: Version) -> Result<String, Failure> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        let survey = Survey::of(&headers, version);
        let authority = authority(&target.parse().unwrap(), version, &survey)?;
        Ok(hostname(&authority)?.as_str().to_owned())
    }

    #[test]
    fn a_request_names_one_host() {
        use Failure::{BadRequest, HostInvalid, HostMissing};
        let (h1, h2) = (Version::HTTP_11, Version::HTTP_2);
        for (target, hosts, version, want) in [
            ("/", &["a.example"][..], h1, Ok("a.example")),
            ("/", &["A.Example."], h1, Ok("a.example")),
            ("/", &["a.example:8443"], h1, Ok("a.example")),
            ("/", &[], h1, Err(HostMissing)),
            ("/", &["a.example", "a.example"], h1, Err(HostInvalid)),
            ("/", &["a.example", "b.example"], h1, Err(HostInvalid)),
            ("/", &[""], h1, Err(HostInvalid)),
            ("/", &["a.example:"], h1, Err(HostInvalid)),
            ("/", &["a.example:0"], h1, Err(HostInvalid)),
            ("/", &["a.example:99999"], h1, Err(HostInvalid)),
            ("/", &["a.example:+80"], h1, Err(HostInvalid)),
            ("/", &["a.example, b.example"], h1, Err(HostInvalid)),
            ("/", &["user@a.example"], h1, Err(HostInvalid)),
            ("/", &["a.example/x"], h1, Err(HostInvalid)),
            ("/", &["a b"], h1, Err(HostInvalid)),
            ("/", &["a..example"], h1, Err(HostInvalid)),
            ("/", &["-a.example"], h1, Err(HostInvalid)),
            ("/", &["127.0.0.1:8443"], h1, Err(HostInvalid)),
            ("/", &["[::1]"], h1, Err(HostInvalid)),
            ("/", &["a.exämple"], h1, Err(HostInvalid)),
            ("https://a.example/", &["a.example"], h1, Ok("a.example")),
            ("https://a.example:443/", &["A.example"], h1, Ok("a.example")),
            ("https://a.example/", &["b.example"], h1, Err(HostInvalid)),
            ("https://a.example/", &["a.example:8443"], h1, Err(HostInvalid)),
            ("https://a.example/", &[], h1, Err(HostMissing)),
            ("https://u@a.example/", &["u@a.example"], h1, Err(HostInvalid)),
            ("https://u@a.example/", &["a.example"], h1, Err(HostInvalid)),
            ("https://a.example:8443/", &[], h2, Ok("a.example")),
            ("https://a.example/", &["a.example"], h2, Ok("a.example")),
            ("https://a.example/", &["b.example"], h2, Err(HostInvalid)),
            ("https://u@a.example/", &[], h2, Err(HostInvalid)),
            (
                "ftp://a.example/",
                &["a.example"],
                h1,
                Err(BadRequest("the target is of another scheme")),
            ),
            ("a.example", &["a.example"], h1, Err(BadRequest("the target is a host and no path"))),
        ] {
            let got = ask(target, hosts, version);
            assert_eq!(got, want.map(str::to_owned), "{target} {hosts:?} {version:?}");
        }
    }
}
