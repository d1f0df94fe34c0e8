//! Streams whose application waits elsewhere: non-blocking calls and the descriptor to wait on.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU32};

use crate::boundary::ready::{DIRECTIONS, Direction, Target, Watch, bits};
use crate::boundary::signal::Signal;
use crate::error::Error;
use crate::shared::Command;
use crate::stream::shared::Shared;
use crate::sync::lock;

/// A descriptor that is readable when a stream is worth trying: for `poll(2)`, `epoll(7)`, and the event loops
/// that are built upon them.
///
/// It is an eventfd (a socket where the engine is another process's), made when it is asked for; clones are the
/// same one. **Level-triggered**: it stays readable
/// while a direction is ready that is waited for, and only a call that answers
/// [`Error::WouldBlock`] makes it unreadable. There is nothing to read from it. (Every time that a direction
/// becomes ready is an edge, too, so `EPOLLET` and Tokio's `AsyncFd` work.)
///
/// A direction is waited for from the first call of that direction that answered `WouldBlock` until one succeeds;
/// reading also from the start. So a stream that nobody wants to write to is not readable because it could be
/// written to.
///
/// While an application sleeps on descriptors nobody drives an inline engine; the runtime's helper thread takes it
/// over within 500 us and signals them. (A dedicated poller does so at once.)
///
/// `examples/epoll.rs` serves many streams with one thread this way.
#[derive(Clone, Debug)]
pub struct Pollable {
    signal: Arc<Signal>,
}

impl Pollable {
    pub(crate) fn new(signal: Arc<Signal>) -> Self {
        Self { signal }
    }
}

impl AsFd for Pollable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.fd()
    }
}

impl AsRawFd for Pollable {
    fn as_raw_fd(&self) -> RawFd {
        self.signal.fd().as_raw_fd()
    }
}

/// What both halves know about waiting elsewhere.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    nonblocking: AtomicBool,
    /// Descriptor bits of directions that are waited for.
    waited: AtomicU32,
    descriptors: Mutex<[Option<Arc<Signal>>; 2]>,
}

impl Shared {
    /// The call succeeded: the direction is not waited for any more.
    #[inline]
    pub(super) fn on_success(&self, direction: Direction) {
        let bit = bits::descriptor(direction);
        if let Some(readiness) = self.readiness.get()
            && readiness.waited.load(Relaxed) & bit != 0
        {
            readiness.waited.fetch_and(!bit, AcqRel);
        }
    }

    /// Made when somebody asks: idle streams are to be small.
    fn readiness(&self) -> &Readiness {
        self.readiness.get_or_init(Box::default)
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) {
        self.readiness().nonblocking.store(nonblocking, Relaxed);
    }

    pub(super) fn is_nonblocking(&self) -> bool {
        self.readiness.get().is_some_and(|readiness| readiness.nonblocking.load(Relaxed))
    }

    /// A descriptor that tells of these directions.
    pub(super) fn pollable(&self, directions: &[Direction]) -> Result<Pollable, Error> {
        let readiness = self.readiness();
        let mut descriptors = lock(&readiness.descriptors);
        let made = directions.iter().find_map(|d| descriptors[*d as usize].clone());
        let signal = match made {
            Some(signal) => signal,
            None => self.reach.make_signal(self.seed.key)?,
        };
        for direction in directions {
            let place = &mut descriptors[*direction as usize];
            if place.is_some() {
                continue;
            }
            *place = Some(Arc::clone(&signal));
            let target = Target::Descriptor(Arc::clone(&signal));
            let watch = Watch { stream: self.seed.key, direction: *direction, target };
            self.reach.submit(Command::Watch(watch));
            if *direction == Direction::Read {
                self.wait_elsewhere(*direction, &signal);
            }
        }
        Ok(Pollable { signal })
    }

    /// The direction was not ready: whoever sleeps on its descriptor is to hear when it is.
    pub(super) fn would_block(&self, direction: Direction) -> Error {
        if let Some(readiness) = self.readiness.get() {
            let descriptors = lock(&readiness.descriptors);
            if let Some(signal) = &descriptors[direction as usize] {
                self.settle(direction, signal, &descriptors);
            }
        }
        Error::WouldBlock
    }

    /// Makes a descriptor unreadable, unless something is ready that it is to tell of.
    fn settle(&self, direction: Direction, signal: &Arc<Signal>, all: &[Option<Arc<Signal>>; 2]) {
        if let Err(error) = signal.drain() {
            tracing::warn!(%error, "cannot take back the signal of a descriptor");
        }
        self.wait_elsewhere(direction, signal);
        // The signal that was taken back may have been the other direction's.
        let waited = self.readiness().waited.load(Relaxed);
        for other in DIRECTIONS {
            let same = all[other as usize].as_ref().is_some_and(|its| Arc::ptr_eq(its, signal));
            if other != direction && same && waited & bits::descriptor(other) != 0 {
                self.wait_elsewhere(other, signal);
            }
        }
    }

    /// Arms a direction; signals its descriptor if it is ready.
    fn wait_elsewhere(&self, direction: Direction, signal: &Signal) {
        let bit = bits::descriptor(direction);
        self.readiness().waited.fetch_or(bit, AcqRel);
        if self.seed.cell.state().arm(bit, direction)
            && let Err(error) = signal.notify()
        {
            tracing::warn!(%error, "cannot signal a stream's descriptor");
        }
    }
}
