// The modules of the edge that read credentials. They are pure and private to it: they are compiled in
// here by their paths, as the edge has them.

#[path = "../src/guard/basic.rs"]
#[allow(dead_code)]
pub(crate) mod basic;
#[path = "../src/cookies.rs"]
#[allow(dead_code)]
pub(crate) mod cookies;
#[path = "../src/guard/jwt.rs"]
#[allow(dead_code)]
pub(crate) mod jwt;
#[path = "credential_laws.rs"]
#[allow(dead_code)]
pub(crate) mod laws;
#[path = "../src/guard/query.rs"]
#[allow(dead_code)]
pub(crate) mod query;
