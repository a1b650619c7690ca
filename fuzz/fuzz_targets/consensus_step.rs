//! Fuzzes `quorate_fuzz::consensus_step`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_fuzz::consensus_step::run(data));
