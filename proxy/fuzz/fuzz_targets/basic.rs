#![no_main]

#[path = "../modules.rs"]
mod modules;
use modules::cookies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| modules::laws::basic(data));
