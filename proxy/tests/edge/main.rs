//! The edge from outside: real sockets, octets written by hand, foreign clients.

mod bed;
mod client;
mod deadlines;
mod foreign;
mod forwarding;
mod hosts;
mod http2;
mod kit;
mod life;
mod origin;
mod pages;
mod smuggling;
mod streaming;
