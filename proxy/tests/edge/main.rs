//! The edge from outside: real sockets, octets written by hand, foreign clients.
//!
//! The modules are marked as tests, so that their helpers may unwrap as tests do.

#[cfg(test)]
mod aliases;
#[cfg(test)]
mod balancer;
#[cfg(test)]
mod bed;
#[cfg(test)]
#[path = "../../../tests/harness/browser.rs"]
#[expect(unreachable_pub, reason = "the end-to-end tests share it")]
mod browser;
#[cfg(test)]
mod chosen;
#[cfg(test)]
mod chromium;
#[cfg(test)]
mod client;
#[cfg(test)]
mod deadlines;
#[cfg(test)]
mod desync;
#[cfg(test)]
mod desync_h2;
#[cfg(test)]
mod desync_rows;
#[cfg(test)]
mod floods;
#[cfg(test)]
mod follower;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod forwarding;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod handover;
#[cfg(test)]
mod hooks;
#[cfg(test)]
mod hosts;
#[cfg(test)]
mod http1;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod http3;
#[cfg(test)]
mod interim;
mod kit;
mod kit_ports;
#[cfg(test)]
mod large;
#[cfg(test)]
mod life;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod origin;
#[cfg(test)]
#[path = "../../../tests/harness/outside.rs"]
#[expect(unreachable_pub, reason = "the end-to-end tests share it")]
mod outside;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod python;
#[cfg(test)]
mod ranges;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod sign_in;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod smuggling;
#[cfg(test)]
mod streaming;
#[cfg(test)]
mod stuck;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod transparent;
#[cfg(test)]
#[path = "../../../tests/harness/wait.rs"]
#[expect(unreachable_pub, reason = "the end-to-end tests share it")]
mod wait;
#[cfg(test)]
mod waking;
#[cfg(test)]
mod websocket;
#[cfg(test)]
mod websocket_cases;

#[cfg(test)]
use wait::{wait_for, wait_until};
