//! Copies of payload alone.

use std::hint::black_box;

use super::stack::{CHUNK, CHUNKS};
use crate::case::{Bench, Case};

/// See the module.
pub const CASES: &[Case] =
    &[Case { name: "copy/4-KiB-chunk", batch: CHUNKS as u64, build: chunks }];

/// As many chunks as in the stack's case, from one buffer into another of its size.
fn chunks() -> Box<dyn Bench> {
    let from = vec![7u8; CHUNKS * CHUNK];
    let mut to = vec![0u8; CHUNKS * CHUNK];
    Box::new(move || {
        for (from, to) in from.chunks(CHUNK).zip(to.chunks_mut(CHUNK)) {
            black_box(&mut *to).copy_from_slice(black_box(from));
        }
    })
}
