//! Send buffers: where bytes lie from the application's write until the peer's engine has them.
//!
//! Power-of-two pieces of 2 MiB slabs, byte `o` of a stream at `base + (o & (size - 1))`. Slabs
//! are sealed memfds registered with the device, so that an application of another process can map
//! its own; names are region and offset.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use netchannel_shared_memory::memory::{Mapping, SharedMemory};
use netchannel_units::Timestamp;
use netchannel_verbs::{Access, Context, MemoryRegion};
use netchannel_vns::pool::{MIN_LOG2, SLAB_LOG2};
use netchannel_vns::{Lease, SlabId, WindowPool};

use crate::boundary::application::{Application, Export};
use crate::boundary::region::{RegionId, place};
use crate::error::Error;

/// Bytes of send buffer for an application that writes `len` bytes at a time: room for the next
/// writes while the first are on their way, a page for small ones.
pub(crate) fn wanted(len: usize, window: usize) -> u64 {
    // Up to half of a window it holds sixteen writes, beyond it eight: with more of them one stream is no faster,
    // and the buffers of many leave the cache.
    let (eight, sixteen) = (len.saturating_mul(8), len.saturating_mul(16));
    sixteen.min(eight.max(window / 2)).clamp(4_096, window) as u64
}

/// A send buffer of one stream: a name for memory that [`SendBuffers`] keeps mapped.
#[derive(Debug)]
pub(crate) struct SendBuffer(Lease);

impl SendBuffer {
    pub(crate) fn size(&self) -> u64 {
        self.0.size()
    }

    pub(crate) fn log2(&self) -> u8 {
        self.0.log2
    }
}

/// Where a send buffer lies, while it is leased.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    base: NonNull<u8>,
    size: u64,
    /// The device's key to it.
    pub(crate) local_key: u32,
}

impl Span {
    /// Address of byte `offset` of the stream, and how many bytes follow it without a wrap.
    #[inline]
    pub(crate) fn at(&self, offset: u64) -> (NonNull<u8>, u64) {
        let in_buffer = offset & (self.size - 1);
        // SAFETY: below the size of the buffer.
        (unsafe { self.base.add(in_buffer as usize) }, self.size - in_buffer)
    }
}

struct Slab<C: Context> {
    // Declared first, dropped first: the registration goes before the memory.
    region: C::MemoryRegion,
    mapping: Mapping,
    id: RegionId,
}

/// All send buffers of one application in one engine.
pub(crate) struct SendBuffers<C: Context> {
    context: C,
    application: Arc<Application>,
    /// By number; what was given up leaves a gap.
    slabs: Vec<Option<Slab<C>>>,
    pool: WindowPool,
}

impl<C: Context> SendBuffers<C> {
    pub(crate) fn new(context: C, application: Arc<Application>) -> Self {
        Self { context, application, slabs: Vec::new(), pool: WindowPool::default() }
    }

    /// A buffer of at least `bytes` bytes (at most a slab).
    pub(crate) fn lease(&mut self, bytes: u64) -> Result<SendBuffer, Error> {
        let log2 = log2_for(bytes);
        let lease = match self.pool.lease(log2) {
            Some(lease) => lease,
            None => {
                self.grow()?;
                self.pool.lease(log2).ok_or(Error::NoMemory { what: "send buffers" })?
            }
        };
        Ok(SendBuffer(lease))
    }

    /// Whether [`lease`](Self::lease) needs no new slab.
    pub(crate) fn has(&self, bytes: u64) -> bool {
        self.pool.has(log2_for(bytes))
    }

    pub(crate) fn release(&mut self, buffer: SendBuffer) {
        self.pool.release(buffer.0);
    }

    fn slab(&self, buffer: &SendBuffer) -> &Slab<C> {
        match &self.slabs[buffer.0.slab.0 as usize] {
            Some(slab) => slab,
            // A slab is given up only when nothing of it is leased.
            None => unreachable!("a send buffer without its slab"),
        }
    }

    /// Where the buffer lies.
    pub(crate) fn span(&self, buffer: &SendBuffer) -> Span {
        let slab = self.slab(buffer);
        // SAFETY: the lease lies in its slab.
        let base = unsafe { slab.mapping.as_ptr().add(buffer.0.offset as usize) };
        Span { base, size: buffer.size(), local_key: slab.region.local_key() }
    }

    /// Where applications find the buffer.
    pub(crate) fn place(&self, buffer: &SendBuffer) -> u64 {
        place(self.slab(buffer).id, buffer.0.offset)
    }

    /// A slab that nobody has needed for long, to be dropped off the way of the data. `posted` says
    /// whether the device may still read sources of WRITEs: then none goes yet.
    pub(crate) fn take_spare(
        &mut self,
        now: Timestamp,
        posted: impl FnOnce() -> bool,
    ) -> Option<Box<dyn Any + Send>> {
        if self.pool.next_timeout().is_some_and(|at| at <= now) && posted() {
            self.pool.keep_spares(now);
        }
        let id = self.pool.take_spare(now)?;
        let slab = self.slabs.get_mut(id.0 as usize)?.take()?;
        self.application.remove_region(slab.id);
        Some(Box::new(slab))
    }

    /// When to ask for spare slabs.
    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        self.pool.next_timeout()
    }

    fn grow(&mut self) -> Result<(), Error> {
        if self.slabs.iter().flatten().count() >= self.application.limits.send_slabs {
            return Err(Error::NoMemory { what: "send buffers of this application" });
        }
        let what = "making a slab of send buffers";
        let memory = SharedMemory::create("netchannel-send", 1 << SLAB_LOG2)
            .map_err(Error::shared_memory(what))?;
        let mapping = memory.map().map_err(Error::shared_memory(what))?;
        // SAFETY: the mapping lives in the same slab, and is dropped after the registration.
        let region =
            unsafe { self.context.register(mapping.as_ptr(), mapping.len(), Access::empty()) }?;
        let export = || Ok(Export { len: memory.len(), fd: memory.into_fd(), writable: true });
        let id = self.application.add_region(mapping.as_ptr(), export)?;
        let number = vacancy(&mut self.slabs);
        self.slabs[number] = Some(Slab { region, mapping, id });
        self.pool.add_slab(SlabId(number as u32));
        Ok(())
    }
}

/// A free place in a table, at its end if there is none.
pub(crate) fn vacancy<T>(table: &mut Vec<Option<T>>) -> usize {
    table.iter().position(Option::is_none).unwrap_or_else(|| {
        table.push(None);
        table.len() - 1
    })
}

/// log2 of the size of a buffer for `bytes` bytes.
fn log2_for(bytes: u64) -> u8 {
    (bytes.next_power_of_two().trailing_zeros() as u8).clamp(MIN_LOG2, SLAB_LOG2)
}

impl<C: Context> Drop for SendBuffers<C> {
    fn drop(&mut self) {
        for slab in self.slabs.iter().flatten() {
            self.application.remove_region(slab.id);
        }
    }
}
