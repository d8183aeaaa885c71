//! Aliases: chosen names that lead to one service of one container.

use crate::{Scheme, Service};

/// What an alias or a custom hostname leads to, in its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AliasTarget {
    /// A port.
    Port {
        /// How the port is spoken to.
        scheme: Scheme,
        /// Its number, at least 1.
        port: u16,
    },
    /// A Kit service.
    Kit {
        /// Which.
        service: Service,
        /// Its instance.
        index: u16,
    },
    /// SSH, which browsers are told how to use.
    Ssh,
}

/// Where `/` of an alias leads: a path that begins with `/`, perhaps with a query; at most 2,048
/// octets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Landing {
    /// The path and query, as a request line has them.
    pub path_and_query: String,
    /// Whether nothing but `/` and the landing path exists.
    pub pinned: bool,
}
