//! Buffers that go round between the thread that has the stream and the one that has the file and
//! hashes, so that both work at the same time.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::format::{MAX_BLOCK, PREFIX};

/// Blocks that go round: enough that neither thread waits for a single slow turn of the other.
const BLOCKS: usize = 4;

/// A block with room for its prefix.
pub(super) struct Block {
    buffer: Box<[u8]>,
    len: usize,
}

impl Block {
    fn new() -> Self {
        Self { buffer: vec![0; PREFIX + MAX_BLOCK].into_boxed_slice(), len: 0 }
    }

    /// All there is room for.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[PREFIX..]
    }

    /// The first `len` bytes of the room are the block now.
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len.min(MAX_BLOCK);
        self.buffer[..PREFIX].copy_from_slice(&(self.len as u32).to_le_bytes());
    }

    /// The block.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[PREFIX..PREFIX + self.len]
    }

    /// The block as it is on the stream.
    pub(super) fn with_prefix(&self) -> &[u8] {
        &self.buffer[..PREFIX + self.len]
    }
}

/// Who fills blocks.
pub(super) struct Filler {
    pub(super) empty: Receiver<Block>,
    pub(super) full: SyncSender<Block>,
}

/// Who empties them.
pub(super) struct Emptier {
    pub(super) full: Receiver<Block>,
    pub(super) empty: SyncSender<Block>,
}

/// Both ends of a round of blocks. Either end sees that the other is gone.
pub(super) fn round() -> (Filler, Emptier) {
    let (to_emptier, full) = sync_channel(BLOCKS);
    let (to_filler, empty) = sync_channel(BLOCKS);
    for _ in 0..BLOCKS {
        // Cannot fail: the receiving end is right here, and there is room.
        let _ = to_filler.send(Block::new());
    }
    (Filler { empty, full: to_emptier }, Emptier { full, empty: to_filler })
}
