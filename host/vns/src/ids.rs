//! Numbers of streams: which of the peer's were used, and how they are hashed.

use std::collections::VecDeque;
use std::hash::Hasher;

use netchannel_wire::StreamId;

/// How far ahead of the lowest unused number a peer may go. OPENs overtake one another on
/// different Channels, but not by a million streams; the set stays under 128 KiB.
const SPAN: u32 = 1 << 20;

/// The set of numbers seen: a watermark and a bitmap above it, since they come nearly in order.
#[derive(Debug, Default)]
pub struct SeenIds {
    /// Every number below `base * 64` was seen.
    base: u32,
    words: VecDeque<u64>,
}

/// A number without its lowest bit, which says which side gave it.
fn slot(id: StreamId) -> (u32, u64) {
    let slot = id.0 >> 1;
    (slot / 64, 1 << (slot % 64))
}

impl SeenIds {
    /// Notes `id`; false if it was there already or is implausibly far ahead.
    pub fn insert(&mut self, id: StreamId) -> bool {
        let (word, bit) = slot(id);
        let Some(index) = word.checked_sub(self.base) else { return false };
        if index >= SPAN / 64 {
            return false;
        }
        let index = index as usize;
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        let new = self.words[index] & bit == 0;
        self.words[index] |= bit;
        while self.words.front() == Some(&u64::MAX) {
            self.words.pop_front();
            self.base += 1;
        }
        new
    }

    /// Whether `id` was noted.
    pub fn contains(&self, id: StreamId) -> bool {
        let (word, bit) = slot(id);
        match word.checked_sub(self.base) {
            None => true,
            Some(index) => self.words.get(index as usize).is_some_and(|w| w & bit != 0),
        }
    }
}

/// Stream numbers are small and dense: multiplication by an odd constant (Knuth, The Art of
/// Computer Programming, volume 3, section 6.4) spreads them, and no seed means that a run can be
/// reproduced. A peer gains little by choosing numbers: it must count up.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // The table takes its slot from the low bits, to which high bits of a number never come.
        self.0 ^ (self.0 >> 32)
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_come_in_any_order_but_once() {
        let mut seen = SeenIds::default();
        for n in (0..1_000).rev() {
            assert!(!seen.contains(StreamId(2 * n + 1)));
            assert!(seen.insert(StreamId(2 * n + 1)));
            assert!(!seen.insert(StreamId(2 * n + 1)));
        }
        assert!((0..1_000).all(|n| seen.contains(StreamId(2 * n + 1))));
        assert!(!seen.contains(StreamId(2_001)));
        assert!(seen.words.len() <= 1, "only the watermark is kept");
    }

    #[test]
    fn leaps_are_refused_and_cost_no_memory() {
        let mut seen = SeenIds::default();
        assert!(!seen.insert(StreamId(u32::MAX)));
        assert!(seen.insert(StreamId(2 * (SPAN - 1))));
        assert!(!seen.insert(StreamId(2 * SPAN)));
        assert_eq!(seen.words.len(), (SPAN / 64) as usize);
    }
}
