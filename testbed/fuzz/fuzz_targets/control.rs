//! The control connection, both ends of it, fresh and established.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netchannel_wire::fuzzing::check_control(bytes));
