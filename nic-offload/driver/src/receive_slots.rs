//! Receive slots: memory and bookkeeping of a shared receive queue.
//!
//! A slot is posted, or lent to the engine (between its completion and
//! [`ReceiveSlots::release`]), or free. Every Channel has credit for as many messages as it
//! brought slots, so the queue never runs dry.

use netchannel_verbs::work::Slices;
use netchannel_verbs::{
    Access, Context, LocalSlice, MemoryRegion, ReceiveRequest, SharedReceiveQueue,
};

use crate::error::DriverError;

/// The slots of one shared receive queue.
pub struct ReceiveSlots<C: Context> {
    // Declared first, dropped first: the queue goes before the memory that it may fill.
    queue: C::SharedReceiveQueue,
    regions: Vec<C::MemoryRegion>,
    slot_bytes: u32,
    slots_per_region: u32,
    capacity: u32,
    /// Slots that should be posted or lent.
    target: u32,
    /// Slots that are.
    in_use: u32,
    free: Vec<u32>,
    requests: Vec<ReceiveRequest>,
}

impl<C: Context> ReceiveSlots<C> {
    /// An empty queue for at most `capacity` slots of `slot_bytes` bytes.
    ///
    /// # Errors
    /// [`DriverError::Queue`] if the device refuses.
    pub fn new(
        context: &C,
        capacity: u32,
        slot_bytes: u32,
        slots_per_region: u32,
    ) -> Result<Self, DriverError> {
        let queue = context
            .create_shared_receive_queue(capacity)
            .map_err(DriverError::queue("creating the shared receive queue"))?;
        Ok(Self {
            queue,
            regions: Vec::new(),
            slot_bytes,
            slots_per_region,
            capacity,
            target: 0,
            in_use: 0,
            free: Vec::new(),
            requests: Vec::new(),
        })
    }

    /// The queue, for making queue pairs.
    pub fn queue(&self) -> &C::SharedReceiveQueue {
        &self.queue
    }

    /// Posts `slots` more.
    ///
    /// # Errors
    /// [`DriverError::Full`] above the capacity, else what the device says.
    pub fn grow(&mut self, context: &C, slots: u32) -> Result<(), DriverError> {
        if self.target + slots > self.capacity {
            return Err(DriverError::Full { capacity: self.capacity });
        }
        while (self.regions.len() as u32 * self.slots_per_region) < self.target + slots {
            let bytes = self.slots_per_region as usize * self.slot_bytes as usize;
            let region = context
                .alloc(bytes, Access::LOCAL_WRITE)
                .map_err(DriverError::queue("allocating receive slots"))?;
            let first = self.regions.len() as u32 * self.slots_per_region;
            self.regions.push(region);
            self.free.extend((first..first + self.slots_per_region).rev());
        }
        self.target += slots;
        self.repost()
    }

    /// Slots wanted, and slots posted or lent.
    pub fn census(&self) -> (u32, u32) {
        (self.target, self.in_use)
    }

    /// Keeps `slots` fewer: they are not posted again when their messages come.
    pub fn shrink(&mut self, slots: u32) {
        self.target = self.target.saturating_sub(slots);
    }

    fn place(&self, slot: u32) -> (&C::MemoryRegion, usize) {
        let region = &self.regions[(slot / self.slots_per_region) as usize];
        (region, (slot % self.slots_per_region) as usize * self.slot_bytes as usize)
    }

    /// The `len` bytes that arrived in a lent slot.
    pub fn message(&self, slot: u32, len: u32) -> &[u8] {
        let (region, offset) = self.place(slot);
        let len = len.min(self.slot_bytes) as usize;
        // SAFETY: the slot lies in the region, which lives as long as `self`; its receive
        // completed and it is not posted again before `release(&mut self)`, so that the NIC does
        // not write it. Peers have no key to it.
        unsafe { std::slice::from_raw_parts(region.as_ptr().as_ptr().add(offset), len) }
    }

    /// The engine is done with a slot; [`repost`](Self::repost) gives it to the NIC again.
    pub fn release(&mut self, slot: u32) {
        self.free.push(slot);
        self.in_use -= 1;
    }

    /// Posts free slots up to the number wanted.
    ///
    /// # Errors
    /// [`DriverError::Post`] if the queue refuses.
    pub fn repost(&mut self) -> Result<(), DriverError> {
        if self.in_use >= self.target {
            return Ok(());
        }
        let mut requests = std::mem::take(&mut self.requests);
        requests.clear();
        while self.in_use < self.target
            && let Some(slot) = self.free.pop()
        {
            let (region, offset) = self.place(slot);
            let slice = LocalSlice {
                address: region.as_ptr().as_ptr() as u64 + offset as u64,
                length: self.slot_bytes,
                local_key: region.local_key(),
            };
            requests.push(ReceiveRequest { id: u64::from(slot), local: Slices::one(slice) });
            self.in_use += 1;
        }
        // SAFETY: free slots belong to nobody else; they lie in regions that outlive the queue
        // (field order) and are not read before their completion.
        let posted = unsafe { self.queue.post_receive(&requests) };
        self.requests = requests;
        posted.map_err(DriverError::post("shared receive queue"))
    }
}
