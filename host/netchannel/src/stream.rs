//! Streams as applications see them.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use netchannel_units::Class;
use netchannel_verbs::device::Provider;
use netchannel_vns::StreamError;
use netchannel_wire::frame::reset;

use crate::cell::{ApplicationSide, EngineSide, buffer, flags};
use crate::config::{Policy, Poller};
use crate::error::Error;
use crate::port::{Doorbell, What};
use crate::runtime::{CellWait, Keeper, Waited, now};
use crate::shared::{Command, StreamSeed};

/// A long read lets the engine run after this many bytes, so that credit and acknowledgements go
/// out while it copies.
const READ_SLICE: usize = 64 << 10;

/// What both halves share; the last one to go releases the stream.
struct Shared {
    keeper: Arc<Keeper>,
    seed: StreamSeed,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.keeper.inner.submit(Command::Release(self.seed.key));
    }
}

impl Shared {
    fn engine(&self) -> &EngineSide {
        &self.seed.cell.state().engine
    }

    fn application(&self) -> &ApplicationSide {
        &self.seed.cell.state().application
    }

    fn flags(&self) -> u32 {
        self.engine().flags.load(Acquire)
    }

    /// Tells the engine to look at the cell: at once, if this thread may drive it.
    fn ring(&self, what: What) -> Result<(), Error> {
        let inner = &self.keeper.inner;
        let doorbell = Doorbell { stream: self.seed.key, what };
        if inner.config.poller == Poller::Inline
            && let Some(mut engine) = inner.owner.try_own()
        {
            engine.doorbell(doorbell);
            engine.poll(now());
            inner.let_go(engine);
            return Ok(());
        }
        while !self.keeper.with_port(|port| port.ring(doorbell))? {
            // Full: somebody has to take what is in it.
            inner.wake_driver();
            inner.with_engine(|_| ());
        }
        match inner.config.poller {
            Poller::Dedicated => inner.wake_driver(),
            // Whoever drives takes it in its next pass; if this one was its last, it is ours.
            Poller::Inline => inner.with_engine(|_| ()),
        }
        Ok(())
    }

    fn info(&self) -> StreamInfo {
        let inner = &self.keeper.inner;
        StreamInfo {
            peer: self.seed.session.peer,
            device: inner.device.name.clone(),
            provider: inner.device.provider,
            channels: self.seed.session.channels,
            class: self.seed.class,
            policy: inner.config.policy,
            reason: inner.reason.clone(),
        }
    }
}

/// How a stream travels, and why.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    /// The peer's control address.
    pub peer: SocketAddr,
    /// The device.
    pub device: String,
    /// Who drives it.
    pub provider: Provider,
    /// Channels of the session.
    pub channels: u16,
    /// The stream's class.
    pub class: Class,
    /// How it is spread over Channels.
    pub policy: Policy,
    /// Why this device.
    pub reason: String,
}

/// A reliable, ordered byte stream in both directions.
///
/// Dropping it sends what was written and reads no more; [`close`](Self::close) does the same and
/// reports. [`split`](Self::split) gives the directions to two threads.
pub struct Stream {
    send: SendHalf,
    receive: ReceiveHalf,
}

/// The writing direction of a [`Stream`].
pub struct SendHalf {
    shared: Arc<Shared>,
    tail: u64,
    finished: bool,
}

/// The reading direction of a [`Stream`].
pub struct ReceiveHalf {
    shared: Arc<Shared>,
    consumed: u64,
    /// Up to where the engine knows.
    told: u64,
    generation: u32,
}

impl Stream {
    pub(crate) fn new(keeper: Arc<Keeper>, seed: StreamSeed) -> Self {
        let shared = Arc::new(Shared { keeper, seed });
        Self {
            send: SendHalf { shared: Arc::clone(&shared), tail: 0, finished: false },
            receive: ReceiveHalf { shared, consumed: 0, told: 0, generation: 0 },
        }
    }

