//! Receive windows: power-of-two pieces of 2 MiB slabs, by the buddy system (Knuth, The Art of
//! Computer Programming, volume 1, section 2.5).

use std::collections::BTreeSet;

/// log2 of the size of a slab: 2 MiB, one huge page, one registration.
pub const SLAB_LOG2: u8 = 21;
/// log2 of the smallest window: a page.
pub const MIN_LOG2: u8 = 12;

/// Number of a slab; the engine knows its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlabId(pub u32);

/// A leased piece of a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The slab.
    pub slab: SlabId,
    /// First byte in the slab, a multiple of the size.
    pub offset: u32,
    /// log2 of the size.
    pub log2: u8,
}

impl Lease {
    /// Size in bytes.
    pub const fn size(self) -> u64 {
        1 << self.log2
    }

    fn buddy(self) -> Self {
        Self { offset: self.offset ^ (1 << self.log2), ..self }
    }

    fn parent(self) -> Self {
        Self { offset: self.offset & !(1 << self.log2), log2: self.log2 + 1, ..self }
    }
}

/// The free pieces. Leases are never overcommitted: what is leased is out of the pool.
///
/// ```
/// use netchannel_vns::{SlabId, WindowPool};
/// let mut pool = WindowPool::default();
/// assert!(pool.lease(16).is_none());
/// pool.add_slab(SlabId(0));
/// let window = pool.lease(16).unwrap();
/// assert_eq!(window.size(), 65_536);
/// pool.release(window);
/// assert_eq!(pool.free_bytes(), 2 << 20);
/// ```
#[derive(Debug, Default)]
pub struct WindowPool {
    free: [BTreeSet<(SlabId, u32)>; (SLAB_LOG2 - MIN_LOG2 + 1) as usize],
    free_bytes: u64,
    slabs: u32,
}

fn order(log2: u8) -> usize {
    usize::from(log2 - MIN_LOG2)
}

impl WindowPool {
    /// Adds a whole slab.
    pub fn add_slab(&mut self, slab: SlabId) {
        self.slabs += 1;
        self.release(Lease { slab, offset: 0, log2: SLAB_LOG2 });
    }

    /// Takes a piece of `2^log2` bytes, or `None` if there is none; sizes outside of
    /// [`MIN_LOG2`]..=[`SLAB_LOG2`] are moved to the nearest.
    pub fn lease(&mut self, log2: u8) -> Option<Lease> {
        let log2 = log2.clamp(MIN_LOG2, SLAB_LOG2);
        let from = (log2..=SLAB_LOG2).find(|l| !self.free[order(*l)].is_empty())?;
        let (slab, offset) = self.free[order(from)].pop_first()?;
        for half in (log2..from).rev() {
            self.free[order(half)].insert((slab, offset + (1 << half)));
        }
        self.free_bytes -= 1 << log2;
        Some(Lease { slab, offset, log2 })
    }

    /// Gives a piece back.
    pub fn release(&mut self, lease: Lease) {
        self.free_bytes += lease.size();
        let mut piece = lease;
        while piece.log2 < SLAB_LOG2 {
            let buddy = piece.buddy();
            if !self.free[order(piece.log2)].remove(&(buddy.slab, buddy.offset)) {
                break;
            }
            piece = piece.parent();
        }
        self.free[order(piece.log2)].insert((piece.slab, piece.offset));
    }

    /// Bytes not leased.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Slabs in the pool, leased pieces included.
    pub fn slabs(&self) -> u32 {
        self.slabs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Leases never overlap, and when all are back the slabs are whole again.
        #[test]
        fn leases_are_disjoint(ops in prop::collection::vec((any::<bool>(), 10u8..23, any::<prop::sample::Index>()), 1..200)) {
            let mut pool = WindowPool::default();
            pool.add_slab(SlabId(0));
            pool.add_slab(SlabId(1));
            let mut leased: Vec<Lease> = Vec::new();
            for (take, log2, index) in ops {
                if take {
                    if let Some(new) = pool.lease(log2) {
                        prop_assert_eq!(u64::from(new.offset) % new.size(), 0);
                        prop_assert!(u64::from(new.offset) + new.size() <= 1 << SLAB_LOG2);
                        for old in &leased {
                            let apart = old.slab != new.slab
                                || u64::from(old.offset) + old.size() <= u64::from(new.offset)
                                || u64::from(new.offset) + new.size() <= u64::from(old.offset);
                            prop_assert!(apart, "{:?} overlaps {:?}", new, old);
                        }
                        leased.push(new);
                    }
                } else if !leased.is_empty() {
                    pool.release(leased.swap_remove(index.index(leased.len())));
                }
                let out: u64 = leased.iter().map(|l| l.size()).sum();
                prop_assert_eq!(pool.free_bytes() + out, 4 << 20);
            }
            for lease in leased {
                pool.release(lease);
            }
            prop_assert!(pool.lease(SLAB_LOG2).is_some());
            prop_assert!(pool.lease(SLAB_LOG2).is_some());
        }
    }
}
