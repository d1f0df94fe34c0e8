//! Endpoints, what NICs in memory say to each other, and the headers of datagrams.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netchannel_verbs::fuzzing::check_queues(bytes));
