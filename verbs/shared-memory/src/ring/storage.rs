//! Where a ring lies: in shared memory, or on the heap (one process, and loom).

use std::sync::Arc;

#[cfg(not(loom))]
pub use mapped::MappedRing;

use super::{Descriptor, SleepFlag};
use crate::atomics::AtomicU64;

/// Slots beyond this many are a mistake, not a ring.
const MAX_CAPACITY: usize = 1 << 24;

/// Something alone on its cache line and on the neighbour that the adjacent-line prefetcher pulls in with it.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Line<T>(pub T);

/// The head of a ring: who writes what is on a line of its own, so that polling one does not slow down the
/// writing of another.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Control {
    /// How many descriptors were published; the producer writes it.
    pub tail: Line<AtomicU64>,
    /// How many descriptors were released; the consumer writes it.
    pub head: Line<AtomicU64>,
    /// The consumer sleeps until something is there.
    pub consumer_asleep: Line<SleepFlag>,
    /// The producer sleeps until there is room.
    pub producer_asleep: Line<SleepFlag>,
}

/// The memory of a ring. Both methods answer the same for the whole life of the value.
pub trait Storage {
    /// The indices and flags.
    fn control(&self) -> &Control;
    /// The slots, one after the other, as words.
    fn words(&self) -> &[AtomicU64];
}

impl<S: Storage> Storage for Arc<S> {
    fn control(&self) -> &Control {
        (**self).control()
    }

    fn words(&self) -> &[AtomicU64] {
        (**self).words()
    }
}

/// This memory cannot hold such a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRing {
    /// The number of slots is not a power of two between 1 and 2^24.
    #[error("a ring of {capacity} slots: a power of two up to 2^24 is needed")]
    Capacity {
        /// The number of slots asked for.
        capacity: usize,
    },
    /// It would not lie within the (writable) mapping, aligned to 128 bytes.
    #[error(
        "a ring of {len} bytes does not fit, aligned and writable, at offset {offset} of the mapping"
    )]
    Place {
        /// The offset asked for.
        offset: usize,
        /// The length of the ring.
        len: usize,
    },
}

/// How many bytes a ring takes; none if `capacity` is not a power of two up to 2^24. Place it at a multiple
/// of 128 in zeroed memory.
pub const fn ring_len<T: Descriptor>(capacity: usize) -> Option<usize> {
    if !capacity.is_power_of_two() || capacity > MAX_CAPACITY {
        return None;
    }
    match capacity.checked_mul(size_of::<T>()) {
        Some(slots) => slots.checked_add(size_of::<Control>()),
        None => None,
    }
}

/// How many slots `words` holds.
pub(super) fn capacity_of<T: Descriptor>(words: &[AtomicU64]) -> Result<u64, BadRing> {
    let capacity = words.len() / T::WORDS;
    if ring_len::<T>(capacity).is_none() || capacity * T::WORDS != words.len() {
        return Err(BadRing::Capacity { capacity });
    }
    Ok(capacity as u64)
}

/// The words of the slot for `index`, which wraps around. None would mean that `capacity` is not that of
/// `words`, which `capacity_of` rules out.
#[inline]
pub(super) fn slot<T: Descriptor>(
    words: &[AtomicU64],
    capacity: u64,
    index: u64,
) -> Option<&[AtomicU64]> {
    let start = (index & (capacity - 1)) as usize * T::WORDS;
    words.get(start..)?.get(..T::WORDS)
}

/// A ring on the heap, between threads of one process.
#[derive(Debug)]
pub struct HeapRing {
    control: Control,
    words: Box<[AtomicU64]>,
}

impl HeapRing {
    /// Makes an empty ring of `capacity` slots. A clone of the `Arc` goes to each side.
    ///
    /// # Errors
    /// [`BadRing::Capacity`] unless that is a power of two up to 2^24.
    pub fn new<T: Descriptor>(capacity: usize) -> Result<Arc<Self>, BadRing> {
        ring_len::<T>(capacity).ok_or(BadRing::Capacity { capacity })?;
        let words = (0..capacity * T::WORDS).map(|_| AtomicU64::new(0)).collect();
        Ok(Arc::new(Self { control: Control::default(), words }))
    }
}

impl Storage for HeapRing {
    fn control(&self) -> &Control {
        &self.control
    }

    fn words(&self) -> &[AtomicU64] {
        &self.words
    }
}

// Loom's atomics cannot lie in memory that another process laid out.
#[cfg(not(loom))]
mod mapped {
    use std::ptr::NonNull;
    use std::sync::Arc;

    use super::{AtomicU64, BadRing, Control, Descriptor, Storage, ring_len};
    use crate::memory::{Mapping, SharedWord};

    // SAFETY: made of atomics and padding alone; `repr(C)`.
    unsafe impl SharedWord for Control {}

    /// A ring in shared memory.
    #[derive(Debug, Clone)]
    pub struct MappedRing {
        control: NonNull<Control>,
        words: NonNull<[AtomicU64]>,
        /// Keeps the memory mapped that the two pointers lead to.
        _mapping: Arc<Mapping>,
    }

    // SAFETY: what the pointers lead to is shared atomics, kept mapped by an `Arc` that may go to any thread.
    unsafe impl Send for MappedRing {}
    // SAFETY: as above; all access through `&self` is atomic.
    unsafe impl Sync for MappedRing {}

    impl MappedRing {
        /// The ring of `capacity` slots at `offset` (a multiple of 128). The memory there must be zero before
        /// the first side takes it into use.
        ///
        /// # Errors
        /// [`BadRing`] if the capacity is impossible or the mapping too small or read-only.
        pub fn new<T: Descriptor>(
            mapping: Arc<Mapping>,
            offset: usize,
            capacity: usize,
        ) -> Result<Self, BadRing> {
            let len = ring_len::<T>(capacity).ok_or(BadRing::Capacity { capacity })?;
            let place = || BadRing::Place { offset, len };
            let control = mapping.at::<Control>(offset).ok_or_else(place)?;
            // `at` has seen that this much fits behind the offset.
            let slots = offset + size_of::<Control>();
            let words =
                mapping.slice_at::<AtomicU64>(slots, capacity * T::WORDS).ok_or_else(place)?;
            let (control, words) = (NonNull::from(control), NonNull::from(words));
            Ok(Self { control, words, _mapping: mapping })
        }
    }

    impl Storage for MappedRing {
        #[inline]
        fn control(&self) -> &Control {
            // SAFETY: came from `Mapping::at`, and the mapping lives as long as `self`.
            unsafe { self.control.as_ref() }
        }

        #[inline]
        fn words(&self) -> &[AtomicU64] {
            // SAFETY: came from `Mapping::slice_at`, and the mapping lives as long as `self`.
            unsafe { self.words.as_ref() }
        }
    }
}
