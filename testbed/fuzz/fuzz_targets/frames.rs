//! Messages of the data path.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netchannel_wire::fuzzing::check_frames(bytes));
