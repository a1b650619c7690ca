//! Fuzzes `quorate_fuzz::client_protocol`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_fuzz::client_protocol::run(data));
