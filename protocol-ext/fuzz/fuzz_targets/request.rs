//! libFuzzer calls `protocol_ext_fuzz::request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_ext_fuzz::request(data, &mut |_| ()));
