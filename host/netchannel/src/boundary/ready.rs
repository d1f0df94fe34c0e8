//! Readiness: how the engine tells an application that does not wait in a call.
//!
//! The cell holds the truth, and in it one word says of what the application wants to hear: a bit per direction
//! and way of hearing ([`bits`]). The engine looks at it after publishing; what is ready and wanted it takes out
//! of the word and tells once, by the stream's descriptor or in the ring of a ready list. The
//! application sets bits again when it has found nothing. A ring that is full loses nothing: it is marked so,
//! and the application looks at all its cells.
//!
//! ```text
//! application: set the bit     fence    look at the cell      ready: act on it
//! engine:      write the cell  fence    look at the bits      set: take it, tell
//! ```

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, fence};

use netchannel_shared_memory::memory::{Mapping, SharedMemory, SharedWord};
use netchannel_shared_memory::ring::{BadRing, Consumer, MappedRing, Producer, ring_len};

use crate::boundary::StreamKey;
use crate::boundary::application::ApplicationId;
use crate::boundary::cell::CellState;
use crate::boundary::signal::Signal;
use crate::error::Error;

/// Entries of a list's ring: ready streams between two looks of a busy thread. More cost one look
/// at every cell.
const CAPACITY: usize = 1_024;
/// The ring follows the list's own words, on a cache line of its own.
const RING_OFFSET: usize = 128;

/// A direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Bytes to read.
    Read = 0,
    /// Room to write.
    Write = 1,
}

/// Bits of [`ApplicationSide::armed`](crate::boundary::cell::ApplicationSide): what an application wants to
/// hear.
pub(crate) mod bits {
    use super::Direction;

    /// By the stream's descriptor.
    pub(crate) const fn descriptor(direction: Direction) -> u32 {
        1 << direction as u32
    }

    /// By a ready list.
    pub(crate) const fn list(direction: Direction) -> u32 {
        4 << direction as u32
    }
}

/// Both directions.
pub(crate) const DIRECTIONS: [Direction; 2] = [Direction::Read, Direction::Write];

impl CellState {
    /// Whether trying brings anything in this direction.
    pub(crate) fn is_ready(&self, direction: Direction) -> bool {
        match direction {
            Direction::Read => self.is_readable(),
            Direction::Write => self.is_writable(),
        }
    }

    /// The application wants to hear as `bit` says. True if the direction is ready already: then it
    /// may hear of it or not.
    pub(crate) fn arm(&self, bit: u32, direction: Direction) -> bool {
        self.application.armed.fetch_or(bit, AcqRel);
        // With the fence between publishing a cell and looking at its bits: either the engine sees
        // the bit, or we see what it published.
        fence(std::sync::atomic::Ordering::SeqCst);
        self.is_ready(direction)
    }

    /// For the engine, after publishing and a fence: what is ready and wanted, out of `known`, taken
    /// out of what is wanted.
    fn take_due(&self, known: u32) -> u32 {
        let armed = self.application.armed.load(Relaxed) & known;
        if armed == 0 {
            return 0;
        }
        let ready = DIRECTIONS.into_iter().filter(|direction| self.is_ready(*direction));
        let ready = ready.fold(0, |all, d| all | bits::descriptor(d) | bits::list(d));
        match armed & ready {
            0 => 0,
            due => self.application.armed.fetch_and(!due, AcqRel) & due,
        }
    }
}

/// Where the engine tells.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A descriptor, written without blocking.
    Descriptor(Arc<Signal>),
    /// The ready list of this number, under this name.
    List { list: u32, name: u64 },
}

/// Who hears of a stream, by direction.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    descriptors: [Option<Arc<Signal>>; 2],
    lists: [Option<(u32, u64)>; 2],
}

/// A wish to hear, on its way to the engine.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) stream: StreamKey,
    pub(crate) direction: Direction,
    pub(crate) target: Target,
}

impl Watchers {
    pub(crate) fn set(&mut self, direction: Direction, target: Target) {
        match target {
            Target::Descriptor(signal) => self.descriptors[direction as usize] = Some(signal),
            Target::List { list, name } => self.lists[direction as usize] = Some((list, name)),
        }
    }

    /// Bits whose targets are known. (An application sets bits before the engine hears of the target.)
    fn known(&self) -> u32 {
        DIRECTIONS.into_iter().fold(0, |known, d| {
            let descriptor = self.descriptors[d as usize].as_ref().map(|_| bits::descriptor(d));
            let list = self.lists[d as usize].map(|_| bits::list(d));
            known | descriptor.unwrap_or(0) | list.unwrap_or(0)
        })
    }

    /// Tells whoever is to hear of what is due; `tell` reaches the lists.
    pub(crate) fn tell(&self, cell: &CellState, mut tell: impl FnMut(u32, u64)) {
        let due = cell.take_due(self.known());
        if due == 0 {
            return;
        }
        for direction in DIRECTIONS {
            if due & bits::descriptor(direction) != 0
                && let Some(signal) = &self.descriptors[direction as usize]
                && let Err(error) = signal.notify()
            {
                tracing::warn!(%error, "cannot signal a stream's descriptor");
            }
            if due & bits::list(direction) != 0
                && let Some((list, name)) = self.lists[direction as usize]
            {
                tell(list, name);
            }
        }
    }
}

