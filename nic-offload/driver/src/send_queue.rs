//! What a Channel has on the send queue of its queue pair, and its send slots.

use std::collections::VecDeque;

use crate::group::GroupConfig;

/// A message that took nothing but itself is signalled at least this often, so that the send queue
/// drains; rarer than every message, because completions cost more than they tell.
const SIGNAL_EVERY: u32 = 16;
/// And as soon as this many bytes would go unreported: bytes outstanding decide what may follow.
const SIGNAL_BYTES: u64 = 4_096;

/// Lists begin with room for this many, about what is in flight, so that they do not grow later.
pub(crate) const INITIAL_ROOM: usize = 64;

/// A message on the send queue.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) sequence: u32,
    /// The slot that the NIC may still read.
    pub(crate) slot: Option<u16>,
    pub(crate) requests: u32,
    pub(crate) signaled: bool,
}

// Inline, as most of it is asked per message by code that is generic over the provider.
#[derive(Debug)]
pub(crate) struct SendQueue {
    slots: u16,
    free_slots: Vec<u16>,
    in_flight: VecDeque<InFlight>,
    /// Requests on the queue, at most `depth`.
    queued: u32,
    depth: u32,
    /// Messages and their bytes since the last signalled one.
    unsignaled: u32,
    unsignaled_bytes: u64,
    /// Signalled messages without a completion.
    awaited: u32,
}

impl SendQueue {
    pub(crate) fn new(config: &GroupConfig) -> Self {
        let slots = config.send_slots as u16;
        Self {
            slots,
            free_slots: (0..slots).rev().collect(),
            in_flight: VecDeque::with_capacity(INITIAL_ROOM),
            queued: 0,
            depth: config.send_depth,
            unsignaled: 0,
            unsignaled_bytes: 0,
            awaited: 0,
        }
    }

    /// Nothing is on the queue of a new queue pair, and what read the slots is destroyed.
    pub(crate) fn clear(&mut self) {
        self.free_slots.clear();
        self.free_slots.extend((0..self.slots).rev());
        self.in_flight.clear();
        self.queued = 0;
        self.unsignaled = 0;
        self.unsignaled_bytes = 0;
        self.awaited = 0;
    }

    /// Whether as many requests fit.
    #[inline]
    pub(crate) fn has_room(&self, requests: u32) -> bool {
        self.queued + requests <= self.depth
    }

    #[inline]
    pub(crate) fn has_slot(&self) -> bool {
        !self.free_slots.is_empty()
    }

    #[inline]
    pub(crate) fn take_slot(&mut self) -> Option<u16> {
        self.free_slots.pop()
    }

    #[inline]
    pub(crate) fn free_slot(&mut self, slot: u16) {
        self.free_slots.push(slot);
    }

    /// Whether a message of `length` bytes is to be signalled, for itself (`must`) or for those before it.
    #[inline]
    pub(crate) fn is_to_signal(&mut self, length: u32, must: bool) -> bool {
        self.unsignaled += 1;
        self.unsignaled_bytes += u64::from(length);
        let signaled =
            must || self.unsignaled >= SIGNAL_EVERY || self.unsignaled_bytes >= SIGNAL_BYTES;
        if signaled {
            self.unsignaled = 0;
            self.unsignaled_bytes = 0;
        }
        signaled
    }

    #[inline]
    pub(crate) fn on_posted(&mut self, message: InFlight) {
        self.queued += message.requests;
        self.awaited += u32::from(message.signaled);
        self.in_flight.push_back(message);
    }

    /// Everything up to `sequence` has left.
    #[inline]
    pub(crate) fn on_completion(&mut self, sequence: u32) {
        while let Some(first) = self.in_flight.front() {
            // Wrapping comparison: at most 2^31 messages are in flight.
            if (sequence.wrapping_sub(first.sequence) as i32) < 0 {
                break;
            }
            self.queued -= first.requests;
            self.awaited -= u32::from(first.signaled);
            if let Some(slot) = first.slot {
                self.free_slots.push(slot);
            }
            self.in_flight.pop_front();
        }
    }

    /// Whether a signalled request is outstanding.
    #[inline]
    pub(crate) fn awaits_completion(&self) -> bool {
        self.awaited > 0
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }
}
