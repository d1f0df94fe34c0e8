//! Ports: how an application thread talks to the engine.
//!
//! One wake-up per thread and runtime, and one ring of doorbells per engine that the thread talks
//! to, never per stream. A doorbell says only "look at this stream's cell"; what there is to see
//! lies in the cell. The other direction needs no ring: the engine writes the cell and notifies the
//! ports that wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use netchannel_shared_memory::memory::SharedMemory;
use netchannel_shared_memory::ring::{Consumer, MappedRing, Producer, ring_len};
use netchannel_shared_memory::wake::Wake;
use netchannel_units::GroupId;

use crate::application::ApplicationId;
use crate::engine::StreamKey;
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

/// What both ends of a port share.
#[derive(Debug)]
pub(crate) struct PortShared {
    /// Number of the port, from one: what stands in a cell's waiter words.
    pub(crate) number: u32,
    /// Wakes the thread.
    pub(crate) wake: Wake,
    closed: AtomicBool,
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

/// Makes both ends of a ring.
fn ring() -> Result<(Doorbells, Consumer<Words, MappedRing>), Error> {
    let what = "making a port";
    let bytes = ring_len::<Words>(CAPACITY).ok_or(Error::NoMemory { what: "ring sizes" })?;
    let memory =
        SharedMemory::create("netchannel-port", bytes).map_err(Error::shared_memory(what))?;
    let mapping = Arc::new(memory.map().map_err(Error::shared_memory(what))?);
    let ring = || {
        MappedRing::new::<Words>(Arc::clone(&mapping), 0, CAPACITY)
            .map_err(|_| Error::NoMemory { what: "ring sizes" })
    };
    let bad = |_| Error::NoMemory { what: "ring sizes" };
    Ok((Producer::new(ring()?).map_err(bad)?, Consumer::new(ring()?).map_err(bad)?))
}

impl Port {
    /// Port `number`, which no engine knows yet.
    pub(crate) fn new(number: u32) -> Result<Self, Error> {
        let wake = Wake::new().map_err(Error::shared_memory("making a port"))?;
        let shared = Arc::new(PortShared { number, wake, closed: AtomicBool::new(false) });
        Ok(Self { shared, rings: Vec::new() })
    }

    /// The end for an engine that does not know the port yet; it is to be told.
    pub(crate) fn meet(&mut self, group: GroupId) -> Result<Option<EnginePort>, Error> {
        let index = usize::from(group.0);
        if self.rings.len() <= index {
            self.rings.resize_with(index + 1, || None);
        }
        if self.rings[index].is_some() {
            return Ok(None);
        }
        let (producer, consumer) = ring()?;
        self.rings[index] = Some(producer);
        let shared = Arc::clone(&self.shared);
        Ok(Some(EnginePort { shared, application: ApplicationId::LOCAL, ring: consumer }))
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
        self.shared.closed.store(true, Ordering::Release);
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

    /// Whose thread rings.
    pub(crate) fn application(&self) -> ApplicationId {
        self.application
    }

    /// Whether the thread is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }
}
