//! libFuzzer calls `protocol_ext_fuzz::reference`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_ext_fuzz::reference(data, &mut |_| ()));
