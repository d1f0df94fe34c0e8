//! The streams of a ready list, by the names under which engines tell of them.

use std::ops::{Index, IndexMut};
use std::sync::{Arc, Weak};

use crate::ready_list::Interest;
use crate::stream::Shared;

/// A registration, or a free place for one.
pub(super) struct Slot {
    /// Counts the registrations in this place: news of an earlier one is not this one's.
    generation: u32,
    pub(super) token: u64,
    pub(super) interest: Interest,
    pub(super) stream: Weak<Shared>,
    /// It is among those to look at again.
    queued: bool,
    used: bool,
}

impl Slot {
    /// Whether it is to be looked at again, so that it was ready.
    pub(super) fn is_queued(&self) -> bool {
        self.queued
    }
}

/// All places.
#[derive(Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
    /// Those to look at again: they were ready.
    again: Vec<u32>,
}

impl Index<u32> for Slots {
    type Output = Slot;
    fn index(&self, index: u32) -> &Slot {
        &self.all[index as usize]
    }
}

impl IndexMut<u32> for Slots {
    fn index_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.all[index as usize]
    }
}

impl Slots {
    /// A place for a stream; where, and the name of the registration.
    pub(super) fn add(
        &mut self,
        stream: &Arc<Shared>,
        token: u64,
        interest: Interest,
    ) -> (u32, u64) {
        let index = self.free.pop().unwrap_or_else(|| {
            let stream = Weak::new();
            let slot = Slot { generation: 0, token, interest, stream, queued: false, used: false };
            self.all.push(slot);
            self.all.len() as u32 - 1
        });
        let slot = &mut self[index];
        slot.generation = slot.generation.wrapping_add(1);
        (slot.token, slot.interest, slot.stream) = (token, interest, Arc::downgrade(stream));
        slot.used = true;
        (index, u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// The place of a name, if its registration lives.
    pub(super) fn find(&self, name: u64) -> Option<u32> {
        let index = name as u32;
        let slot = self.all.get(index as usize)?;
        (slot.used && slot.generation == (name >> 32) as u32).then_some(index)
    }

    pub(super) fn look_again(&mut self, index: u32) {
        if !std::mem::replace(&mut self[index].queued, true) {
            self.again.push(index);
        }
    }

    /// Those that are to be looked at again.
    pub(super) fn take_again(&mut self) -> Vec<u32> {
        let mut again = std::mem::take(&mut self.again);
        again.retain(|index| {
            let slot = &mut self.all[*index as usize];
            slot.queued = false;
            if !slot.used {
                self.free.push(*index);
            }
            slot.used
        });
        again
    }

    /// All places with a registration.
    pub(super) fn all(&self) -> Vec<u32> {
        let numbered = self.all.iter().enumerate();
        numbered.filter(|(_, slot)| slot.used).map(|(index, _)| index as u32).collect()
    }

    pub(super) fn vacate(&mut self, index: u32) {
        let slot = &mut self[index];
        (slot.used, slot.stream) = (false, Weak::new());
        // One that is to be looked at again becomes free then.
        if !slot.queued {
            self.free.push(index);
        }
    }
}
