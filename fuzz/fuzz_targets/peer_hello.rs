//! Fuzzes `quorate_fuzz::peer_hello`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_fuzz::peer_hello::run(data));
