//! The two ends of a wire ring: the private state of its sender and of its receiver.

use std::sync::atomic::Ordering;

use super::{IN_SLOT, Kind, PAYLOAD, Ring, Rubbish, SEGMENT, SLOTS, Slot, flag, lap, lines};
use crate::soft::gather::Cursor;

/// The sender's private state.
#[derive(Debug)]
pub(in crate::soft) struct Sender {
    /// Slots published.
    next: u64,
    /// Slots consumed, as last read and checked.
    consumed: u64,
    /// Slots up to the last that asks to be woken for.
    notified: u64,
    /// Payload bytes written and given back.
    tail: u64,
    head: u64,
    /// `tail` after each slot that is not consumed yet.
    ends: Box<[u64]>,
}

impl Sender {
    pub(in crate::soft) fn new() -> Self {
        let ends = vec![0; SLOTS as usize].into_boxed_slice();
        Self { next: 0, consumed: 0, notified: 0, tail: 0, head: 0, ends }
    }

    /// Slots published.
    pub(in crate::soft) fn published(&self) -> u64 {
        self.next
    }

    /// Slots consumed when last looked at.
    pub(in crate::soft) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Whether there are slots that the receiver may consume without a word. Never while the ring is
    /// half full, so that there is room for one more then.
    #[inline]
    pub(in crate::soft) fn is_unheard(&self) -> bool {
        self.notified < self.next && self.consumed < self.next
    }

    /// Reads the receiver's progress.
    #[inline]
    pub(in crate::soft) fn refresh(&mut self, ring: &Ring) -> Result<(), Rubbish> {
        // Acquire: the receiver's reads of what it gives back come before our next writes there.
        let progress = ring.progress().load(Ordering::Acquire);
        if progress == self.consumed {
            return Ok(());
        }
        if progress < self.consumed || progress > self.next {
            return Err(Rubbish);
        }
        self.consumed = progress;
        self.head = self.ends[((progress - 1) % u64::from(SLOTS)) as usize];
        Ok(())
    }

    /// Whether a segment of `len` bytes fits now. One slot stays free for a violation.
    #[inline]
    pub(in crate::soft) fn has_room(&self, len: u32) -> bool {
        self.next - self.consumed < u64::from(SLOTS) - 1
            && (len <= IN_SLOT || self.tail - self.head + lines(len) <= u64::from(PAYLOAD))
    }

    /// Whoever waits for room waits for at most a quarter of the ring, so the last slot before it
    /// was pushed with this true.
    #[inline]
    fn is_half_full(&self) -> bool {
        self.next - self.consumed >= u64::from(SLOTS / 2)
            || self.tail - self.head >= u64::from(PAYLOAD / 2)
    }

    /// Publishes a slot with `slot.len` bytes from `source`. There must be room: see `has_room`, with
    /// `IN_SLOT + 1` for timed slots.
    #[inline]
    pub(in crate::soft) fn push(&mut self, ring: &Ring, slot: &Slot, source: &mut Cursor<'_>) {
        let words = ring.slot(self.next);
        if slot.in_slot() {
            // SAFETY: the data bytes of a slot that the receiver has given back (or never had), and
            // `len` is at most as many; the cursor's slices hold `total >= len` bytes (its creator's word).
            unsafe { source.copy_out(ring.slot_data(self.next), slot.len) };
        } else {
            let mut done = 0;
            while done < slot.len {
                let (target, len) = ring.payload(self.tail + u64::from(done), slot.len - done);
                // SAFETY: `len` contiguous bytes of the payload area, free by `has_room`.
                unsafe { source.copy_out(target, len) };
                done += len;
            }
            self.tail += lines(slot.len);
            if slot.has(flag::TIMED) {
                words[3].store(slot.arrival, Ordering::Relaxed);
            }
        }
        self.ends[(self.next % u64::from(SLOTS)) as usize] = self.tail;
        words[1].store(u64::from(slot.len) | u64::from(slot.immediate) << 32, Ordering::Relaxed);
        words[2].store(u64::from(slot.total) | u64::from(slot.queue_key) << 32, Ordering::Relaxed);
        let mut flags = slot.flags;
        if self.is_half_full() {
            flags |= flag::NOTIFY;
        }
        let head = u64::from(lap(self.next))
            | u64::from(slot.kind.to_wire()) << 32
            | u64::from(flags) << 40;
        // Release: the payload, and WRITEs made before, are visible to who sees the slot.
        words[0].store(head, Ordering::Release);
        self.next += 1;
        if flags & flag::NOTIFY != 0 {
            self.notified = self.next;
        }
    }
}

