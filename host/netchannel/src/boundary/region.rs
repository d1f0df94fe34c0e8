//! Regions: memory that applications reach by number and offset, never by pointer.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// Number of a region: its slot, and above it how often the slot was used before. A number never
/// comes twice in practice, so that a process that has the memory of an old one mapped can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RegionId(pub(crate) u32);

/// Packs a region and an offset for a cell; zero is "nowhere", so the number counts from one.
pub(crate) fn place(region: RegionId, offset: u32) -> u64 {
    (u64::from(region.0) + 1) << 32 | u64::from(offset)
}

/// The region and the offset of a packed place, or `None` if it is nowhere.
pub(crate) fn unpack(place: u64) -> Option<(RegionId, u32)> {
    let region = (place >> 32).checked_sub(1)?;
    Some((RegionId(region as u32), place as u32))
}

#[derive(Debug, Default)]
struct Slot {
    /// Number of its region plus one; zero while there is none.
    number: AtomicU32,
    /// How often it was used.
    uses: AtomicU32,
    base: AtomicPtr<u8>,
}

/// Where the regions of one application are mapped in this process. The engine adds and removes;
/// applications look up.
#[derive(Debug)]
pub(crate) struct Regions {
    slots: Box<[Slot]>,
}

impl Regions {
    /// Room for `slots` regions (a power of two) at once.
    pub(crate) fn new(slots: usize) -> Self {
        assert!(slots.is_power_of_two());
        Self { slots: (0..slots).map(|_| Slot::default()).collect() }
    }

    fn slot(&self, region: RegionId) -> &Slot {
        &self.slots[region.0 as usize & (self.slots.len() - 1)]
    }

    /// Gives a number to a mapped region; `None` if all are taken.
    pub(crate) fn add(&self, base: NonNull<u8>) -> Option<RegionId> {
        let claimed = |slot: &Slot| {
            let (null, base) = (std::ptr::null_mut(), base.as_ptr());
            slot.base.compare_exchange(null, base, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let index = self.slots.iter().position(claimed)?;
        let slot = &self.slots[index];
        let uses = slot.uses.fetch_add(1, Ordering::Relaxed);
        // The highest bit stays clear, so that one more than the number fits.
        let number = uses.wrapping_mul(self.slots.len() as u32) & (u32::MAX >> 1) | index as u32;
        slot.number.store(number + 1, Ordering::Release);
        Some(RegionId(number))
    }

    /// Notes where a region that another process numbered is mapped here.
    pub(crate) fn insert(&self, region: RegionId, base: NonNull<u8>) {
        let slot = self.slot(region);
        slot.number.store(0, Ordering::Relaxed);
        slot.base.store(base.as_ptr(), Ordering::Release);
        slot.number.store(region.0.wrapping_add(1), Ordering::Release);
    }

    /// Forgets a region. No stream may have bytes in it any more.
    pub(crate) fn remove(&self, region: RegionId) {
        let slot = self.slot(region);
        if slot.number.load(Ordering::Relaxed) == region.0.wrapping_add(1) {
            slot.number.store(0, Ordering::Relaxed);
            slot.base.store(std::ptr::null_mut(), Ordering::Release);
        }
    }

    /// The address of a packed place, or `None` if it is nowhere or not mapped here.
    pub(crate) fn resolve(&self, place: u64) -> Option<NonNull<u8>> {
        let (region, offset) = unpack(place)?;
        let slot = self.slot(region);
        if slot.number.load(Ordering::Acquire) != region.0.wrapping_add(1) {
            return None;
        }
        let base = NonNull::new(slot.base.load(Ordering::Acquire))?;
        // SAFETY: the engine packs offsets inside of the region only.
        Some(unsafe { base.add(offset as usize) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_come_again() {
        let mut bytes = [0u8; 8];
        let base = NonNull::new(bytes.as_mut_ptr()).unwrap();
        let regions = Regions::new(2);
        let first = regions.add(base).unwrap();
        let second = regions.add(base).unwrap();
        assert_eq!(regions.add(base), None);
        assert_eq!(regions.resolve(place(first, 3)), NonNull::new(&raw mut bytes[3]));
        regions.remove(first);
        assert_eq!(regions.resolve(place(first, 0)), None);
        let third = regions.add(base).unwrap();
        assert!(third != first && third != second);
        assert_eq!(regions.resolve(place(first, 0)), None, "the number of its predecessor");
        regions.remove(first);
        assert!(regions.resolve(place(third, 0)).is_some(), "removed in vain");
        assert_eq!(regions.resolve(0), None);
    }

    #[test]
    fn what_another_process_numbered_is_found() {
        let mut bytes = [0u8; 8];
        let base = NonNull::new(bytes.as_mut_ptr()).unwrap();
        let regions = Regions::new(4);
        for number in [5, u32::MAX >> 1] {
            let region = RegionId(number);
            assert_eq!(regions.resolve(place(region, 0)), None);
            regions.insert(region, base);
            assert_eq!(regions.resolve(place(region, 0)), Some(base));
        }
    }
}
