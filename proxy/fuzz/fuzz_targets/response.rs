#![no_main]

#[path = "../../src/framing.rs"]
#[allow(dead_code)]
mod framing;
#[path = "../response_laws.rs"]
mod laws;
mod upstream {
    #[path = "../../../src/upstream/response.rs"]
    #[allow(dead_code)]
    pub(crate) mod response;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| laws::response(data));
