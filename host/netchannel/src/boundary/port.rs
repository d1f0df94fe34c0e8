//! Ports: how an application thread talks to the engine.
//!
//! One wake-up per thread and runtime, and one ring of doorbells per engine that the thread talks
//! to, never per stream. A doorbell says only "look at this stream's cell"; what there is to see
//! lies in the cell. The other direction needs no ring: the engine writes the cell and notifies the
//! ports that wait for it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use netchannel_shared_memory::memory::{Mapping, SharedMemory};
use netchannel_shared_memory::ring::{BadRing, Consumer, MappedRing, Producer, ring_len};
use netchannel_shared_memory::wake::{SocketWake, Wake};
use netchannel_units::GroupId;

use crate::boundary::StreamKey;
use crate::boundary::application::ApplicationId;
use crate::error::Error;

/// Doorbells that a ring holds; a full one makes the thread drive the engine itself or wait.
pub(crate) const CAPACITY: usize = 256;

/// A doorbell: a stream, and what about it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doorbell {
    pub(crate) stream: StreamKey,
    pub(crate) what: What,
}

/// What an application did to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Wrote, or wants a send buffer.
    Written,
    /// Read.
    Consumed,
}

type Words = [u64; 2];
type Doorbells = Producer<Words, MappedRing>;

/// What fails when a port cannot be made.
const MAKING: &str = "making a port";

impl Doorbell {
    fn pack(self) -> Words {
        [self.stream.0, self.what as u64]
    }

    /// Whatever an application writes into the ring is either a doorbell or nothing.
    fn unpack(words: Words) -> Option<Self> {
        let what = match words[1] {
            0 => What::Written,
            1 => What::Consumed,
            _ => return None,
        };
        Some(Self { stream: StreamKey(words[0]), what })
    }
}

/// What wakes the thread of a port.
#[derive(Debug)]
pub(crate) enum PortWake {
    /// Engine and thread are in one process.
    Here(Wake),
    /// The thread is in another process. The engine never blocks on a descriptor whose flags an
    /// application could change, so this is a socket, which also tells when the process is gone.
    There(SocketWake),
    /// The engine is in another process, and wakes the thread by the socket; this process does
    /// by the other.
    Attached { engine: SocketWake, own: Wake },
}

impl PortWake {
    /// Wakes the thread.
    pub(crate) fn notify(&self) -> Result<(), netchannel_shared_memory::Error> {
        match self {
            Self::Here(wake) | Self::Attached { own: wake, .. } => wake.notify(),
            Self::There(wake) => wake.notify(),
        }
    }

    /// Takes the signals back.
    ///
    /// # Errors
    /// The other process is gone.
    pub(crate) fn drain(&self) -> Result<bool, netchannel_shared_memory::Error> {
        match self {
            Self::Here(wake) => wake.drain(),
            Self::There(wake) => wake.drain(),
            Self::Attached { engine, own } => Ok(own.drain()? | engine.drain()?),
        }
    }

    /// What the thread sleeps on.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let (first, second) = match self {
            Self::Here(wake) => (wake.fd(), None),
            Self::There(wake) => (wake.fd(), None),
            Self::Attached { engine, own } => (own.fd(), Some(engine.fd())),
        };
        std::iter::once(first).chain(second)
    }
}

/// What both ends of a port share; between two processes, each has its own.
#[derive(Debug)]
pub(crate) struct PortShared {
    /// Number of the port, from one: what stands in a cell's waiter words.
    pub(crate) number: u32,
    /// Wakes the thread.
    pub(crate) wake: PortWake,
    closed: AtomicBool,
}

impl PortShared {
    pub(crate) fn new(number: u32, wake: PortWake) -> Arc<Self> {
        Arc::new(Self { number, wake, closed: AtomicBool::new(false) })
    }

    /// The thread is gone.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

/// The thread's end.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) shared: Arc<PortShared>,
    /// A ring for each engine that knows the port.
    rings: Vec<Option<Doorbells>>,
}

/// An engine's end.
#[derive(Debug)]
pub(crate) struct EnginePort {
    pub(crate) shared: Arc<PortShared>,
    application: ApplicationId,
    ring: Consumer<Words, MappedRing>,
}

/// The engine's end of a ring of an application of another process, and the memory for the other.
pub(crate) fn attached(
    application: ApplicationId,
    shared: Arc<PortShared>,
) -> Result<(EnginePort, OwnedFd), Error> {
    let (memory, mapping) = ring_memory()?;
    Ok((EnginePort { shared, application, ring: consumer(&mapping)? }, memory.into_fd()))
}

fn ring_bytes() -> Result<usize, Error> {
    ring_len::<Words>(CAPACITY).ok_or(Error::NoMemory { what: "ring sizes" })
}

