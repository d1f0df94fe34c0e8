//! Streams as applications see them.
//!
//! - [`Stream`]: both directions; what belongs to neither of them.
//! - `shared`: what the halves share, and how they tell the engine.
//! - `send`: the writing direction; `buffer`: its send buffer; `reservation`: space in it for the
//!   application to make its bytes in.
//! - `receive`: the reading direction; `chunk`: received bytes that the application uses in place.
//! - `readiness`: for applications that wait elsewhere.

mod buffer;
mod chunk;
mod readiness;
mod receive;
mod reservation;
mod send;
mod shared;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use netchannel_units::Timestamp;
use netchannel_wire::frame::reset::Reason;

use crate::boundary::cell::flags;
use crate::boundary::ready::DIRECTIONS;
use crate::error::Error;
use crate::info::StreamInfo;
use crate::reach::Reach;
use crate::shared::{Command, StreamSeed};

pub use chunk::{Chunk, Words};
pub use readiness::Pollable;
pub use receive::ReceiveHalf;
pub use reservation::Reservation;
pub use send::SendHalf;
pub(crate) use shared::Shared;

/// A reliable, ordered byte stream in both directions.
///
/// Dropping it sends what was written and reads no more; [`close`](Self::close) does the same and
/// reports. [`split`](Self::split) gives the directions to two threads.
pub struct Stream {
    send: SendHalf,
    receive: ReceiveHalf,
}

impl Stream {
    pub(crate) fn new(reach: Reach, seed: StreamSeed) -> Self {
        let shared = Arc::new(Shared { reach, seed, readiness: OnceLock::new() });
        Self { send: SendHalf::new(Arc::clone(&shared)), receive: ReceiveHalf::new(shared) }
    }

    /// Whether the peer has confirmed the open.
    pub(crate) fn is_open(&self, peer: SocketAddr) -> Result<bool, Error> {
        let shared = self.shared();
        let bits = shared.flags();
        if bits & flags::DEAD != 0 {
            return Err(shared.session_error());
        }
        if bits & flags::OPENED != 0 {
            return Ok(true);
        }
        if bits & (flags::RESET | flags::STOPPED) == 0 {
            return Ok(false);
        }
        let code =
            shared.engine().stop_code.load(Relaxed) | shared.engine().reset_code.load(Relaxed);
        let reason = format!("the peer refused the stream: {}", Reason(code));
        Err(Error::Connect { peer, reason, kind: io::ErrorKind::ConnectionRefused })
    }

    /// Waits until the peer has answered the open.
    pub(crate) fn wait_for_answer(&self, deadline: Option<Timestamp>) -> Result<(), Error> {
        let shared = self.shared();
        let answered = flags::OPENED | flags::RESET | flags::STOPPED | flags::DEAD;
        let ready = || shared.flags() & answered != 0;
        shared.wait_until(&shared.application().read_waiter, ready, deadline)?;
        Ok(())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        self.send.shared()
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
        let shared = self.send.shared();
        let (reach, key) = (&shared.reach, shared.seed.key);
        reach.submit(Command::Reset(key, code));
        reach.submit(Command::Stop(key, code));
    }

    /// With `true`, reads and writes of both directions (also [`borrow`](ReceiveHalf::borrow) and
    /// [`reserve`](SendHalf::reserve)) never wait for the peer: they answer `WouldBlock`
    /// instead, as the `try_` calls do in any case.
    pub fn set_nonblocking(&mut self, nonblocking: bool) {
        self.send.shared().set_nonblocking(nonblocking);
    }

    /// One descriptor for both directions. To wait on one direction alone, ask that half, before.
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if the process has too many descriptors.
    pub fn pollable(&self) -> Result<Pollable, Error> {
        self.send.shared().pollable(&DIRECTIONS)
    }

    /// How the stream travels.
    pub fn info(&self) -> StreamInfo {
        let shared = self.send.shared();
        shared.reach.info(&shared.seed)
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
