//! Receive windows: power-of-two pieces of 2 MiB slabs, by the buddy system (Knuth, The Art of
//! Computer Programming, volume 1, section 2.5).

use std::collections::BTreeSet;

use netchannel_units::{Duration, Timestamp};

/// log2 of the size of a slab: 2 MiB, one huge page, one registration.
pub const SLAB_LOG2: u8 = 21;
/// log2 of the smallest window: a page.
pub const MIN_LOG2: u8 = 12;

/// Slabs without a lease that are kept all the same: the next window must not wait for memory.
const KEPT_SLABS: usize = 1;
/// How long further slabs must have been without a lease to be given up: far longer than making one
/// takes, so that a program of bursts does not make and give up slabs all the time.
const SPARE_AFTER: Duration = Duration::from_millis(400);

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
    /// Fewest slabs without a lease since `look_at` was set.
    fewest_whole: usize,
    /// When spare slabs are to be given up.
    look_at: Option<Timestamp>,
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
        self.fewest_whole = self.fewest_whole.min(self.whole_slabs());
        Some(Lease { slab, offset, log2 })
    }

    /// Whether [`lease`](Self::lease) would find a piece.
    pub fn has(&self, log2: u8) -> bool {
        let log2 = log2.clamp(MIN_LOG2, SLAB_LOG2);
        self.free[order(log2)..].iter().any(|pieces| !pieces.is_empty())
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

    /// Takes a slab out of the pool that nobody has needed for long; its number may be used again.
    /// To be asked after pieces came back, until there is none, and at
    /// [`next_timeout`](Self::next_timeout).
    pub fn take_spare(&mut self, now: Timestamp) -> Option<SlabId> {
        let whole = self.whole_slabs();
        if whole <= KEPT_SLABS {
            self.look_at = None;
            return None;
        }
        if self.look_at.is_some_and(|at| now < at) {
            return None;
        }
        if self.look_at.is_none() || self.fewest_whole <= KEPT_SLABS {
            self.fewest_whole = whole;
            self.look_at = Some(now + SPARE_AFTER);
            return None;
        }
        self.fewest_whole -= 1;
        // Pieces are leased from the lowest slabs first, so that the highest become free.
        let (slab, _) = self.free[order(SLAB_LOG2)].pop_last()?;
        self.slabs -= 1;
        self.free_bytes -= 1 << SLAB_LOG2;
        Some(slab)
    }

    /// Keeps spare slabs for another while: somebody may still be looking at them.
    pub fn keep_spares(&mut self, now: Timestamp) {
        self.look_at = Some(now + SPARE_AFTER);
    }

    /// When to ask for spare slabs again.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        self.look_at
    }

    fn whole_slabs(&self) -> usize {
        self.free[order(SLAB_LOG2)].len()
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

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn slabs_that_nobody_needs_for_long_go() {
        let mut pool = WindowPool::default();
        (0..4).for_each(|slab| pool.add_slab(SlabId(slab)));
        assert_eq!(pool.take_spare(at(0)), None);
        assert_eq!(pool.next_timeout(), Some(at(400)));
        // Three were needed meanwhile.
        let use_slabs = |pool: &mut WindowPool, count| {
            let leases: Vec<Lease> = (0..count).map(|_| pool.lease(SLAB_LOG2).unwrap()).collect();
            leases.into_iter().for_each(|lease| pool.release(lease));
        };
        use_slabs(&mut pool, 3);
        assert_eq!(pool.take_spare(at(400)), None);
        // In the next period two: of the others all but one go.
        use_slabs(&mut pool, 2);
        assert_eq!(pool.take_spare(at(799)), None);
        assert_eq!(pool.take_spare(at(800)), Some(SlabId(3)));
        assert_eq!(pool.take_spare(at(800)), None);
        assert_eq!((pool.slabs(), pool.free_bytes()), (3, 3 << SLAB_LOG2));
        assert_eq!(pool.take_spare(at(1_200)), Some(SlabId(2)));
        assert_eq!(pool.take_spare(at(1_200)), Some(SlabId(1)));
        assert_eq!((pool.take_spare(at(1_200)), pool.next_timeout()), (None, None));
        assert!(pool.has(SLAB_LOG2));
        pool.lease(MIN_LOG2).unwrap();
        assert!(pool.has(SLAB_LOG2 - 1) && !pool.has(SLAB_LOG2));
    }

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
