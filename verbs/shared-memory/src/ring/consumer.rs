use std::marker::PhantomData;

use super::storage::{capacity_of, slot};
use super::{BadRing, Corrupt, Descriptor, Storage, descriptor};
use crate::atomics::Ordering;

/// The side that empties a ring.
#[derive(Debug)]
pub struct Consumer<T, S> {
    storage: S,
    capacity: u64,
    /// Our index, released or not. The shared copy is never read back.
    head: u64,
    /// What `head` was when it was last released.
    released: u64,
    /// The producer's index as last read; `released <= head <= tail <= released + capacity`.
    tail: u64,
    descriptors: PhantomData<fn() -> T>,
}

impl<T: Descriptor, S: Storage> Consumer<T, S> {
    /// The consuming side of a ring that was never used before. One ring has one consumer: a second one
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
            head: index,
            released: index,
            tail: index,
            descriptors: PhantomData,
        })
    }

    /// How many descriptors the ring holds.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// How many descriptors were popped but not yet released.
    pub fn unreleased(&self) -> usize {
        self.head.wrapping_sub(self.released) as usize
    }

    /// Copies the next descriptor out; none if the ring is empty. Its slot stays taken until
    /// [`release`](Self::release) or [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`Corrupt`] if the producer claims more descriptors than fit.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<T>, Corrupt> {
        if self.head == self.tail && self.available()? == 0 {
            return Ok(None);
        }
        let slot = slot::<T>(self.storage.words(), self.capacity, self.head).ok_or(Corrupt)?;
        let value = descriptor::load(slot);
        self.head = self.head.wrapping_add(1);
        Ok(Some(value))
    }

    /// How many pops will succeed, after a fresh look at the producer's index.
    ///
    /// # Errors
    /// [`Corrupt`] if that index went back, or claims slots that were not released to the producer.
    pub fn available(&mut self) -> Result<usize, Corrupt> {
        // Acquire, with the Release in `Producer::publish`: the slots below this index have been written.
        let tail = self.storage.control().tail.0.load(Ordering::Acquire);
        let outstanding = tail.wrapping_sub(self.released);
        let known = self.tail.wrapping_sub(self.released);
        // Fewer than known: the index went back. That covers an index behind ours unless its distance wraps to
        // a huge number, which is more than fit.
        if outstanding < known || outstanding > self.capacity {
            return Err(Corrupt);
        }
        self.tail = tail;
        Ok(tail.wrapping_sub(self.head) as usize)
    }

    /// Gives the slots of all popped descriptors back, without a fence and without waking the producer:
    /// for a producer that polls.
    #[inline]
    pub fn release(&mut self) {
        // Release, with the Acquire in `Producer::free_slots`: our reads of the slots are done before the
        // producer writes them again.
        self.storage.control().head.0.store(self.head, Ordering::Release);
        self.released = self.head;
    }

    /// Gives the slots of all popped descriptors back; true if the producer sleeps and the caller has to wake it.
    #[must_use = "true: the producer sleeps until it is woken"]
    #[inline]
    pub fn flush(&mut self) -> bool {
        self.release();
        self.storage.control().producer_asleep.0.take()
    }

    /// Announces that this side is going to sleep until something is there; false if something is, then do
    /// not sleep.
    ///
    /// [`flush`](Self::flush) first: a producer that waits for room gets it only from there.
    ///
    /// # Errors
    /// [`Corrupt`], as [`available`](Self::available); nothing is announced then.
    pub fn prepare_sleep(&mut self) -> Result<bool, Corrupt> {
        self.storage.control().consumer_asleep.0.announce();
        let empty = self.available().map(|available| available == 0);
        if empty != Ok(true) {
            self.cancel_sleep();
        }
        empty
    }

    /// Takes the announcement back, after waking up or instead of sleeping. A wake-up may still arrive.
    pub fn cancel_sleep(&mut self) {
        self.storage.control().consumer_asleep.0.cancel();
    }
}
