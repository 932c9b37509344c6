//! libFuzzer calls `protocol_ext_fuzz::response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_ext_fuzz::response(data, &mut |_| ()));
