//! libFuzzer calls `protocol_ext_fuzz::codec`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_ext_fuzz::codec(data, &mut |_| ()));
