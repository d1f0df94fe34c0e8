//! The writing direction.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use netchannel_vns::StreamError;

use crate::boundary::cell::flags;
use crate::boundary::ready::Direction;
use crate::engine::Loan;
use crate::error::Error;
use crate::shared::Command;
use crate::stream::buffer::{BufferClaim, Space};
use crate::stream::readiness::Pollable;
use crate::stream::reservation::Reservation;
use crate::stream::shared::Shared;

/// The writing direction of a [`Stream`](crate::Stream).
pub struct SendHalf {
    pub(super) shared: Arc<Shared>,
    /// Bytes written.
    pub(super) tail: u64,
    /// Up to where the engine was driven for it.
    pub(super) rung: u64,
    finished: bool,
    pub(super) buffer: BufferClaim,
}

impl SendHalf {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tail: 0, rung: 0, finished: false, buffer: BufferClaim::default() }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Why nothing can be written, if so.
    fn fault(&self) -> Option<Error> {
        if self.finished {
            return Some(Error::Stream(StreamError::Finished));
        }
        let bits = self.shared.flags();
        (bits & (flags::DEAD | flags::STOPPED) != 0).then(|| self.broken(bits))
    }

    /// Half close: the peer reads what was written and then the end.
    pub fn finish(&mut self) {
        if !self.finished {
            self.finished = true;
            self.shared.reach.submit(Command::Finish(self.shared.seed.key));
        }
    }

    /// Whether the peer's engine has everything, after [`finish`](Self::finish). A direction that is finished
    /// and not that far becomes writable when it is.
    ///
    /// # Errors
    /// It never will.
    pub fn is_finished(&self) -> Result<bool, Error> {
        let bits = self.shared.flags();
        if bits & flags::FINISHED == 0 && bits & (flags::DEAD | flags::STOPPED) != 0 {
            return Err(self.broken(bits));
        }
        Ok(bits & flags::FINISHED != 0)
    }

    fn broken(&self, bits: u32) -> Error {
        // What the peer's application said, if it did before its session ended.
        if bits & flags::STOPPED == 0 {
            return self.shared.session_error();
        }
        let code = self.shared.engine().stop_code.load(Relaxed);
        Error::Stream(StreamError::Stopped(code))
    }

    /// A descriptor that tells when this direction is worth trying; see [`Pollable`].
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if the process has too many descriptors.
    pub fn pollable(&self) -> Result<Pollable, Error> {
        self.shared.pollable(&[Direction::Write])
    }

    /// Finishes and waits until the peer's engine has everything.
    ///
    /// # Errors
    /// Why it does not.
    pub fn finish_and_wait(&mut self) -> Result<(), Error> {
        self.finish();
        let shared = &self.shared;
        let settled = flags::FINISHED | flags::STOPPED | flags::DEAD;
        let ready = || shared.flags() & settled != 0;
        shared.wait(&shared.application().write_waiter, ready)?;
        let bits = shared.flags();
        if bits & flags::FINISHED != 0 {
            return Ok(());
        }
        Err(self.broken(bits))
    }

    /// Bytes that were written and that the peer's engine has not confirmed yet.
    pub fn unconfirmed(&self) -> u64 {
        self.tail - self.shared.engine().confirmed.load(Acquire)
    }

    /// Space in the stream's send buffer for the application to make its bytes in: at most `len` bytes,
    /// at least as many or a quarter of the buffer, as soon as there are so many.
    ///
    /// The buffer is registered with the device, which fetches the bytes from it once they are
    /// [committed](Reservation::commit): nothing on this side copies them. A first use may lease a
    /// larger buffer (up to [`Config::window`](crate::Config::window)), for which it waits until the
    /// old one is empty. More than a receive slot's worth (8 KiB) of committed bytes waits for a window
    /// at the peer, one round trip after a pause, because without one they would be copied.
    ///
    /// # Errors
    /// Why nothing can be written any more.
    ///
    /// # Example
    /// See [`Reservation`].
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, Error> {
        if self.shared.is_nonblocking() {
            return self.try_reserve(len);
        }
        loop {
            if let Some(space) = self.make_space(len)? {
                return Ok(Reservation::new(self, space));
            }
            self.wait_for_room()?;
        }
    }

    /// As [`reserve`](Self::reserve), without waiting.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if there is too little room now; as [`reserve`](Self::reserve).
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_>, Error> {
        let mut space = self.make_space(len)?;
        if space.is_none() {
            self.shared.drive();
            space = self.make_space(len)?;
        }
        match space {
            Some(space) => {
                self.shared.on_success(Direction::Write);
                Ok(Reservation::new(self, space))
            }
            None => Err(self.shared.would_block(Direction::Write)),
        }
    }

    /// Writes without waiting for the peer; returns how many bytes were taken, at least one.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if there is too little room now; why nothing can be written any more.
    pub fn try_write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if let Some(error) = self.fault() {
            return Err(error);
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut taken = self.write_some(bytes, false)?;
        if taken == 0 {
            self.shared.drive();
            taken = self.write_some(bytes, false)?;
        }
        if taken == 0 {
            return Err(self.shared.would_block(Direction::Write));
        }
        self.shared.on_success(Direction::Write);
        Ok(taken)
    }

    /// Claims the send buffer if enough of it is free.
    fn make_space(&mut self, len: usize) -> Result<Option<Space>, Error> {
        if let Some(error) = self.fault() {
            return Err(error);
        }
        self.shared.application().in_place.store(1, Relaxed);
        let len = len.max(1);
        Ok(self.claim(len)?.map(|space| space.cut(len)))
    }

    /// Takes as many bytes as there is room for; 0 if there is none now. A direct write may wait some
    /// microseconds for the peer if `patient`.
    fn write_some(&mut self, bytes: &[u8], patient: bool) -> Result<usize, Error> {
        self.unclaim();
        let key = self.shared.seed.key;
        if let Some(taken) = self.shared.reach.write_direct(Loan { stream: key, bytes, patient }) {
            self.tail += taken as u64;
            self.rung = self.tail;
            if taken == 0 {
                self.shared.application().room_wanted.store(1, Relaxed);
            }
            return Ok(taken);
        }
        let Some(space) = self.claim(bytes.len())? else { return Ok(0) };
        let longest = usize::try_from(self.shared.reach.longest_copy()).unwrap_or(usize::MAX);
        let len = bytes.len().min(space.len()).min(longest);
        // SAFETY: the space is ours until it is committed, and nobody reads it before that.
        let (first, second) = unsafe { space.as_mut_slices() };
        let cut = len.min(first.len());
        let piece = self.shared.reach.copied_at_once();
        copy_in_pieces(&mut first[..cut], &bytes[..cut], piece);
        copy_in_pieces(&mut second[..len - cut], &bytes[cut..len], piece);
        self.shared.reach.note_copied(len);
        self.commit(len)?;
        Ok(len)
    }

    /// Waits until trying again to put `len` bytes is worth it.
    fn wait_for_room(&self) -> Result<(), Error> {
        let shared = &self.shared;
        let ready = || shared.seed.cell.state().is_writable();
        let word = &shared.application().write_waiter;
        shared.wait(word, ready)?;
        Ok(())
    }
}

impl Write for SendHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.shared.is_nonblocking() {
            return Ok(self.try_write(bytes)?);
        }
        loop {
            if let Some(error) = self.fault() {
                return Err(error.into());
            }
            let taken = self.write_some(bytes, true)?;
            if taken > 0 {
                return Ok(taken);
            }
            self.wait_for_room()?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.unclaim();
        self.finish();
    }
}

/// Copies `from`, which is as long as `to`.
fn copy_in_pieces(to: &mut [u8], from: &[u8], piece: usize) {
    for (to, from) in to.chunks_mut(piece).zip(from.chunks(piece)) {
        to.copy_from_slice(from);
    }
}
