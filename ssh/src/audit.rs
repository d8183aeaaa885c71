//! What audit lines tell of a connection's forwards.

use std::collections::HashSet;

use gantry_session::protocol::Target;

/// Addresses that are told of for one connection.
const TOLD: usize = 32;

/// Which way connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Forward {
    /// From the client to an address inside.
    In,
    /// From an address inside to the client.
    Out,
}

impl Forward {
    /// As it is called in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// The addresses of a connection that have been told of.
#[derive(Debug, Default)]
pub(crate) struct Forwards(HashSet<(Forward, Target)>);

impl Forwards {
    /// What to tell of an address that is connected to or listened at: each once, and of so many only, since a
    /// client can name as many as it likes.
    pub(crate) fn first(&mut self, forward: Forward, at: &Target) -> Option<String> {
        if self.0.len() > TOLD || !self.0.insert((forward, at.clone())) {
            return None;
        }
        Some(match at {
            _ if self.0.len() > TOLD => "others, which are not told of".to_owned(),
            Target::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Target::Tcp(host, port) => format!("{host}:{port}"),
            Target::Unix(path) => String::from_utf8_lossy(path).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_told_of_once_and_no_more_than_some() {
        let mut forwards = Forwards::default();
        let tcp = |host: &str, port| Target::Tcp(host.to_owned(), port);
        let web = tcp("::1", 80);
        assert_eq!(forwards.first(Forward::In, &web).as_deref(), Some("[::1]:80"));
        assert_eq!(forwards.first(Forward::In, &web), None);
        assert_eq!(forwards.first(Forward::Out, &web).as_deref(), Some("[::1]:80"));
        let socket = Target::Unix(b"/run/\xff".to_vec());
        assert_eq!(forwards.first(Forward::In, &socket).as_deref(), Some("/run/\u{fffd}"));
        let told: Vec<_> =
            (1..100).filter_map(|port| forwards.first(Forward::In, &tcp("db", port))).collect();
        assert_eq!(told.len(), 30);
        assert_eq!(told.first().map(String::as_str), Some("db:1"));
        assert_eq!(told.last().map(String::as_str), Some("others, which are not told of"));
        assert_eq!(forwards.0.len(), 33);
    }
}
