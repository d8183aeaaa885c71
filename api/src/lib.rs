//! The HTTP API: wire types, handlers, errors, the OpenAPI document.