/// The receiver's private state.
#[derive(Debug, Default)]
pub(in crate::soft) struct Receiver {
    /// Slots consumed.
    next: u64,
    /// Payload position of the next segment.
    head: u64,
    /// Progress that the sender can see, and the payload position that goes with it.
    shown: u64,
    shown_head: u64,
}

impl Receiver {
    /// Slots consumed.
    #[inline]
    pub(in crate::soft) fn consumed(&self) -> u64 {
        self.next
    }

    /// The next slot, if it has been published.
    #[inline]
    pub(in crate::soft) fn peek(&self, ring: &Ring) -> Result<Option<Slot>, Rubbish> {
        let words = ring.slot(self.next);
        // Acquire: pairs with the release-store in `push`.
        let head = words[0].load(Ordering::Acquire);
        if head as u32 != lap(self.next) {
            return Ok(None);
        }
        let sizes = words[1].load(Ordering::Relaxed);
        let whole = words[2].load(Ordering::Relaxed);
        let mut slot = Slot {
            kind: Kind::from_wire((head >> 32) as u8),
            flags: (head >> 40) as u8,
            len: sizes as u32,
            immediate: (sizes >> 32) as u32,
            total: whole as u32,
            queue_key: (whole >> 32) as u32,
            arrival: 0,
        };
        if slot.len > SEGMENT || slot.len > slot.total {
            return Err(Rubbish);
        }
        if slot.has(flag::TIMED) {
            slot.arrival = words[3].load(Ordering::Relaxed);
        }
        Ok(Some(slot))
    }

    /// Copies the payload of `slot`, which `peek` returned last, to `target`.
    #[inline]
    pub(in crate::soft) fn copy(&self, ring: &Ring, slot: &Slot, target: &mut Cursor<'_>) {
        if slot.in_slot() {
            // SAFETY: `len` is at most `IN_SLOT`; the cursor's slices have room for the message
            // (checked by the caller against its total).
            unsafe { target.copy_in(ring.slot_data(self.next), slot.len) };
            return;
        }
        let mut done = 0;
        while done < slot.len {
            let (source, len) = ring.payload(self.head + u64::from(done), slot.len - done);
            // SAFETY: `len` contiguous bytes of the payload area; the cursor as above. The sender may
            // write to them meanwhile if it is hostile: mixed bytes in the receive buffer, no more.
            unsafe { target.copy_in(source, len) };
            done += len;
        }
    }

    /// Steps over `slot`, which `peek` returned last.
    #[inline]
    pub(in crate::soft) fn advance(&mut self, slot: &Slot) {
        if !slot.in_slot() {
            self.head += lines(slot.len);
        }
        self.next += 1;
    }

    /// Something was consumed and not yet given back.
    #[inline]
    pub(in crate::soft) fn owes_any(&self) -> bool {
        self.shown != self.next
    }

    /// What was consumed and not yet given back is worth a store to the shared line.
    #[inline]
    pub(in crate::soft) fn owes_much(&self) -> bool {
        self.next - self.shown >= u64::from(SLOTS / 4)
            || self.head - self.shown_head >= u64::from(PAYLOAD / 8)
    }

    /// Gives consumed slots back; whether there were any.
    #[inline]
    pub(in crate::soft) fn show(&mut self, ring: &Ring) -> bool {
        if self.shown == self.next {
            return false;
        }
        self.shown = self.next;
        self.shown_head = self.head;
        // Release: our reads of the payload come before the sender's next writes there.
        ring.progress().store(self.next, Ordering::Release);
        true
    }
}
