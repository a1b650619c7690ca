//! Fuzzes `quorate_fuzz::lease_core`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_fuzz::lease_core::run(data));
