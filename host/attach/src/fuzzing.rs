//! What must hold for any bytes from the other side: shared by the fuzz target in `testbed/fuzz` and
//! by the test that replays its corpus.

use crate::event::Event;
use crate::hearing::{Heard, Hearing, State};
use crate::hello::{Hello, Reception};
use crate::request::Request;

/// Bytes of the head of each packet in a fuzz input: its length, little endian.
const LENGTH: usize = 2;

/// A fuzz input of these packets.
pub fn input(packets: &[Vec<u8>]) -> Vec<u8> {
    let with_length = |packet: &Vec<u8>| {
        let length = packet.len().min(usize::from(u16::MAX));
        [&(length as u16).to_le_bytes(), &packet[..length]].concat()
    };
    packets.iter().flat_map(with_length).collect()
}

/// Any packets in any order are refused, or are messages that encode to what reads the same; after
/// the first error nothing is heard any more.
///
/// # Panics
/// If that does not hold.
pub fn check_attach(mut bytes: &[u8]) {
    let mut hearing = Hearing::default();
    while let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (packet, rest) = rest.split_at(length);
        bytes = rest;
        let before = hearing.state();
        // One packet in 256 claims a descriptor.
        let descriptors = usize::from(packet.last() == Some(&0xFF));
        match hearing.on_packet(packet, descriptors) {
            Ok(heard) => {
                assert_eq!(hearing.state(), State::Open);
                assert_eq!(matches!(heard, Heard::Hello(_)), before == State::Silent);
                assert_eq!(descriptors, 0);
            }
            Err(_) => assert_eq!(hearing.state(), State::Over),
        }
        check_packet(packet);
    }
}

fn check_packet(packet: &[u8]) {
    if let Ok(hello) = Hello::decode(packet) {
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }
    if let Ok(reception) = Reception::decode(packet) {
        assert_eq!(Reception::decode(&reception.encode()), Ok(reception));
    }
    if let Ok(request) = Request::decode(packet) {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    if let Ok(event) = Event::decode(packet) {
        assert_eq!(Event::decode(&event.encode()), Ok(event));
    }
}
