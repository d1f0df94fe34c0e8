//! The wire of one direction of a queue pair, or from one queue pair for datagrams to another: a ring of slots and a ring of payload bytes in one
//! sealed memfd. The receiver makes it; one sender and one receiver use it.
//!
//! ```text
//! 0     receiver's line:  progress u64 (slots consumed)
//! 64    receiver's line:  refusal u32; apart, since it is looked at far more often than it changes
//! 128   sender's line:    writing u32, retries u32, closed u32
//! 4096  slots of 128 bytes: word 0 (lap | kind | flags), word 1 (length | immediate),
//!                           word 2 (message length | queue key), up to 104 bytes of payload or the
//!                           arrival time
//! then  payload bytes of messages above 104 bytes, in order, each segment on a line of its own
//! ```
//!
//! A slot is published by the release-store of its word 0, whose lap number tells it from the slot of
//! the last turn; the receiver looks at that word alone, so that a small message costs one cache-line
//! transfer, or two that overlap. `progress` gives slots and the payload bytes named by them back to
//! the sender: at once if that waits for it ([`flag::NOTIFY`]), else when nothing more has arrived.
//!
//! Neither side believes the other: what is read is copied to private memory first, then checked, and
//! offsets are masked; rubbish ends the connection, nothing else.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use netchannel_shared_memory as shared;
use shared::memory::{Mapping, SharedMemory};

mod ends;

pub(super) use ends::{Receiver, Sender};

/// Slots of a ring: enough for the work requests that are in flight within one poll pass.
const SLOTS: u32 = 512;
/// Payload bytes of a ring: with slots and private state it stays in a 1 MiB second-level cache.
const PAYLOAD: u32 = 256 * 1024;
/// Bytes of one segment at most: a quarter of the ring, so that both sides copy at the same time.
pub(super) const SEGMENT: u32 = PAYLOAD / 4;
/// Bytes that travel in the slot itself.
pub(super) const IN_SLOT: u32 = 104;

/// Bytes of a slot, two cache lines: a SEND of 64 bytes with the headers of the layers above fits.
const SLOT: usize = 128;
const LINE: u64 = 64;
const PROGRESS: usize = 0;
const REFUSAL: usize = 64;
const WRITING: usize = 128;
const RETRIES: usize = 132;
const CLOSED: usize = 136;
const SLOTS_AT: usize = 4096;
const DATA_IN_SLOT: usize = 24;

const _: () = assert!(DATA_IN_SLOT + IN_SLOT as usize == SLOT);

/// What a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A segment of a SEND.
    Send,
    /// The sender broke a rule of remote access: the receiver's queue pair fails too.
    Violation,
    /// Nothing arrives with it: the sender waits for the slots before it, and they do not say so.
    Awaited,
    /// A datagram, its GRH in front.
    Datagram,
    /// Rubbish.
    Unknown,
}

impl Kind {
    fn from_wire(value: u8) -> Self {
        match value {
            1 => Self::Send,
            2 => Self::Violation,
            3 => Self::Datagram,
            4 => Self::Awaited,
            _ => Self::Unknown,
        }
    }

    fn to_wire(self) -> u8 {
        match self {
            Self::Send => 1,
            Self::Violation => 2,
            Self::Datagram => 3,
            Self::Awaited => 4,
            Self::Unknown => 0,
        }
    }
}

/// Flags of a slot.
pub(super) mod flag {
    pub(crate) const FIRST: u8 = 1;
    pub(crate) const LAST: u8 = 2;
    pub(crate) const IMMEDIATE: u8 = 4;
    pub(crate) const SOLICITED: u8 = 8;
    /// The sender, if it sleeps, is to be woken when this slot was consumed: for a completion, or
    /// because the ring is half full and requests may wait for room.
    pub(crate) const NOTIFY: u8 = 16;
    /// The slot holds an arrival time instead of payload.
    pub(crate) const TIMED: u8 = 32;
    /// The next datagram overtakes this one, unless it comes after this one's arrival time.
    pub(crate) const OVERTAKEN: u8 = 64;
}

/// Why the receiver takes no more slots: the fate of the first message not consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its receive was too short.
    TooShort,
    /// No receive was posted for too long.
    NotReady,
    /// The queue pair is in error or destroyed.
    Gone,
    /// The receiver could not execute it (or wrote rubbish here).
    Failed,
}

impl Refusal {
    fn from_wire(value: u32) -> Option<Self> {
        match value {
            0 => None,
            1 => Some(Self::TooShort),
            2 => Some(Self::NotReady),
            3 => Some(Self::Gone),
            _ => Some(Self::Failed),
        }
    }

    fn to_wire(self) -> u32 {
        match self {
            Self::TooShort => 1,
            Self::NotReady => 2,
            Self::Gone => 3,
            Self::Failed => 4,
        }
    }
}

/// A slot, copied to private memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    /// Bytes of this segment.
    pub(super) len: u32,
    pub(super) immediate: u32,
    /// Bytes of the whole message.
    pub(super) total: u32,
    /// That of the receiver of a datagram.
    pub(super) queue_key: u32,
    /// Not to be seen before; nanoseconds, zero if the link has no model.
    pub(super) arrival: u64,
}

