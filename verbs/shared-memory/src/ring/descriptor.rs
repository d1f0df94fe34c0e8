use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::atomics::{AtomicU64, Ordering};

/// What travels in a ring: plain data of a whole number of 8-byte words, valid whatever its bytes.
pub trait Descriptor: FromBytes + IntoBytes + Immutable + KnownLayout + Copy {
    /// How many words it has. A size that is no multiple of 8, or zero, does not compile.
    const WORDS: usize = {
        assert!(size_of::<Self>() > 0, "a descriptor needs at least one byte");
        assert!(size_of::<Self>().is_multiple_of(8), "pad the descriptor to a multiple of 8 bytes");
        size_of::<Self>() / 8
    };
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Copy> Descriptor for T {}

// Relaxed, both: the words are ordered by the index that covers them (`Producer::publish`,
// `Consumer::release`). They are atomic because a hostile peer does not keep to the index.

#[inline]
pub(super) fn store<T: Descriptor>(slot: &[AtomicU64], value: &T) {
    for (word, bytes) in slot.iter().zip(value.as_bytes().as_chunks().0) {
        word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
}

#[inline]
pub(super) fn load<T: Descriptor>(slot: &[AtomicU64]) -> T {
    let mut value = T::new_zeroed();
    for (word, bytes) in slot.iter().zip(value.as_mut_bytes().as_chunks_mut().0) {
        *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
    }
    value
}
