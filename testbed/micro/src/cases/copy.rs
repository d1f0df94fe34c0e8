//! Copies of payload alone.

use std::hint::black_box;

use super::stack::{CHUNK, CHUNKS, RING};
use crate::case::{Bench, Case};

/// See the module.
pub const CASES: &[Case] =
    &[Case { name: "copy/4-KiB-chunk", batch: CHUNKS as u64, build: chunks }];

/// As many chunks as in the stack's case, through buffers of the size of a send buffer and of a
/// window, so that they come from the same caches.
struct Chunks {
    from: Vec<u8>,
    to: Vec<u8>,
    at: usize,
}

fn chunks() -> Box<dyn Bench> {
    Box::new(Chunks { from: vec![7; RING], to: vec![0; RING], at: 0 })
}

impl Bench for Chunks {
    /// What the application writes.
    fn prepare(&mut self) {
        self.from[self.at..self.at + CHUNKS * CHUNK].fill(black_box(7));
    }

    fn measured(&mut self) {
        for _ in 0..CHUNKS {
            let range = self.at..self.at + CHUNK;
            black_box(&mut self.to[range.clone()]).copy_from_slice(black_box(&self.from[range]));
            self.at = (self.at + CHUNK) % RING;
        }
    }
}
