//! Packets of an application that attaches, and of the engine, in any order.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netchannel_attach::fuzzing::check_attach(bytes));
