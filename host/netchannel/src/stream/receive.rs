//! The reading direction.

use std::io::{self, Read};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use netchannel_shared_memory::memory::copy_from_shared;
use netchannel_vns::StreamError;
use netchannel_wire::frame::reset;

use crate::boundary::cell::flags;
use crate::boundary::port::What;
use crate::boundary::ready::Direction;
use crate::error::Error;
use crate::shared::Command;
use crate::stream::chunk::Chunk;
use crate::stream::readiness::Pollable;
use crate::stream::shared::Shared;
use crate::wait::Waited;

/// A long read lets the engine run after this many bytes, so that credit and acknowledgements go
/// out while it copies.
const READ_SLICE: usize = 64 << 10;

/// The reading direction of a [`Stream`](crate::Stream).
pub struct ReceiveHalf {
    shared: Arc<Shared>,
    consumed: u64,
    /// Up to where the engine knows.
    told: u64,
    generation: u32,
    /// Bytes consumed in place since the engine was driven for it.
    unpolled: u32,
}

impl ReceiveHalf {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, consumed: 0, told: 0, generation: 0, unpolled: 0 }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn readable(&self) -> u64 {
        self.shared.engine().readable.load(Acquire)
    }

    /// The memory of the next bytes: address, and how many follow it in one piece.
    fn next_piece(&mut self, readable: u64) -> Result<(NonNull<u8>, usize), Error> {
        let engine = self.shared.engine();
        let newest = engine.generation.load(Acquire);
        // Everything older than the newest but one was read long ago.
        self.generation = self.generation.max(newest.saturating_sub(1));
        let slot = |generation: u32| &engine.windows[(generation & 1) as usize];
        let mut end = readable;
        if self.generation < newest {
            let begins = slot(newest).from.load(Relaxed);
            if self.consumed >= begins {
                self.generation = newest;
            } else {
                end = end.min(begins);
            }
        }
        let window = slot(self.generation);
        let size = 1u64 << window.log2.load(Relaxed);
        let Some(base) = self.shared.reach.resolve(window.place.load(Relaxed)) else {
            return Err(Error::NoMemory { what: "receive windows" });
        };
        let at = self.consumed & (size - 1);
        let len = (end - self.consumed).min(size - at);
        // SAFETY: `at` is inside of the window.
        Ok((unsafe { base.add(at as usize) }, len as usize))
    }

    fn copy_out(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let readable = self.readable();
        let len = out.len().min((readable - self.consumed) as usize);
        let at_once = self.shared.reach.copied_at_once();
        let mut done = 0;
        while done < len {
            let (mut source, piece) = self.next_piece(readable)?;
            let part = piece.min(len - done);
            for target in out[done..done + part].chunks_mut(at_once) {
                // SAFETY: `part` bytes are in the window and below the watermark, and these are the first of those
                // left; nobody writes them before we say that they are consumed, unless the peer breaks the
                // rules: then we copy unspecified bytes of its own stream.
                unsafe { copy_from_shared(source, target) };
                // SAFETY: at the end of the piece at most.
                source = unsafe { source.add(target.len()) };
            }
            done += part;
            self.consumed += part as u64;
        }
        self.shared.application().consumed.store(self.consumed, Release);
        self.shared.reach.note_copied(len);
        Ok(len)
    }

    /// Tells the engine what was read, when that is worth it.
    fn tell(&mut self) -> Result<(), Error> {
        let window = &self.shared.engine().windows[(self.generation & 1) as usize];
        let quarter = (1u64 << window.log2.load(Relaxed)) / 4;
        if self.consumed - self.told >= quarter {
            self.told = self.consumed;
            return self.shared.ring(What::Consumed);
        }
        if self.consumed > self.told && self.consumed == self.readable() {
            // The peer has credit left, so there is no hurry: the next pass takes it along.
            self.told = self.consumed;
            return self.shared.reach.note_read(self.shared.seed.key);
        }
        Ok(())
    }

    /// Why nothing can be read any more, if so: `Ok` is the end of the stream.
    fn end(&self) -> Option<Result<(), Error>> {
        // Flags first: they say what the watermark read after them means.
        let bits = self.shared.flags();
        if self.readable() > self.consumed {
            return None;
        }
        if bits & flags::FIN != 0 {
            return Some(Ok(()));
        }
        if bits & flags::RESET != 0 {
            let code = self.shared.engine().reset_code.load(Relaxed);
            return Some(Err(Error::Stream(StreamError::Reset(code))));
        }
        if bits & flags::DEAD != 0 {
            return Some(Err(self.shared.session_error()));
        }
        None
    }

    /// Reads without waiting; 0 at the end of the stream.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if there is nothing yet; that the stream or its session failed.
    pub fn try_read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let mut count = self.take(out)?;
        if count.is_none() {
            self.shared.drive();
            count = self.take(out)?;
        }
        let count = count.ok_or_else(|| self.shared.would_block(Direction::Read))?;
        self.shared.on_success(Direction::Read);
        Ok(count)
    }

    /// Lends the next received bytes where they lie, as many as are in one piece; waits until there are some.
    /// `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream or its session failed.
    ///
    /// # Example
    /// See [`Chunk`].
    pub fn borrow(&mut self) -> Result<Option<Chunk<'_>>, Error> {
        if self.shared.is_nonblocking() {
            return self.try_borrow();
        }
        loop {
            if self.has_bytes()? {
                return self.next_chunk().map(Some);
            }
            if self.end().is_some() {
                return Ok(None);
            }
            self.wait()?;
        }
    }

    /// As [`borrow`](Self::borrow), without waiting.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if there is nothing yet; as [`borrow`](Self::borrow).
    pub fn try_borrow(&mut self) -> Result<Option<Chunk<'_>>, Error> {
        if !self.has_bytes()? {
            self.shared.drive();
        }
        if self.has_bytes()? {
            self.shared.on_success(Direction::Read);
            return self.next_chunk().map(Some);
        }
        self.end().map(|_| None).ok_or_else(|| self.shared.would_block(Direction::Read))
    }

    /// A descriptor that tells when this direction is worth trying; see [`Pollable`].
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if the process has too many descriptors.
    pub fn pollable(&self) -> Result<Pollable, Error> {
        self.shared.pollable(&[Direction::Read])
    }

    /// Whether there are bytes. (There are none at the end, either.)
    fn has_bytes(&self) -> Result<bool, Error> {
        match self.end() {
            Some(Err(error)) => Err(error),
            Some(Ok(())) => Ok(false),
            None => Ok(self.readable() > self.consumed),
        }
    }

    /// There are bytes.
    fn next_chunk(&mut self) -> Result<Chunk<'_>, Error> {
        let (first, len) = self.next_piece(self.readable())?;
        // SAFETY: the piece is in the window and below the watermark; the engine takes no window back
        // before its bytes are consumed, and keeps its memory mapped as long as the stream is held.
        Ok(unsafe { Chunk::new(self, first, len) })
    }

    /// Where the next bytes lie in the stream.
    pub(super) fn position(&self) -> u64 {
        self.consumed
    }

    pub(super) fn note_copied(&self, bytes: usize) {
        self.shared.reach.note_copied(bytes);
    }

    /// Bytes of a chunk are done with.
    pub(super) fn consume(&mut self, bytes: usize) -> Result<(), Error> {
        self.consumed += bytes as u64;
        self.shared.application().consumed.store(self.consumed, Release);
        self.tell()?;
        self.unpolled = self.unpolled.saturating_add(bytes as u32);
        if self.unpolled >= READ_SLICE as u32 {
            // As in `take`; who finds bytes at every look would not drive at all otherwise.
            self.unpolled = 0;
            self.shared.drive();
        }
        Ok(())
    }

    /// Waits until reading again is worth it.
    fn wait(&self) -> Result<(), Error> {
        let shared = &self.shared;
        let ready = || shared.seed.cell.state().is_readable();
        let word = &shared.application().read_waiter;
        let waited = shared.wait(word, ready)?;
        debug_assert_eq!(waited, Waited::Ready, "without a deadline");
        Ok(())
    }

    /// Takes what has arrived already.
    fn take(&mut self, out: &mut [u8]) -> Result<Option<usize>, Error> {
        let mut done = 0;
        while done < out.len() && self.readable() > self.consumed {
            let slice = (out.len() - done).min(READ_SLICE);
            let copied = self.copy_out(&mut out[done..done + slice])?;
            done += copied;
            self.tell()?;
            if copied == READ_SLICE {
                // The peer's writer waits for confirmations while we copy.
                self.shared.drive();
            }
        }
        if done > 0 || out.is_empty() {
            return Ok(Some(done));
        }
        match self.end() {
            None => Ok(None),
            Some(outcome) => outcome.map(|()| Some(0)),
        }
    }
}

impl Read for ReceiveHalf {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.shared.is_nonblocking() {
            return Ok(self.try_read(out)?);
        }
        loop {
            if let Some(count) = self.take(out)? {
                return Ok(count);
            }
            self.wait()?;
        }
    }
}

impl Drop for ReceiveHalf {
    fn drop(&mut self) {
        let key = self.shared.seed.key;
        self.shared.reach.submit(Command::Stop(key, reset::CANCELLED));
    }
}
