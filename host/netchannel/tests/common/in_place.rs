//! Applications that work in the stack's memory.

use std::io::{Read, Write};

use netchannel::Stream;

use super::{Random, check, fill};

/// Sends `total` bytes by reservations of up to `piece` bytes, among them ones that are dropped, leaked,
/// committed in part, and ordinary writes.
pub(crate) fn send_mixed(stream: &mut Stream, seed: u64, total: u64, piece: u64) {
    let mut random = Random(seed);
    let mut offset = 0;
    let mut bytes = vec![0; piece as usize];
    while offset < total {
        let len = random.size(piece).min((total - offset) as usize);
        match random.below(8) {
            0 => {
                fill(seed, offset, &mut bytes[..len]);
                stream.write_all(&bytes[..len]).unwrap();
                offset += len as u64;
            }
            1 => {
                let mut unused = stream.send_half().reserve(len).unwrap();
                unused.as_mut_slices().0.fill(0xEE);
                // Dropped.
            }
            2 => std::mem::forget(stream.send_half().reserve(len).unwrap()),
            _ => {
                let mut space = stream.send_half().reserve(len).unwrap();
                assert!((1..=len).contains(&space.len()));
                let count = match random.below(3) {
                    0 => random.below(space.len() as u64 + 1) as usize,
                    _ => space.len(),
                };
                if random.below(2) == 0 {
                    let (first, second) = space.as_mut_slices();
                    let cut = first.len().min(count);
                    fill(seed, offset, &mut first[..cut]);
                    fill(seed, offset + cut as u64, &mut second[..count - cut]);
                } else {
                    fill(seed, offset, &mut bytes[..count]);
                    space.put(0, &bytes[..count]);
                }
                space.commit(count).unwrap();
                offset += count as u64;
            }
        }
    }
}

/// Reads to the end in every way there is.
pub(crate) fn receive_mixed(stream: &mut Stream, seed: u64, piece: u64) -> u64 {
    let mut random = Random(!seed);
    let mut bytes = vec![0; piece as usize];
    let mut offset = 0;
    loop {
        let len = random.size(piece);
        if random.below(4) == 0 {
            match stream.read(&mut bytes[..len]).unwrap() {
                0 => return offset,
                count => {
                    check(seed, offset, &bytes[..count]);
                    offset += count as u64;
                }
            }
            continue;
        }
        let Some(mut chunk) = stream.receive_half().borrow().unwrap() else { return offset };
        assert_eq!(chunk.offset(), offset);
        let len = len.min(chunk.len());
        match random.below(6) {
            0 => {} // It comes again.
            1 => std::mem::forget(chunk),
            2 => {
                let mut all = Vec::new();
                assert_eq!(chunk.copy_into(&mut all).unwrap(), all.len());
                assert!(chunk.is_empty());
                check(seed, offset, &all);
                offset += all.len() as u64;
            }
            3 => {
                let words: Vec<u8> = chunk.words().flat_map(u64::to_ne_bytes).collect();
                check(seed, offset, &words);
                assert_eq!(chunk.read_at(words.len(), &mut bytes), chunk.len() - words.len());
                offset += words.len() as u64;
                chunk.release(words.len()).unwrap();
            }
            4 => {
                // SAFETY: the peer is this process, and keeps the protocol.
                check(seed, offset, unsafe { chunk.as_slice() });
                chunk.advance(len);
                assert_eq!(chunk.offset(), offset + len as u64);
                offset += len as u64;
            }
            _ => {
                assert_eq!(chunk.read_at(0, &mut bytes[..len]), len);
                check(seed, offset, &bytes[..len]);
                chunk.release(len).unwrap();
                offset += len as u64;
            }
        }
    }
}
