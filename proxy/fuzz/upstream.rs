// The pure part of the client towards containers, at the path that it has in the edge.

#[path = "../src/upstream/response.rs"]
#[allow(dead_code)]
pub(crate) mod response;
