//! Fuzzes `quorate_fuzz::log_entry`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_fuzz::log_entry::run(data));