/// Words of a ready list that both ends share.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct ListState {
    /// As the waiter words of a cell.
    pub(crate) waiter: AtomicU32,
    /// The ring had no room: look at every cell.
    overflow: AtomicU32,
}

// SAFETY: made of atomics, `repr(C)`, valid for any bytes.
unsafe impl SharedWord for ListState {}

/// The memory of a list.
#[derive(Clone, Debug)]
pub(crate) struct ListMemory(Arc<Mapping>);

impl ListMemory {
    pub(crate) fn state(&self) -> &ListState {
        match self.0.at::<ListState>(0) {
            Some(state) => state,
            None => unreachable!("`list` makes the memory large enough"),
        }
    }
}

/// The engine's end of a ready list.
#[derive(Debug)]
pub(crate) struct EngineList {
    pub(crate) number: u32,
    application: ApplicationId,
    memory: ListMemory,
    ring: Producer<u64, MappedRing>,
}

/// The application's end.
#[derive(Debug)]
pub(crate) struct ApplicationList {
    pub(crate) memory: ListMemory,
    ring: Consumer<u64, MappedRing>,
}

/// What fails when a list cannot be made.
const MAKING: &str = "making a ready list";

fn bad_ring(_: BadRing) -> Error {
    Error::NoMemory { what: "ring sizes" }
}

fn list_bytes() -> Result<usize, Error> {
    let ring = ring_len::<u64>(CAPACITY).ok_or(Error::NoMemory { what: "ring sizes" })?;
    Ok(RING_OFFSET + ring)
}

impl ListMemory {
    fn map(memory: &SharedMemory) -> Result<Self, Error> {
        Ok(Self(Arc::new(memory.map().map_err(Error::shared_memory(MAKING))?)))
    }

    fn ring(&self) -> Result<MappedRing, Error> {
        MappedRing::new::<u64>(Arc::clone(&self.0), RING_OFFSET, CAPACITY).map_err(bad_ring)
    }

    /// Nothing comes through the ring any more, and yet there is something to see in the cells.
    pub(crate) fn look_at_all(&self) {
        self.state().overflow.store(1, Release);
    }
}

impl EngineList {
    /// An engine's end of list `number`, and the memory for the other end.
    pub(crate) fn new(
        number: u32,
        application: ApplicationId,
    ) -> Result<(Self, SharedMemory), Error> {
        let shared = SharedMemory::create("netchannel-ready", list_bytes()?)
            .map_err(Error::shared_memory(MAKING))?;
        let memory = ListMemory::map(&shared)?;
        let ring = Producer::new(memory.ring()?).map_err(bad_ring)?;
        Ok((Self { number, application, memory, ring }, shared))
    }
}

impl ApplicationList {
    /// The end for an engine's.
    pub(crate) fn new(memory: &SharedMemory) -> Result<Self, Error> {
        let memory = ListMemory::map(memory)?;
        let ring = Consumer::new(memory.ring()?).map_err(bad_ring)?;
        Ok(Self { memory, ring })
    }

    /// The end for that of an engine in another process.
    pub(crate) fn adopt(memory: OwnedFd) -> Result<Self, Error> {
        let memory = SharedMemory::from_fd(memory, list_bytes()?)
            .map_err(Error::shared_memory("taking over a ready list"))?;
        Self::new(&memory)
    }
}

impl EngineList {
    /// Whose list it is.
    pub(crate) fn application(&self) -> ApplicationId {
        self.application
    }

    /// Whoever waits for the list.
    pub(crate) fn waiter(&self) -> &AtomicU32 {
        &self.memory.state().waiter
    }

    /// Puts a stream in, or notes that there was no room.
    pub(crate) fn push(&mut self, name: u64) {
        if self.ring.push(name).is_err() {
            self.memory.state().overflow.store(1, Release);
        }
        self.ring.publish();
        // Before looking for who waits, as after publishing a cell.
        fence(std::sync::atomic::Ordering::SeqCst);
    }
}

impl ApplicationList {
    /// Whether the engine told something.
    pub(crate) fn has_news(&mut self) -> bool {
        self.memory.state().overflow.load(Acquire) != 0 || self.ring.available() != Ok(0)
    }

    /// Whether something was told that had no room, since the last call.
    pub(crate) fn take_overflow(&self) -> bool {
        let overflow = &self.memory.state().overflow;
        overflow.load(Relaxed) != 0 && overflow.swap(0, AcqRel) != 0
    }

    /// The next name.
    pub(crate) fn pop(&mut self) -> Option<u64> {
        match self.ring.pop() {
            Ok(Some(name)) => Some(name),
            Ok(None) | Err(_) => {
                self.ring.release();
                None
            }
        }
    }
}
