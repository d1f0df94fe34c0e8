//! Rings of streams, linked by their positions in the table: one ring for each weight.

use netchannel_units::Weight;

use super::Stream;

/// No position in the table.
pub(crate) const NOBODY: u32 = u32::MAX;
/// There is a ring for each.
pub(super) const WEIGHTS: usize = Weight::MAX as usize;

/// A ring for each weight. Its streams form a circle, linked both ways: whoever stands before the head is
/// the last.
#[derive(Clone, Debug)]
pub(super) struct Rings {
    /// Those with streams, as bits.
    occupied: u16,
    heads: [u32; WEIGHTS],
}

const _: () = assert!(WEIGHTS <= u16::BITS as usize && WEIGHTS.is_power_of_two());

/// The ring of a weight.
#[inline(always)]
fn ring(weight: Weight) -> usize {
    usize::from(weight.to_wire()) % WEIGHTS
}

impl Rings {
    pub(super) const EMPTY: Self = Self { occupied: 0, heads: [NOBODY; WEIGHTS] };

    fn is_occupied(&self, weight: Weight) -> bool {
        self.occupied & 1 << ring(weight) != 0
    }

    /// The heads of the rings that have streams.
    pub(super) fn heads(&self) -> impl Iterator<Item = u32> {
        let occupied = |ring: &usize| self.occupied & 1 << ring != 0;
        (0..WEIGHTS).filter(occupied).map(|ring| self.heads[ring])
    }

    /// The head with the lowest round. Mostly all streams have one weight.
    #[inline(always)]
    pub(super) fn first(&self, table: &[Stream]) -> Option<u32> {
        let left = self.occupied;
        if left == 0 {
            return None;
        }
        if left & (left - 1) != 0 {
            return self.first_of_several(table);
        }
        Some(self.heads[left.trailing_zeros() as usize % WEIGHTS])
    }

    #[inline(never)]
    fn first_of_several(&self, table: &[Stream]) -> Option<u32> {
        self.heads().min_by_key(|head| table[*head as usize].round)
    }

    /// The last in the ring of this weight.
    pub(super) fn last(&self, table: &[Stream], weight: Weight) -> Option<u32> {
        self.is_occupied(weight).then(|| table[self.heads[ring(weight)] as usize].previous)
    }

    /// Adds a stream at the end of its ring.
    pub(super) fn push(&mut self, table: &mut [Stream], at: u32) {
        let weight = table[at as usize].weight;
        let (previous, next) = match self.last(table, weight) {
            Some(last) => (last, self.heads[ring(weight)]),
            None => {
                self.heads[ring(weight)] = at;
                self.occupied |= 1 << ring(weight);
                (at, at)
            }
        };
        (table[at as usize].previous, table[at as usize].next) = (previous, next);
        table[previous as usize].next = at;
        table[next as usize].previous = at;
    }

    /// Takes a stream out of its ring.
    pub(super) fn remove(&mut self, table: &mut [Stream], at: u32) {
        let Stream { next, previous, weight, .. } = table[at as usize];
        table[previous as usize].next = next;
        table[next as usize].previous = previous;
        if next == at {
            self.occupied &= !(1 << ring(weight));
        } else if self.heads[ring(weight)] == at {
            self.heads[ring(weight)] = next;
        }
    }

    /// The head of the ring of this weight becomes the last, and `next`, who stands behind it, the head.
    #[inline(always)]
    pub(super) fn rotate(&mut self, weight: Weight, next: u32) {
        self.heads[ring(weight)] = next;
    }
}
