//! libFuzzer calls `protocol_ext_fuzz::batch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_ext_fuzz::batch(data, &mut |_| ()));
