//! Fuzzes `quorate_fuzz::coord_apply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_fuzz::coord_apply::run(data));