    /// Waits until the peer has confirmed the open.
    pub(crate) fn open(
        keeper: Arc<Keeper>,
        seed: StreamSeed,
        peer: SocketAddr,
    ) -> Result<Self, Error> {
        let stream = Self::new(Arc::clone(&keeper), seed);
        let shared = Arc::clone(&stream.receive.shared);
        let settled = flags::OPENED | flags::RESET | flags::STOPPED | flags::DEAD;
        let ready = || shared.flags() & settled != 0;
        keeper.wait(&CellWait { word: &shared.application().read_waiter, ready }, None)?;
        let bits = shared.flags();
        if bits & flags::DEAD != 0 {
            return Err(shared.seed.session.error());
        }
        if bits & flags::OPENED == 0 {
            let code =
                shared.engine().stop_code.load(Relaxed) | shared.engine().reset_code.load(Relaxed);
            let reason = match code {
                reset::REFUSED => "nobody listens on that port of the peer's runtime".to_owned(),
                reset::BUSY => "the listener's backlog is full; try again later".to_owned(),
                other => format!("the peer reset the stream (code {other:#x})"),
            };
            return Err(Error::Connect { peer, reason, kind: io::ErrorKind::ConnectionRefused });
        }
        Ok(stream)
    }

    /// The two directions, each for a thread of its own.
    pub fn split(self) -> (SendHalf, ReceiveHalf) {
        (self.send, self.receive)
    }

    /// The writing direction.
    pub fn send_half(&mut self) -> &mut SendHalf {
        &mut self.send
    }

    /// The reading direction.
    pub fn receive_half(&mut self) -> &mut ReceiveHalf {
        &mut self.receive
    }

    /// Half close: the peer reads what was written and then the end. Reading goes on.
    pub fn finish(&mut self) {
        self.send.finish();
    }

    /// Finishes, waits until the peer's engine has everything, and lets go.
    ///
    /// # Errors
    /// Why it does not.
    pub fn close(mut self) -> Result<(), Error> {
        self.send.finish_and_wait()
    }

    /// Gives up both directions; what the peer has not read may be lost.
    pub fn reset(self, code: u32) {
        let inner = &self.send.shared.keeper.inner;
        let key = self.send.shared.seed.key;
        inner.submit(Command::Reset(key, code));
        inner.submit(Command::Stop(key, code));
    }

