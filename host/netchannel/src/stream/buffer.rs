//! The send buffer of a stream as its application sees it: claimed while bytes are made in it.
//!
//! Who may touch it when, by the state in the stream's cell:
//!
//! | state | bytes `confirmed..tail` | the other bytes |
//! |---|---|---|
//! | `BUSY` | engine and NIC read | this side writes |
//! | `IDLE` | engine and NIC read | nobody; the engine may take the buffer back if all is confirmed |
//! | `NONE`, `WANTED` | (there are none) | the engine's |

use std::ptr::NonNull;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use netchannel_units::Class;

use crate::boundary::cell::buffer;
use crate::boundary::port::{Doorbell, What};
use crate::error::Error;
use crate::stream::send::SendHalf;
use crate::stream::shared::Shared;

/// Less than this part of a buffer is not worth waking up for: small pieces cost as much as large
/// ones, further down.
const WORTHWHILE: u64 = 4;

/// How this side stands to its send buffer.
#[derive(Debug, Default)]
pub(super) struct BufferClaim {
    /// It is ours: the state in the cell is `BUSY`. Also true after a reservation was leaked.
    claimed: bool,
    /// Bytes that were asked for last: asking for no more is no use.
    asked: u32,
}

/// Free space of a claimed send buffer, in two pieces where it wraps around.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    base: NonNull<u8>,
    at: usize,
    first: usize,
    second: usize,
}

impl Space {
    pub(super) fn len(&self) -> usize {
        self.first + self.second
    }

    /// At most `len` bytes of it.
    pub(super) fn cut(self, len: usize) -> Self {
        let first = self.first.min(len);
        Self { first, second: self.second.min(len - first), ..self }
    }

    /// The pieces.
    ///
    /// # Safety
    /// The buffer is claimed by the half that the space came from, and nothing was committed since;
    /// there are no other references to these bytes for as long as `'a`.
    pub(super) unsafe fn as_mut_slices<'a>(&self) -> (&'a mut [u8], &'a mut [u8]) {
        // SAFETY: both pieces lie in the buffer, apart from one another. While it is claimed, bytes
        // beyond the tail are touched by this side alone (table above); no peer has a key to them.
        unsafe {
            let first = NonNull::slice_from_raw_parts(self.base.add(self.at), self.first).as_mut();
            (first, NonNull::slice_from_raw_parts(self.base, self.second).as_mut())
        }
    }
}

impl SendHalf {
    /// Claims the send buffer for `len` bytes; `None` if there is none now or too little is free,
    /// then [`is_writable`](crate::boundary::cell::CellState::is_writable) says when to try again.
    pub(super) fn claim(&mut self, len: usize) -> Result<Option<Space>, Error> {
        let wanted = crate::engine::buffers::wanted(len, self.shared.reach.largest_window());
        for _ in 0..2 {
            if !self.take_state() {
                if self.shared.application().buffer_state.load(Acquire) == buffer::NONE {
                    self.ask(wanted)?;
                    continue;
                }
                return Ok(None);
            }
            let (size, free) = self.size_and_free();
            // Only an empty buffer can be exchanged; to get there, many bytes wait until a far too
            // small one has drained.
            let larger = wanted > size && wanted > u64::from(self.buffer.asked);
            if larger && free == size {
                self.ask(wanted)?;
                continue;
            }
            let enough = match larger && wanted / WORTHWHILE >= size {
                true => size,
                false => (len as u64).min(size / WORTHWHILE).min(self.shared.reach.longest_copy()),
            };
            if free < enough.max(1) {
                self.shared.application().room_wanted.store(enough as u32, Relaxed);
                self.unclaim();
                return Ok(None);
            }
            return self.space().map(Some);
        }
        Ok(None)
    }

    /// Takes the buffer from `IDLE` to `BUSY`. False if there is none.
    fn take_state(&mut self) -> bool {
        let state = &self.shared.application().buffer_state;
        if !self.buffer.claimed {
            let taken = state.compare_exchange(buffer::IDLE, buffer::BUSY, AcqRel, Relaxed);
            self.buffer.claimed = taken.is_ok();
        }
        self.buffer.claimed
    }

    /// Asks the engine for a buffer of `wanted` bytes, instead of the one there is if any.
    fn ask(&mut self, wanted: u64) -> Result<(), Error> {
        let application = self.shared.application();
        application.buffer_wanted.store(wanted as u32, Relaxed);
        application.room_wanted.store(1, Relaxed);
        self.buffer = BufferClaim { claimed: false, asked: wanted as u32 };
        // Release: the engine sees what is wanted, and is done before us with what it gives.
        application.buffer_state.store(buffer::WANTED, Release);
        self.shared.ring(What::Written)
    }

    fn size_and_free(&self) -> (u64, u64) {
        let engine = self.shared.engine();
        let size = 1u64 << (engine.buffer_log2.load(Relaxed) & 63);
        let used = self.tail.saturating_sub(engine.confirmed.load(Acquire));
        (size, size.saturating_sub(used))
    }

    /// What is free of the claimed buffer.
    pub(super) fn space(&self) -> Result<Space, Error> {
        let (size, free) = self.size_and_free();
        let Some(base) = self.shared.reach.resolve(self.shared.engine().buffer_place.load(Relaxed))
        else {
            return Err(Error::NoMemory { what: "send buffers" });
        };
        let at = self.tail & (size - 1);
        let first = free.min(size - at);
        let [at, first, second] = [at, first, free - first].map(|n| n as usize);
        Ok(Space { base, at, first, second })
    }

    /// The first `len` bytes of the space are written: the engine may send them.
    pub(super) fn commit(&mut self, len: usize) -> Result<(), Error> {
        self.tail += len as u64;
        // Release: who sees the tail sees the bytes.
        self.shared.application().tail.store(self.tail, Release);
        self.unclaim();
        if len == 0 {
            return Ok(());
        }
        if self.gathers() {
            let doorbell = Doorbell { stream: self.shared.seed.key, what: What::Written };
            return self.shared.reach.ring_later(doorbell);
        }
        self.rung = self.tail;
        self.shared.ring(What::Written)
    }

    /// Whether what was written since the last pass for it is to wait for more.
    fn gathers(&self) -> bool {
        let Shared { seed, reach, .. } = &*self.shared;
        // Half of the buffer is on its way while the other half fills.
        let enough = reach.gathered(seed.key).min(self.size_and_free().0 / 2);
        let few = self.tail - self.rung < enough;
        few && seed.claim.class == Class::Throughput
            && self.rung > self.shared.engine().confirmed.load(Acquire)
    }

    /// Lets the engine have the buffer, should it want it.
    pub(super) fn unclaim(&mut self) {
        if std::mem::take(&mut self.buffer.claimed) {
            // Release: the engine that takes the buffer back has seen the tail.
            self.shared.application().buffer_state.store(buffer::IDLE, Release);
        }
    }
}
