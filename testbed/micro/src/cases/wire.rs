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
    MessageHeader { sequence: sequence as u32, acknowledged: 7, credit: 64, frames: 0 }
}

fn announcement(number: u64) -> Frame<'static> {
    Frame::Written {
        stream: StreamId(4),
        grant: GrantId(1),
        range: ByteRange::between(
            StreamOffset::new(number * 4_096),
            StreamOffset::new((number + 1) * 4_096),
        ),
        backlog: 65_536,
    }
}

fn encode_header() -> Box<dyn Bench> {
    let mut slot = vec![0; 8_192];
    Box::new(move || {
        for sequence in 0..BATCH {
            let mut draft = MessageDraft::new();
            black_box(draft.finish(black_box(&mut slot), black_box(&header(sequence))));
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
                let frame = announcement(black_box(number));
                draft.push(black_box(&mut slot), &frame).expect("room for a frame");
            }
            black_box(draft);
        }
    })
}

fn decode_frame() -> Box<dyn Bench> {
    let mut slot = vec![0; 8_192];
    let mut draft = MessageDraft::new();
    for number in 0..FRAMES as u64 {
        draft.push(&mut slot, &announcement(number)).expect("room for a frame");
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