    /// How the stream travels.
    pub fn info(&self) -> StreamInfo {
        self.send.shared.info()
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.receive.read(out)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SendHalf {
    /// Why nothing can be written, if so.
    fn fault(&self) -> Option<Error> {
        if self.finished {
            return Some(Error::Stream(StreamError::Finished));
        }
        let bits = self.shared.flags();
        if bits & flags::DEAD != 0 {
            return Some(self.shared.seed.session.error());
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
            self.shared.keeper.inner.submit(Command::Finish(self.shared.seed.key));
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
            return Err(shared.seed.session.error());
        }
        Err(Error::Stream(StreamError::Stopped(shared.engine().stop_code.load(Relaxed))))
    }

    /// Bytes that were written and that the peer's engine has not confirmed yet.
    pub fn unconfirmed(&self) -> u64 {
        self.tail - self.shared.engine().confirmed.load(Acquire)
    }

    /// Takes as many bytes as there is room for; 0 if there is none now.
    fn write_some(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if self.shared.keeper.inner.config.poller == Poller::Inline
            && let Some(taken) = self.write_direct(bytes)
        {
            return Ok(taken);
        }
        self.write_buffered(bytes)
    }

    /// Straight from the caller's buffer, if the device can and this thread may drive.
    fn write_direct(&mut self, bytes: &[u8]) -> Option<usize> {
        let inner = &self.shared.keeper.inner;
        if !inner.device.moves_bytes_while_posting() {
            return None;
        }
        let mut engine = inner.owner.try_own()?;
        // SAFETY: the slice is valid for reads during the call.
        let taken =
            unsafe { engine.write_direct(&now, self.shared.seed.key, bytes.as_ptr(), bytes.len()) };
        inner.let_go(engine);
        let taken = taken?;
        self.tail += taken as u64;
        Some(taken)
    }

    /// By way of the send buffer.
    fn write_buffered(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let shared = Arc::clone(&self.shared);
        let application = shared.application();
        let claimed =
            application.buffer_state.compare_exchange(buffer::IDLE, buffer::BUSY, AcqRel, Relaxed);
        let window = self.shared.keeper.inner.config.window;
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
        let inner = &shared.keeper.inner;
        let base = inner
            .shared
            .regions
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
        inner.shared.counters.application_copied.add_shared(len as u64);
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

impl ReceiveHalf {
    fn readable(&self) -> u64 {
        self.shared.engine().readable.load(Acquire)
    }

    /// The memory of the next bytes: address, and how many follow it in one piece.
    fn next_piece(&mut self, readable: u64) -> Result<(*const u8, usize), Error> {
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
        let base = self
            .shared
            .keeper
            .inner
            .shared
            .regions
            .resolve(window.place.load(Relaxed))
            .ok_or(Error::NoMemory { what: "receive windows" })?;
        let at = self.consumed & (size - 1);
        let len = (end - self.consumed).min(size - at);
        // SAFETY: `at` is inside of the window.
        Ok((unsafe { base.as_ptr().add(at as usize) }, len as usize))
    }

    fn copy_out(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let readable = self.readable();
        let len = out.len().min((readable - self.consumed) as usize);
        let mut done = 0;
        while done < len {
            let (source, piece) = self.next_piece(readable)?;
            let part = piece.min(len - done);
            // SAFETY: `part` bytes are in the window and below the watermark; nobody writes them
            // before we say that they are consumed, unless the peer breaks the rules: then we
            // copy unspecified bytes of its own stream.
            unsafe { std::ptr::copy_nonoverlapping(source, out.as_mut_ptr().add(done), part) };
            done += part;
            self.consumed += part as u64;
        }
        self.shared.application().consumed.store(self.consumed, Release);
        self.shared.keeper.inner.shared.counters.application_copied.add_shared(len as u64);
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
            let doorbell = Doorbell { stream: self.shared.seed.key, what: What::Consumed };
            if !self.shared.keeper.with_port(|port| port.ring(doorbell))? {
                return self.shared.ring(What::Consumed);
            }
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
            return Some(Err(self.shared.seed.session.error()));
        }
        None
    }

    /// Reads without waiting; `None` if there is nothing yet, `Some(0)` at the end.
    ///
    /// # Errors
    /// The stream or its session failed.
    pub fn try_read(&mut self, out: &mut [u8]) -> Result<Option<usize>, Error> {
        if let Some(count) = self.take(out)? {
            return Ok(Some(count));
        }
        let inner = &self.shared.keeper.inner;
        if inner.config.poller == Poller::Inline
            && let Some(mut engine) = inner.owner.try_own()
        {
            engine.poll(now());
            inner.let_go(engine);
        }
        self.take(out)
    }

    /// Takes what has arrived already.
    fn take(&mut self, out: &mut [u8]) -> Result<Option<usize>, Error> {
        let mut done = 0;
        while done < out.len() && self.readable() > self.consumed {
            let slice = (out.len() - done).min(READ_SLICE);
            let copied = self.copy_out(&mut out[done..done + slice])?;
            done += copied;
            self.tell()?;
            if copied == READ_SLICE && self.shared.keeper.inner.config.poller == Poller::Inline {
                // The peer's writer waits for confirmations while we copy.
                let inner = &self.shared.keeper.inner;
                if let Some(mut engine) = inner.owner.try_own() {
                    engine.poll(now());
                    inner.let_go(engine);
                }
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
        loop {
            if let Some(count) = self.take(out)? {
                return Ok(count);
            }
            let shared = Arc::clone(&self.shared);
            let consumed = self.consumed;
            let over = flags::FIN | flags::RESET | flags::DEAD;
            let ready =
                || shared.flags() & over != 0 || shared.engine().readable.load(Acquire) > consumed;
            let word = &shared.application().read_waiter;
            let waited = shared.keeper.wait(&CellWait { word, ready }, None)?;
            debug_assert_eq!(waited, Waited::Ready, "without a deadline");
        }
    }
}

impl Drop for ReceiveHalf {
    fn drop(&mut self) {
        let key = self.shared.seed.key;
        self.shared.keeper.inner.submit(Command::Stop(key, reset::CANCELLED));
    }
}
