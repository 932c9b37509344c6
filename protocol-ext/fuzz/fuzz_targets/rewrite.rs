//! libFuzzer calls `protocol_ext_fuzz::rewrite`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_ext_fuzz::rewrite(data, &mut |_| ()));
