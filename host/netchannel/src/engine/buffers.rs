//! Send buffers: where bytes lie from the application's write until the peer's engine has them.
//!
//! Power-of-two pieces of 2 MiB slabs, byte `o` of a stream at `base + (o & (size - 1))`. Slabs
//! are sealed memfds registered with the device, so that an application of another process could
//! map them; names are region and offset.

use std::ptr::NonNull;
use std::sync::Arc;

use netchannel_shared_memory::memory::{Mapping, SharedMemory};
use netchannel_verbs::{Access, Context, MemoryRegion};
use netchannel_vns::pool::{MIN_LOG2, SLAB_LOG2};
use netchannel_vns::{Lease, SlabId, WindowPool};

use crate::error::Error;
use crate::region::{RegionId, Regions, place};

/// Bytes of send buffer for an application that writes `len` bytes at a time: room for the next
/// writes while the first are on their way, a page for small ones.
pub(crate) fn wanted(len: usize, window: usize) -> u64 {
    (len.saturating_mul(16)).clamp(4_096, window) as u64
}

/// A send buffer of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendBuffer {
    lease: Lease,
    base: NonNull<u8>,
    pub(crate) local_key: u32,
    pub(crate) place: u64,
}

// SAFETY: a name for memory that `SendBuffers` keeps mapped; used through raw copies alone.
unsafe impl Send for SendBuffer {}

impl SendBuffer {
    pub(crate) fn size(&self) -> u64 {
        self.lease.size()
    }

    pub(crate) fn log2(&self) -> u8 {
        self.lease.log2
    }

    /// Address of byte `offset` of the stream, and how many bytes follow it without a wrap.
    pub(crate) fn at(&self, offset: u64) -> (NonNull<u8>, u64) {
        let in_buffer = offset & (self.size() - 1);
        // SAFETY: below the size of the lease, which lies in its slab.
        (unsafe { self.base.add(in_buffer as usize) }, self.size() - in_buffer)
    }
}

struct Slab<C: Context> {
    // Declared first, dropped first: the registration goes before the memory.
    region: C::MemoryRegion,
    mapping: Mapping,
    id: RegionId,
    _memory: SharedMemory,
}

/// All send buffers of an engine.
pub(crate) struct SendBuffers<C: Context> {
    context: C,
    regions: Arc<Regions>,
    slabs: Vec<Slab<C>>,
    pool: WindowPool,
}

impl<C: Context> SendBuffers<C> {
    pub(crate) fn new(context: C, regions: Arc<Regions>) -> Self {
        Self { context, regions, slabs: Vec::new(), pool: WindowPool::default() }
    }

    /// A buffer of at least `bytes` bytes (at most a slab).
    pub(crate) fn lease(&mut self, bytes: u64) -> Result<SendBuffer, Error> {
        let log2 = bytes.next_power_of_two().trailing_zeros() as u8;
        let log2 = log2.clamp(MIN_LOG2, SLAB_LOG2);
        let lease = match self.pool.lease(log2) {
            Some(lease) => lease,
            None => {
                self.grow()?;
                self.pool.lease(log2).ok_or(Error::NoMemory { what: "send buffers" })?
            }
        };
        let slab = &self.slabs[lease.slab.0 as usize];
        // SAFETY: leases lie inside of their slab.
        let base = unsafe { slab.mapping.as_ptr().add(lease.offset as usize) };
        Ok(SendBuffer {
            lease,
            base,
            local_key: slab.region.local_key(),
            place: place(slab.id, lease.offset),
        })
    }

    pub(crate) fn release(&mut self, buffer: SendBuffer) {
        self.pool.release(buffer.lease);
    }

    fn grow(&mut self) -> Result<(), Error> {
        let what = "making a slab of send buffers";
        let memory = SharedMemory::create("netchannel-send", 1 << SLAB_LOG2)
            .map_err(Error::shared_memory(what))?;
        let mapping = memory.map().map_err(Error::shared_memory(what))?;
        // SAFETY: the mapping lives in the same slab, and is dropped after the registration.
        let region =
            unsafe { self.context.register(mapping.as_ptr(), mapping.len(), Access::empty()) }?;
        let id =
            self.regions.add(mapping.as_ptr()).ok_or(Error::NoMemory { what: "region numbers" })?;
        self.pool.add_slab(SlabId(self.slabs.len() as u32));
        self.slabs.push(Slab { region, mapping, id, _memory: memory });
        Ok(())
    }
}

impl<C: Context> Drop for SendBuffers<C> {
    fn drop(&mut self) {
        for slab in &self.slabs {
            self.regions.remove(slab.id);
        }
    }
}
