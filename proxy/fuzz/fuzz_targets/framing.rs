#![no_main]

#[path = "../../src/framing.rs"]
#[allow(dead_code)]
mod framing;
#[path = "../framing_laws.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|data: &[u8]| laws::framing(data));
