//! A message header, and the header of a frame that announces a chunk.

use std::hint::black_box;

use netchannel_units::{ByteRange, StreamOffset};
use netchannel_wire::frame::GrantId;
use netchannel_wire::{Frame, MessageDraft, MessageHeader, StreamId, parse};

use crate::case::{Bench, Case};

/// See the module.
pub const CASES: &[Case] = &[
    Case { name: "wire/encode-header", batch: BATCH, build: encode_header },
    Case { name: "wire/decode-header", batch: BATCH, build: decode_header },
    Case { name: "wire/encode-frame", batch: BATCH, build: encode_frame },
    Case { name: "wire/decode-frame", batch: BATCH, build: decode_frame },
];

const BATCH: u64 = 1024;
/// Frames of one message.
const FRAMES: usize = 128;

fn header(sequence: u64) -> MessageHeader {
    let (acknowledged, credit) = (black_box(7), black_box(64));
    MessageHeader { sequence: black_box(sequence as u32), acknowledged, credit, frames: 0 }
}

/// Announces chunk `number`.
fn announce(draft: &mut MessageDraft, slot: &mut [u8], number: u64) {
    let [start, end] = [number, number + 1].map(|number| StreamOffset::new(number * 4_096));
    let (range, backlog) = (ByteRange::between(start, end), black_box(65_536));
    let (stream, grant) = (StreamId(black_box(4)), GrantId(black_box(1)));
    draft.push_written(slot, stream, grant, range, backlog).expect("room for a frame");
}

fn encode_header() -> Box<dyn Bench> {
    let mut slot = vec![0; 8_192];
    Box::new(move || {
        for sequence in 0..BATCH {
            let mut draft = MessageDraft::new();
            black_box(draft.finish(black_box(&mut slot), &header(sequence)));
        }
    })
}

fn decode_header() -> Box<dyn Bench> {
    let mut slot = vec![0; 8_192];
    let len = MessageDraft::new().finish(&mut slot, &header(3));
    Box::new(move || {
        for _ in 0..BATCH {
            let (header, frames) = parse(black_box(&slot[..len])).expect("a sound message");
            black_box((header, frames));
        }
    })
}

fn encode_frame() -> Box<dyn Bench> {
    let mut slot = vec![0; 8_192];
    Box::new(move || {
        for _ in 0..BATCH / FRAMES as u64 {
            let mut draft = MessageDraft::new();
            for number in 0..FRAMES as u64 {
                announce(&mut draft, black_box(&mut slot), black_box(number));
            }
            black_box(draft);
        }
    })
}

fn decode_frame() -> Box<dyn Bench> {
    let mut slot = vec![0; 8_192];
    let mut draft = MessageDraft::new();
    for number in 0..FRAMES as u64 {
        announce(&mut draft, &mut slot, number);
    }
    let len = draft.finish(&mut slot, &header(1));
    Box::new(move || {
        for _ in 0..BATCH / FRAMES as u64 {
            let (_, frames) = parse(black_box(&slot[..len])).expect("a sound message");
            for frame in frames {
                match frame.expect("a sound frame") {
                    Frame::Written { range, .. } => {
                        black_box(range);
                    }
                    other => panic!("{other:?} was not encoded"),
                }
            }
        }
    })
}
