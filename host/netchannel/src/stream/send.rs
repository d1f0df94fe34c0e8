//! The writing direction.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use netchannel_vns::StreamError;

use crate::cell::{buffer, flags};
use crate::error::Error;
use crate::port::What;
use crate::runtime::CellWait;
use crate::shared::Command;
use crate::stream::shared::Shared;

/// The writing direction of a [`Stream`](crate::Stream).
pub struct SendHalf {
    shared: Arc<Shared>,
    tail: u64,
    finished: bool,
}

impl SendHalf {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tail: 0, finished: false }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Why nothing can be written, if so.
    fn fault(&self) -> Option<Error> {
        if self.finished {
            return Some(Error::Stream(StreamError::Finished));
        }
        let bits = self.shared.flags();
        if bits & flags::DEAD != 0 {
            return Some(self.shared.session_error());
        }
        if bits & flags::STOPPED != 0 {
            let code = self.shared.engine().stop_code.load(Relaxed);
            return Some(Error::Stream(StreamError::Stopped(code)));
        }
        None
    }

    /// Half close: the peer reads what was written and then the end.
    pub fn finish(&mut self) {
        if !self.finished {
            self.finished = true;
            self.shared.keeper.submit(Command::Finish(self.shared.seed.key));
        }
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
        shared.keeper.wait(&CellWait { word: &shared.application().write_waiter, ready }, None)?;
        let bits = shared.flags();
        if bits & flags::FINISHED != 0 {
            return Ok(());
        }
        if bits & flags::DEAD != 0 {
            return Err(shared.session_error());
        }
        Err(Error::Stream(StreamError::Stopped(shared.engine().stop_code.load(Relaxed))))
    }

    /// Bytes that were written and that the peer's engine has not confirmed yet.
    pub fn unconfirmed(&self) -> u64 {
        self.tail - self.shared.engine().confirmed.load(Acquire)
    }

    /// Takes as many bytes as there is room for; 0 if there is none now.
    fn write_some(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if let Some(taken) = self.shared.keeper.write_direct(self.shared.seed.key, bytes) {
            self.tail += taken as u64;
            return Ok(taken);
        }
        self.write_buffered(bytes)
    }

    /// By way of the send buffer.
    fn write_buffered(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let shared = Arc::clone(&self.shared);
        let application = shared.application();
        let claimed =
            application.buffer_state.compare_exchange(buffer::IDLE, buffer::BUSY, AcqRel, Relaxed);
        let window = self.shared.keeper.largest_window();
        let wanted = crate::engine::buffers::wanted(bytes.len(), window) as u32;
        application.buffer_wanted.store(wanted, Relaxed);
        if claimed.is_err() {
            // No buffer yet: the engine gives one when it looks.
            self.shared.ring(What::Written)?;
            return Ok(0);
        }
        let copied = self.copy_in(bytes);
        // Release: the engine that takes the buffer back has seen the tail.
        application.buffer_state.store(buffer::IDLE, Release);
        let copied = copied?;
        let size = 1u64 << self.shared.engine().buffer_log2.load(Relaxed);
        if copied > 0 || u64::from(wanted) > size {
            self.shared.ring(What::Written)?;
        }
        Ok(copied)
    }

    fn copy_in(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let shared = &self.shared;
        let engine = shared.engine();
        let size = 1u64 << engine.buffer_log2.load(Relaxed);
        let used = self.tail - engine.confirmed.load(Acquire);
        let room = size.saturating_sub(used) as usize;
        let len = bytes.len().min(room);
        let base = shared
            .keeper
            .resolve(engine.buffer_place.load(Relaxed))
            .ok_or(Error::NoMemory { what: "send buffers" })?;
        let mut done = 0;
        while done < len {
            let at = (self.tail & (size - 1)) as usize;
            let part = (len - done).min(size as usize - at);
            // SAFETY: the buffer is ours while its state is `BUSY`; `at + part` is inside of it;
            // bytes from `confirmed` to `tail` are left alone, so the NIC reads none of these.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    bytes.as_ptr().add(done),
                    base.as_ptr().add(at),
                    part,
                );
            }
            done += part;
            self.tail += part as u64;
        }
        shared.application().tail.store(self.tail, Release);
        shared.keeper.note_copied(len);
        Ok(len)
    }

    fn wait_for_room(&self) -> Result<(), Error> {
        let shared = &self.shared;
        let (engine, application) = (shared.engine(), shared.application());
        let tail = self.tail;
        let ready = || {
            if shared.flags() & (flags::STOPPED | flags::DEAD) != 0 {
                return true;
            }
            let size = 1u64 << engine.buffer_log2.load(Relaxed);
            match application.buffer_state.load(Acquire) {
                // Taken back while it was empty; the next attempt asks for another.
                buffer::NONE => true,
                _ => tail - engine.confirmed.load(Acquire) < size,
            }
        };
        shared.keeper.wait(&CellWait { word: &application.write_waiter, ready }, None)?;
        Ok(())
    }
}

impl Write for SendHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(error) = self.fault() {
                return Err(error.into());
            }
            let taken = self.write_some(bytes)?;
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
        self.finish();
    }
}
