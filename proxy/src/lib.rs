//! The edge: listeners, the request pipeline, forwarding, error answers, the access log.