impl Slot {
    /// One without bytes.
    pub(super) fn bare(kind: Kind) -> Self {
        Self { kind, flags: 0, len: 0, immediate: 0, total: 0, queue_key: 0, arrival: 0 }
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn in_slot(&self) -> bool {
        self.len <= IN_SLOT && !self.has(flag::TIMED)
    }
}

/// The peer wrote something that no NIC writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rubbish;

/// The memory of a ring, mapped.
#[derive(Debug)]
pub(super) struct Ring {
    map: Mapping,
    memory: SharedMemory,
    base: NonNull<u8>,
}

// SAFETY: `base` points into `map`, which is `Send` and `Sync`; words are accessed atomically, payload
// by raw copies.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

const PAYLOAD_AT: usize = SLOTS_AT + SLOTS as usize * SLOT;
const RING_BYTES: usize = PAYLOAD_AT + PAYLOAD as usize;

impl Ring {
    pub(super) fn create() -> Result<Self, shared::Error> {
        Self::new(SharedMemory::create("netchannel-wire", RING_BYTES)?)
    }

    pub(super) fn from_fd(fd: OwnedFd) -> Result<Self, shared::Error> {
        Self::new(SharedMemory::from_fd(fd, RING_BYTES)?)
    }

    fn new(memory: SharedMemory) -> Result<Self, shared::Error> {
        let map = memory.map()?;
        let base = map.as_ptr();
        Ok(Self { map, memory, base })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &Mapping {
        &self.map
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset + 4 <= self.map.len() && offset.is_multiple_of(4));
        // SAFETY: callers pass one of the constants above, all aligned and below `RING_BYTES`, the
        // length of the mapping; the page begins aligned.
        unsafe { self.base.add(offset).cast().as_ref() }
    }

    /// Slots consumed, by the receiver.
    #[inline]
    fn progress(&self) -> &AtomicU64 {
        // SAFETY: as in `word`; the offset is a multiple of 8.
        unsafe { self.base.add(PROGRESS).cast().as_ref() }
    }

    /// Whether the receiver has consumed `slots` slots, as it says. Relaxed: a hint.
    #[inline]
    pub(super) fn has_consumed(&self, slots: u64) -> bool {
        self.progress().load(Ordering::Relaxed) >= slots
    }

    /// Why the receiver takes nothing more, if so.
    #[inline]
    pub(super) fn refusal(&self, ordering: Ordering) -> Option<Refusal> {
        Refusal::from_wire(self.word(REFUSAL).load(ordering))
    }

    /// Refuses everything from the slot `progress` on; the first reason stays.
    pub(super) fn refuse(&self, why: Refusal) {
        let word = self.word(REFUSAL);
        if word.load(Ordering::Relaxed) == 0 {
            // Release: whoever sees it sees the final progress.
            word.store(why.to_wire(), Ordering::Release);
        }
    }

    /// Non-zero while the sender copies into memory of the receiver.
    pub(super) fn writing(&self) -> &AtomicU32 {
        self.word(WRITING)
    }

    /// One more than the receiver-not-ready retries of the sender; zero before it connected.
    pub(super) fn retries(&self) -> &AtomicU32 {
        self.word(RETRIES)
    }

    /// Non-zero when the sender of datagrams will send no more.
    pub(super) fn closed(&self) -> &AtomicU32 {
        self.word(CLOSED)
    }

    #[inline]
    fn slot(&self, position: u64) -> &[AtomicU64; 8] {
        let index = (position % u64::from(SLOTS)) as usize;
        // SAFETY: `index` is below `SLOTS`, so the slot lies in the mapping; aligned to its size.
        unsafe { self.base.add(SLOTS_AT + index * SLOT).cast().as_ref() }
    }

    #[inline]
    fn slot_data(&self, position: u64) -> NonNull<u8> {
        let index = (position % u64::from(SLOTS)) as usize;
        // SAFETY: inside of the slot, see `slot`.
        unsafe { self.base.add(SLOTS_AT + index * SLOT + DATA_IN_SLOT) }
    }

    /// The payload bytes from `position` on that are contiguous, at most `len`.
    #[inline]
    fn payload(&self, position: u64, len: u32) -> (NonNull<u8>, u32) {
        let offset = (position % u64::from(PAYLOAD)) as u32;
        let len = len.min(PAYLOAD - offset);
        let start = PAYLOAD_AT + offset as usize;
        // SAFETY: `offset + len <= PAYLOAD`, the size of the area at the end of the mapping.
        (unsafe { self.base.add(start) }, len)
    }

    /// Whether the slot at `position` has been published. Relaxed: a hint.
    #[inline]
    pub(super) fn published(&self, position: u64) -> bool {
        self.slot(position)[0].load(Ordering::Relaxed) as u32 == lap(position)
    }
}

/// The number that marks the slots of one turn; never zero, so fresh memory is unpublished.
#[inline]
fn lap(position: u64) -> u32 {
    (position / u64::from(SLOTS)) as u32 | 0x8000_0000
}

#[inline]
fn lines(len: u32) -> u64 {
    u64::from(len).next_multiple_of(LINE)
}
