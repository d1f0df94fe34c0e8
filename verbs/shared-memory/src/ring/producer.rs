use std::marker::PhantomData;

use super::storage::{capacity_of, slot};
use super::{BadRing, Corrupt, Descriptor, Storage, descriptor};
use crate::atomics::Ordering;

/// Why a descriptor was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// Every slot is in use: backpressure, no failure. Flush, and try again when the consumer has released some.
    #[error("the ring is full")]
    Full,
    /// See [`Corrupt`].
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// The side that fills a ring.
#[derive(Debug)]
pub struct Producer<T, S> {
    storage: S,
    capacity: u64,
    /// Our index, published or not. The shared copy is never read back.
    tail: u64,
    /// What `tail` was when it was last published.
    published: u64,
    /// The consumer's index as last read; `head <= published <= tail <= head + capacity`.
    head: u64,
    descriptors: PhantomData<fn(T)>,
}

impl<T: Descriptor, S: Storage> Producer<T, S> {
    /// The producing side of a ring that was never used before. One ring has one producer: a second one
    /// breaks the contents (not the memory safety) of the ring.
    ///
    /// # Errors
    /// [`BadRing::Capacity`] if the storage does not hold a power of two of descriptors.
    pub fn new(storage: S) -> Result<Self, BadRing> {
        Self::starting_at(storage, 0)
    }

    pub(super) fn starting_at(storage: S, index: u64) -> Result<Self, BadRing> {
        let capacity = capacity_of::<T>(storage.words())?;
        Ok(Self {
            storage,
            capacity,
            tail: index,
            published: index,
            head: index,
            descriptors: PhantomData,
        })
    }

    /// How many descriptors the ring holds.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// How many descriptors were pushed but not yet published.
    pub fn unpublished(&self) -> usize {
        self.tail.wrapping_sub(self.published) as usize
    }

    /// Fills the next slot. The consumer sees it after [`publish`](Self::publish) or [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`PushError`]; the descriptor was not taken.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), PushError> {
        if self.used() == self.capacity && self.free_slots()? == 0 {
            return Err(PushError::Full);
        }
        let slot = slot::<T>(self.storage.words(), self.capacity, self.tail).ok_or(Corrupt)?;
        descriptor::store(slot, &value);
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// How many pushes will succeed, after a fresh look at the consumer's index.
    ///
    /// # Errors
    /// [`Corrupt`] if that index went back or overtook what was published.
    pub fn free_slots(&mut self) -> Result<usize, Corrupt> {
        // Acquire, with the Release in `Consumer::release`: the consumer's reads of the slots up to this index
        // are done before we write them again.
        let head = self.storage.control().head.0.load(Ordering::Acquire);
        let used = self.tail.wrapping_sub(head);
        // `used` only shrinks between two pushes. More than before: the index went back, or is so far ahead
        // that the distance wraps. Fewer than unpublished: it is ahead of what the consumer can have seen.
        if used > self.used() || used < self.tail.wrapping_sub(self.published) {
            return Err(Corrupt);
        }
        self.head = head;
        Ok((self.capacity - used) as usize)
    }

    /// Shows all pushed descriptors to the consumer, without a fence and without waking it: for a consumer
    /// that polls.
    #[inline]
    pub fn publish(&mut self) {
        // Release, with the Acquire in `Consumer::available`: who sees this index sees the slots below it.
        self.storage.control().tail.0.store(self.tail, Ordering::Release);
        self.published = self.tail;
    }

    /// Shows all pushed descriptors to the consumer; true if it sleeps and the caller has to wake it.
    #[must_use = "true: the consumer sleeps until it is woken"]
    #[inline]
    pub fn flush(&mut self) -> bool {
        self.publish();
        self.storage.control().consumer_asleep.0.take()
    }

    /// Announces that this side is going to sleep until there is room; false if there is some already (or
    /// the announcement was in vain for another reason), then do not sleep.
    ///
    /// [`flush`](Self::flush) first: descriptors that the consumer does not know of never make room.
    ///
    /// # Errors
    /// [`Corrupt`], as [`free_slots`](Self::free_slots); nothing is announced then.
    pub fn prepare_sleep(&mut self) -> Result<bool, Corrupt> {
        self.storage.control().producer_asleep.0.announce();
        let full = self.free_slots().map(|free| free == 0);
        if full != Ok(true) {
            self.cancel_sleep();
        }
        full
    }

    /// Takes the announcement back, after waking up or instead of sleeping. A wake-up may still arrive.
    pub fn cancel_sleep(&mut self) {
        self.storage.control().producer_asleep.0.cancel();
    }

    fn used(&self) -> u64 {
        self.tail.wrapping_sub(self.head)
    }
}