fn ring_memory() -> Result<(SharedMemory, Arc<Mapping>), Error> {
    let memory = SharedMemory::create("netchannel-port", ring_bytes()?)
        .map_err(Error::shared_memory(MAKING))?;
    let mapping = memory.map().map_err(Error::shared_memory(MAKING))?;
    Ok((memory, Arc::new(mapping)))
}

fn bad_ring(_: BadRing) -> Error {
    Error::NoMemory { what: "ring sizes" }
}

fn producer(mapping: &Arc<Mapping>) -> Result<Doorbells, Error> {
    let ring = MappedRing::new::<Words>(Arc::clone(mapping), 0, CAPACITY).map_err(bad_ring)?;
    Producer::new(ring).map_err(bad_ring)
}

fn consumer(mapping: &Arc<Mapping>) -> Result<Consumer<Words, MappedRing>, Error> {
    let ring = MappedRing::new::<Words>(Arc::clone(mapping), 0, CAPACITY).map_err(bad_ring)?;
    Consumer::new(ring).map_err(bad_ring)
}

impl Port {
    /// Port `number`, which no engine knows yet.
    pub(crate) fn new(number: u32) -> Result<Self, Error> {
        let wake = Wake::new().map_err(Error::shared_memory(MAKING))?;
        Ok(Self::of(PortShared::new(number, PortWake::Here(wake))))
    }

    /// A port that no engine knows yet.
    pub(crate) fn of(shared: Arc<PortShared>) -> Self {
        Self { shared, rings: Vec::new() }
    }

    fn ring_to(&mut self, group: GroupId) -> &mut Option<Doorbells> {
        let index = usize::from(group.0);
        if self.rings.len() <= index {
            self.rings.resize_with(index + 1, || None);
        }
        &mut self.rings[index]
    }

    /// The end for an engine that does not know the port yet; it is to be told.
    pub(crate) fn meet(&mut self, group: GroupId) -> Result<Option<EnginePort>, Error> {
        let shared = Arc::clone(&self.shared);
        let ring = self.ring_to(group);
        if ring.is_some() {
            return Ok(None);
        }
        let (_, mapping) = ring_memory()?;
        *ring = Some(producer(&mapping)?);
        let (application, ring) = (ApplicationId::LOCAL, consumer(&mapping)?);
        Ok(Some(EnginePort { shared, application, ring }))
    }

    /// Whether an engine of another process knows the port.
    pub(crate) fn has_met(&mut self, group: GroupId) -> bool {
        self.ring_to(group).is_some()
    }

    /// Takes the memory of a ring to an engine of another process.
    pub(crate) fn adopt(&mut self, group: GroupId, memory: OwnedFd) -> Result<(), Error> {
        let memory = SharedMemory::from_fd(memory, ring_bytes()?)
            .map_err(Error::shared_memory("taking over a ring of doorbells"))?;
        let mapping = memory.map().map_err(Error::shared_memory(MAKING))?;
        *self.ring_to(group) = Some(producer(&Arc::new(mapping))?);
        Ok(())
    }

    /// Shows the doorbells to an engine of another process, and wakes it if it sleeps.
    pub(crate) fn announce(
        &mut self,
        group: GroupId,
    ) -> Result<(), netchannel_shared_memory::Error> {
        let asleep = self.ring_to(group).as_mut().is_some_and(Producer::flush);
        match &self.shared.wake {
            PortWake::Attached { engine, .. } if asleep => engine.notify(),
            _ => Ok(()),
        }
    }

    /// Rings at the stream's engine, which knows the port. False if the ring is full.
    pub(crate) fn ring(&mut self, doorbell: Doorbell) -> bool {
        let index = usize::from(doorbell.stream.group().0);
        let Some(Some(ring)) = self.rings.get_mut(index) else { return false };
        let pushed = ring.push(doorbell.pack()).is_ok();
        ring.publish();
        pushed
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl EnginePort {
    /// The next doorbell. Words that are none, and rings that their owner damaged, are ignored:
    /// they harm only the application that wrote them.
    pub(crate) fn pop(&mut self) -> Option<Doorbell> {
        for _ in 0..CAPACITY {
            match self.ring.pop() {
                Ok(Some(words)) => match Doorbell::unpack(words) {
                    Some(doorbell) => return Some(doorbell),
                    None => continue,
                },
                Ok(None) | Err(_) => break,
            }
        }
        self.ring.release();
        None
    }

    /// Gives the slots of all doorbells that were taken back to the thread.
    pub(crate) fn release(&mut self) {
        self.ring.release();
    }

    /// Asks to be woken by the next doorbell of another process.
    pub(crate) fn arm(&mut self) {
        if matches!(self.shared.wake, PortWake::There(_)) {
            // What is in the ring already is found by the look that follows; a broken ring wakes
            // nobody.
            let _ = self.ring.prepare_sleep();
        }
    }

    /// Whose thread rings.
    pub(crate) fn application(&self) -> ApplicationId {
        self.application
    }

    /// Whether the thread is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }
}
