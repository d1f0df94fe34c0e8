//! Frames of a hostile peer among the commands of an application.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netchannel_vns::fuzzing::check_hostile(bytes));
