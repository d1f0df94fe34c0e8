//! A chunk of 4 KiB and a message of 64 bytes through the whole stack, the engine of one side at a
//! time, over the NIC in memory.
//!
//! The sender's part: the application's doorbells, scheduling, posting, and what comes back
//! (completions, acknowledgements, credit). The receiver's: taking messages, placing, publishing,
//! acknowledging, and what the application's reading brings about. The applications' own copies are
//! outside; the NIC's is inside, because in memory posting does it: the case `copy` is to be taken
//! off.

use netchannel::bench::Sides;

use crate::case::{Bench, Case};

/// Bytes of a chunk.
pub const CHUNK: usize = 4 << 10;
/// Chunks of a batch.
pub const CHUNKS: usize = 16;
/// Bytes of the send buffer and of the window, which a stream goes through again and again.
pub const RING: usize = 1 << 20;
/// Messages of a batch.
const MESSAGES: u64 = 16;
/// Bytes of a message.
const MESSAGE: usize = 64;

/// See the module.
pub const CASES: &[Case] = &[
    Case {
        name: "stack/4-KiB-chunk-sender",
        batch: CHUNKS as u64,
        build: || Box::new(SendChunks(chunks())),
    },
    Case {
        name: "stack/4-KiB-chunk-receiver",
        batch: CHUNKS as u64,
        build: || Box::new(ReceiveChunks(chunks())),
    },
    Case {
        name: "stack/64-B-message-sender",
        batch: MESSAGES,
        build: || Box::new(SendMessages(Sides::new(0))),
    },
    Case {
        name: "stack/64-B-message-receiver",
        batch: MESSAGES,
        build: || Box::new(ReceiveMessages(Sides::new(0))),
    },
];

/// Two sides, their stream with a window to write into.
fn chunks() -> Sides {
    let mut sides = Sides::new(CHUNK);
    let bytes = [7; CHUNKS * CHUNK];
    for _ in 0..64 {
        sides.write(&bytes);
        sides.send();
        sides.receive();
        sides.send();
    }
    sides
}

struct SendChunks(Sides);

impl Bench for SendChunks {
    fn prepare(&mut self) {
        self.0.write(&[7; CHUNKS * CHUNK]);
    }
    fn measured(&mut self) {
        self.0.send();
    }
    fn finish(&mut self) {
        self.0.receive();
    }
}

struct ReceiveChunks(Sides);

impl Bench for ReceiveChunks {
    fn prepare(&mut self) {
        self.0.write(&[7; CHUNKS * CHUNK]);
        self.0.send();
    }
    fn measured(&mut self) {
        self.0.receive();
    }
}

struct SendMessages(Sides);

impl Bench for SendMessages {
    fn measured(&mut self) {
        for _ in 0..MESSAGES {
            self.0.write(&[7; MESSAGE]);
            self.0.send();
        }
    }
    fn finish(&mut self) {
        self.0.receive();
    }
}

struct ReceiveMessages(Sides);

impl Bench for ReceiveMessages {
    fn prepare(&mut self) {
        for _ in 0..MESSAGES {
            self.0.write(&[7; MESSAGE]);
            self.0.send();
        }
    }
    fn measured(&mut self) {
        self.0.receive();
    }
}
