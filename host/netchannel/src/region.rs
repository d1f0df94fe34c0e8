//! Regions: memory that applications reach by number and offset, never by pointer.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Most regions alive at once. Slabs are 2 MiB, so this is 32 GiB of windows.
const MAX_REGIONS: usize = 16_384;

/// Number of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegionId(pub(crate) u32);

/// Packs a region and an offset for a cell; zero is "nowhere", so the number counts from one.
pub(crate) fn place(region: RegionId, offset: u32) -> u64 {
    (u64::from(region.0) + 1) << 32 | u64::from(offset)
}

/// Where regions are mapped in this process. The engine adds and removes; applications look up.
pub(crate) struct Regions {
    bases: Box<[AtomicPtr<u8>]>,
}

impl Regions {
    pub(crate) fn new() -> Self {
        Self { bases: (0..MAX_REGIONS).map(|_| AtomicPtr::new(std::ptr::null_mut())).collect() }
    }

    /// Gives a number to a mapped region; `None` if all are taken.
    pub(crate) fn add(&self, base: NonNull<u8>) -> Option<RegionId> {
        let free = self.bases.iter().position(|slot| {
            slot.compare_exchange(
                std::ptr::null_mut(),
                base.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            )
            .is_ok()
        })?;
        Some(RegionId(free as u32))
    }

    /// Forgets a region. No stream may have a window in it any more.
    pub(crate) fn remove(&self, region: RegionId) {
        if let Some(slot) = self.bases.get(region.0 as usize) {
            slot.store(std::ptr::null_mut(), Ordering::Release);
        }
    }

    /// The address of a packed place, or `None` if it is nowhere.
    pub(crate) fn resolve(&self, place: u64) -> Option<NonNull<u8>> {
        let region = (place >> 32).checked_sub(1)?;
        let base = self.bases.get(usize::try_from(region).ok()?)?.load(Ordering::Acquire);
        let base = NonNull::new(base)?;
        // SAFETY: the engine packs offsets inside of the region only.
        Some(unsafe { base.add((place & 0xFFFF_FFFF) as usize) })
    }
}
