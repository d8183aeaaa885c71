#![no_main]

#[path = "../../src/framing.rs"]
#[allow(dead_code)]
mod framing;
#[path = "../response_laws.rs"]
mod laws;
#[path = "../upstream.rs"]
mod upstream;

libfuzzer_sys::fuzz_target!(|data: &[u8]| laws::response(data));
