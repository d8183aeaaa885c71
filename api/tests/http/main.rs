//! The router from outside: requests in, answers out.

mod bad_input;
mod behaviour;
mod lab;
mod replay;
