//! Fuzzes `quorate_fuzz::replica_step`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_fuzz::replica_step::run(data));
