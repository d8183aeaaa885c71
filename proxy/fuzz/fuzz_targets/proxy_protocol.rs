#![no_main]

// The module is pure and private to the edge: it is compiled in here by its path.
#[path = "../../src/proxy_protocol/mod.rs"]
#[allow(dead_code)]
mod proxy_protocol;

#[path = "../laws.rs"]
#[allow(dead_code)]
mod laws;

libfuzzer_sys::fuzz_target!(|data: &[u8]| laws::proxy_protocol(data));
