//! Rings of fixed-size descriptors: one producer, one consumer, neither of which trusts the other.
//!
//! ```
//! use std::sync::Arc;
//! use netchannel_shared_memory::memory::SharedMemory;
//! use netchannel_shared_memory::ring::{Consumer, MappedRing, Producer, ring_len};
//!
//! // One process makes the memory and passes its descriptor on; each maps it and takes one side.
//! type Descriptor = [u64; 4];
//! let memory = SharedMemory::create("ring", ring_len::<Descriptor>(256).unwrap())?;
//! let here = MappedRing::new::<Descriptor>(Arc::new(memory.map()?), 0, 256)?;
//! let there = MappedRing::new::<Descriptor>(Arc::new(memory.map()?), 0, 256)?;
//! let mut producer = Producer::<Descriptor, _>::new(here)?;
//! let mut consumer = Consumer::<Descriptor, _>::new(there)?;
//!
//! producer.push([1; 4])?;
//! producer.push([2; 4])?;
//! if producer.flush() {
//!     // The consumer sleeps: notify its wake-up.
//! }
//!
//! while let Some(descriptor) = consumer.pop()? {
//!     // A private copy: what is validated is what is used.
//!     assert_eq!(descriptor[0], descriptor[3]);
//! }
//! consumer.release();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How a batch travels
//!
//! `push` writes slots that the consumer does not yet look at; [`Producer::publish`] shows them all with one
//! store. `pop` copies descriptors out; [`Consumer::release`] gives their slots back with one store. Both
//! indices count up for ever (64 bits, slot = index mod capacity); each side keeps its own in private memory
//! and never reads it back, and keeps a copy of the other's, read again only when the copy is used up.
//!
//! # How a side sleeps
//!
//! ```text
//! sleeper: flag = 1    fence    look at the index again    nothing: sleep on the wake-up
//! waker:   index = new    fence    look at the flag         set: clear it, notify the wake-up
//! ```
//! Either the sleeper's fence comes first in the single order of all SeqCst fences, then the waker sees the
//! flag; or the waker's does, then the sleeper sees the index. The wake-up is sticky (an eventfd), so it
//! may be signalled before the sleeper gets to sleep. The fence is paid once per batch by
//! [`Producer::flush`] and [`Consumer::flush`], and not at all by `publish` and `release`, for peers that poll.
//!
//! # What a hostile peer can do
//!
//! It can write anything to any byte at any time. An index that claims more than the ring holds, or that went
//! back, is [`Corrupt`]; one that lies within bounds yields slots with other contents than it
//! pushed, which is its own affair. Slots are read and written as relaxed atomic words, so a
//! concurrent writer is no undefined behaviour, each word is read once, and any mix of words is a valid
//! descriptor (`FromBytes`) for the caller to validate. A flag set without need costs one notification per batch.

mod consumer;
mod descriptor;
mod producer;
mod sleep_flag;
mod storage;

pub use consumer::Consumer;
pub use descriptor::Descriptor;
pub use producer::{Producer, PushError};
pub use sleep_flag::SleepFlag;
#[cfg(not(loom))]
pub use storage::MappedRing;
pub use storage::{BadRing, Control, HeapRing, Line, Storage, ring_len};

/// The peer's index is impossible: it is broken or hostile, and this ring is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer wrote an impossible index into the ring: end the session")]
pub struct Corrupt;

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::atomics::Ordering;

    #[test]
    fn indices_wrap_around_at_the_end_of_their_range() {
        let ring = HeapRing::new::<u64>(4).unwrap();
        let start = u64::MAX - 5;
        ring.control().tail.0.store(start, Ordering::Relaxed);
        ring.control().head.0.store(start, Ordering::Relaxed);
        let mut producer = Producer::<u64, _>::starting_at(Arc::clone(&ring), start).unwrap();
        let mut consumer = Consumer::<u64, _>::starting_at(Arc::clone(&ring), start).unwrap();
        for round in 0..5 {
            for value in 0..4 {
                producer.push(round * 4 + value).unwrap();
            }
            assert_eq!(producer.push(99), Err(PushError::Full));
            producer.publish();
            assert_eq!(consumer.available(), Ok(4));
            for value in 0..4 {
                assert_eq!(consumer.pop(), Ok(Some(round * 4 + value)));
            }
            assert_eq!(consumer.pop(), Ok(None));
            consumer.release();
        }
    }

    #[test]
    fn every_writer_has_cache_lines_of_its_own() {
        assert_eq!(size_of::<Control>(), 512);
        assert_eq!(std::mem::offset_of!(Control, tail), 0);
        assert_eq!(std::mem::offset_of!(Control, head), 128);
        assert_eq!(std::mem::offset_of!(Control, consumer_asleep), 256);
        assert_eq!(std::mem::offset_of!(Control, producer_asleep), 384);
        assert_eq!(ring_len::<[u64; 4]>(256), Some(512 + 256 * 32));
        assert_eq!(ring_len::<u64>(3), None);
        assert_eq!(ring_len::<u64>(1 << 25), None);
    }
}
