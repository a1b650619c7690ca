//! Fuzzes `quorate_fuzz::peer_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_fuzz::peer_message::run(data));
