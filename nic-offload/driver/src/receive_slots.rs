//! Receive slots: memory and bookkeeping of a shared receive queue.
//!
//! A slot is posted, or lent to the engine (between its completion and
//! [`ReceiveSlots::release`]), or free. Every Channel has credit for as many messages as it
//! brought slots, and some spare ones are posted beside them: so the queue never runs dry although
//! free slots wait until there are as many as are spare. A post then serves several messages.

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
    /// What a Channel brings beyond its credit.
    spare: u32,
    capacity: u32,
    /// Slots that should be posted or lent.
    target: u32,
    /// Slots that are.
    in_use: u32,
    free: Vec<u32>,
    requests: Vec<ReceiveRequest>,
}

impl<C: Context> ReceiveSlots<C> {
    /// An empty queue for at most `capacity` slots of `slot_bytes` bytes, of which Channels have credit for
    /// `credit` each; with the spare ones they bring [`with_spare`].
    ///
    /// # Errors
    /// [`DriverError::Queue`] if the device refuses.
    pub fn new(
        context: &C,
        capacity: u32,
        slot_bytes: u32,
        credit: u32,
    ) -> Result<Self, DriverError> {
        let queue = context
            .create_shared_receive_queue(capacity)
            .map_err(DriverError::queue("creating the shared receive queue"))?;
        Ok(Self {
            queue,
            regions: Vec::new(),
            slot_bytes,
            slots_per_region: with_spare(credit),
            spare: spare(credit),
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

    /// Posts those of one more Channel.
    ///
    /// # Errors
    /// [`DriverError::Full`] above the capacity, else what the device says.
    pub fn grow(&mut self, context: &C) -> Result<(), DriverError> {
        let slots = self.slots_per_region;
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
        self.post()
    }

    /// Slots wanted, and slots posted or lent.
    pub fn census(&self) -> (u32, u32) {
        (self.target, self.in_use)
    }

    /// Keeps those of one Channel fewer: they are not posted again when their messages come.
    pub fn shrink(&mut self) {
        self.target = self.target.saturating_sub(self.slots_per_region);
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

    /// Posts free slots again, once there are as many as are spare.
    ///
    /// # Errors
    /// [`DriverError::Post`] if the queue refuses.
    #[inline]
    pub fn repost(&mut self) -> Result<(), DriverError> {
        if self.in_use + self.spare > self.target { Ok(()) } else { self.post() }
    }

    /// Posts free slots up to the number wanted.
    fn post(&mut self) -> Result<(), DriverError> {
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

/// An eighth: few enough to cost little memory, enough that a post costs each message little.
fn spare(credit: u32) -> u32 {
    (credit / 8).max(1)
}

/// How many slots a Channel brings that has `credit`.
pub(crate) fn with_spare(credit: u32) -> u32 {
    credit + spare(credit)
}

#[cfg(test)]
mod tests {
    use netchannel_verbs::soft::{Context, SoftOptions};

    use super::*;

    #[test]
    fn free_slots_are_posted_together_and_credit_never_waits_for_them() {
        const CREDIT: u32 = 16;
        let context = Context::open(SoftOptions::default()).unwrap();
        let capacity = 8 * with_spare(CREDIT);
        let mut slots = ReceiveSlots::new(&context, capacity, 256, CREDIT).unwrap();
        slots.grow(&context).unwrap();
        assert_eq!(slots.census(), (18, 18));
        // As if their messages had come: nothing is connected to the queue.
        slots.release(3);
        slots.repost().unwrap();
        assert_eq!(slots.census(), (18, 17));
        slots.release(9);
        slots.repost().unwrap();
        assert_eq!(slots.census(), (18, 18), "two at once");

        slots.grow(&context).unwrap();
        slots.shrink();
        (0..17).for_each(|slot| slots.release(slot));
        slots.repost().unwrap();
        assert_eq!(slots.census(), (18, 19), "those of one Channel are kept back");
    }
}
