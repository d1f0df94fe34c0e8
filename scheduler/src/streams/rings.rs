//! Rings of streams, linked by their positions in the table: one ring for each weight.

use netchannel_units::Weight;

use super::Stream;

/// Ends a ring.
pub(crate) const NOBODY: u32 = u32::MAX;
/// There is a ring for each.
const WEIGHTS: usize = Weight::MAX as usize;

/// A doubly linked ring.
#[derive(Clone, Copy, Debug)]
struct Ring {
    head: u32,
    tail: u32,
}

/// A ring for each weight.
#[derive(Clone, Debug)]
pub(super) struct Rings {
    /// Those with streams, as bits.
    occupied: u16,
    rings: [Ring; WEIGHTS],
}

const _: () = assert!(WEIGHTS <= u16::BITS as usize);

impl Rings {
    pub(super) const EMPTY: Self =
        Self { occupied: 0, rings: [Ring { head: NOBODY, tail: NOBODY }; WEIGHTS] };

    fn of(&mut self, weight: Weight) -> &mut Ring {
        &mut self.rings[usize::from(weight.to_wire())]
    }

    /// The heads of the rings that have streams.
    pub(super) fn heads(&self) -> impl Iterator<Item = u32> {
        self.rings.iter().map(|ring| ring.head).filter(|head| *head != NOBODY)
    }

    /// The head with the lowest round. Mostly all streams have one weight.
    #[inline]
    pub(super) fn first(&self, table: &[Stream]) -> Option<u32> {
        let mut left = self.occupied;
        if left == 0 {
            return None;
        }
        let mut at = self.rings[left.trailing_zeros() as usize].head;
        left &= left - 1;
        while left != 0 {
            let other = self.rings[left.trailing_zeros() as usize].head;
            if table[other as usize].round < table[at as usize].round {
                at = other;
            }
            left &= left - 1;
        }
        Some(at)
    }

    /// The last in the ring of this weight, or [`NOBODY`].
    pub(super) fn last(&mut self, weight: Weight) -> u32 {
        self.of(weight).tail
    }

    /// Adds a stream at the end of its ring.
    pub(super) fn push(&mut self, table: &mut [Stream], at: u32) {
        let weight = table[at as usize].weight;
        self.occupied |= 1 << weight.to_wire();
        let ring = self.of(weight);
        let tail = core::mem::replace(&mut ring.tail, at);
        if tail == NOBODY {
            ring.head = at;
        } else {
            table[tail as usize].next = at;
        }
        let stream = &mut table[at as usize];
        stream.previous = tail;
        stream.next = NOBODY;
    }

    /// Takes a stream out of its ring.
    pub(super) fn remove(&mut self, table: &mut [Stream], at: u32) {
        let Stream { next, previous, weight, .. } = table[at as usize];
        let ring = self.of(weight);
        if ring.head == at {
            ring.head = next;
        }
        if ring.tail == at {
            ring.tail = previous;
        }
        if ring.head == NOBODY {
            self.occupied &= !(1 << weight.to_wire());
        }
        if previous != NOBODY {
            table[previous as usize].next = next;
        }
        if next != NOBODY {
            table[next as usize].previous = previous;
        }
    }

    /// The head of the ring of this weight, which is not alone in it, becomes the last, and `next` the head.
    /// Returns who was last; the links are the caller's.
    #[inline]
    pub(super) fn rotate(&mut self, weight: Weight, at: u32, next: u32) -> u32 {
        let ring = self.of(weight);
        debug_assert_eq!(ring.head, at);
        ring.head = next;
        core::mem::replace(&mut ring.tail, at)
    }
}
