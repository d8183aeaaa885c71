//! Certificates: the development CA and the resolver that TLS asks.
