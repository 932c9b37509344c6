//! libFuzzer calls `protocol_ext_fuzz::tail`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_ext_fuzz::tail(data, &mut |_| ()));
