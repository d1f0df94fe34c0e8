//! One Channel over a reliable connection.

use std::collections::VecDeque;

use netchannel_channel::{Channel, ChannelConfig, Controller, Kind, State};
use netchannel_units::{ByteRange, ChannelId, StreamOffset, Timestamp};
use netchannel_verbs::queue_pair::ConnectOptions;
use netchannel_verbs::work::{SendOperation, Slices};
use netchannel_verbs::{
    Access, Context, Endpoint, LocalSlice, MemoryRegion, QueuePair, RemoteKey, SendRequest,
    SourcePort,
};
use netchannel_wire::frame::GrantId;
use netchannel_wire::{Frame, MessageDraft, StreamId};

use crate::error::DriverError;
use crate::fencing::Progress;
use crate::group::GroupConfig;

/// A message that took nothing but itself is signalled at least this often, so that the send queue
/// drains; rarer than every message, because completions cost more than they tell.
const SIGNAL_EVERY: u32 = 16;
/// And as soon as this many bytes would go unreported: bytes outstanding decide what may follow.
const SIGNAL_BYTES: u64 = 4_096;

/// Lists begin with room for this many, about what is in flight, so that they do not grow later.
const INITIAL_ROOM: usize = 64;

/// Where bulk bytes come from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Address of the first byte in this process.
    pub address: u64,
    /// Number of bytes.
    pub length: u32,
    /// Key of the region; ignored if `inline`.
    pub local_key: u32,
    /// Move the bytes while posting: the memory is needed no longer than that, and no key.
    pub inline: bool,
}

/// Where bulk bytes go: memory of the peer, and what announces them.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The stream.
    pub stream: StreamId,
    /// The window.
    pub grant: GrantId,
    /// Which bytes.
    pub range: ByteRange,
    /// Bytes that wait behind them.
    pub backlog: u32,
    /// Address in the peer's terms.
    pub address: u64,
    /// The peer's key.
    pub key: u32,
}

/// A message on the send queue.
#[derive(Debug)]
struct InFlight {
    sequence: u32,
    slot: Option<u16>,
    requests: u32,
    signaled: bool,
}

/// A Channel bound to its queue pair. `T` is what the engine wants back when a message that
/// carried it is confirmed or lost.
pub struct RcChannel<C: Context, T> {
    // Declared first, dropped first: the queue pair goes before the memory that it may read.
    /// `None` between two queue pairs.
    pub(crate) queue_pair: Option<C::QueuePair>,
    pub(crate) progress: Progress,
    id: ChannelId,
    /// Messages carry so many of `carried`.
    state: Channel<u32>,
    slots: C::MemoryRegion,
    slot_bytes: u32,
    send_slots: u16,
    free_slots: Vec<u16>,
    draft: MessageDraft,
    draft_slot: Option<u16>,
    /// What was sent and not polled as confirmed, oldest first, and what the draft carries.
    carried: VecDeque<T>,
    drafted: u32,
    writes: Vec<SendRequest>,
    write_bytes: u64,
    in_flight: VecDeque<InFlight>,
    queued: u32,
    depth: u32,
    unsignaled: u32,
    unsignaled_bytes: u64,
    /// Signalled messages without a completion.
    awaited: u32,
    completion_tag: u32,
}

impl<C: Context, T> RcChannel<C, T> {
    pub(crate) fn new(
        context: &C,
        config: &GroupConfig,
        queue_pair: C::QueuePair,
        id: ChannelId,
        completion_tag: u32,
        channel: ChannelConfig,
        controller: Controller,
    ) -> Result<Self, DriverError> {
        let count = config.send_slots;
        let slots = context
            .alloc(count as usize * config.slot_bytes as usize, Access::LOCAL_WRITE)
            .map_err(DriverError::queue("allocating send slots"))?;
        Ok(Self {
            queue_pair: Some(queue_pair),
            progress: Progress::Open,
            id,
            state: Channel::new(channel, controller),
            slots,
            slot_bytes: config.slot_bytes,
            send_slots: count as u16,
            free_slots: (0..count as u16).rev().collect(),
            draft: MessageDraft::new(),
            draft_slot: None,
            carried: VecDeque::with_capacity(INITIAL_ROOM),
            drafted: 0,
            writes: Vec::with_capacity(INITIAL_ROOM),
            write_bytes: 0,
            in_flight: VecDeque::with_capacity(INITIAL_ROOM),
            queued: 0,
            depth: config.send_depth,
            unsignaled: 0,
            unsignaled_bytes: 0,
            awaited: 0,
            completion_tag,
        })
    }

    /// The Channel's number in its session.
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// The pure state.
    pub fn state(&self) -> &Channel<u32> {
        &self.state
    }

    /// The pure state, for its inputs.
    pub fn state_mut(&mut self) -> &mut Channel<u32> {
        &mut self.state
    }

    /// Number of the queue pair; 0 if there is none.
    pub fn queue_pair_number(&self) -> u32 {
        self.queue_pair.as_ref().map_or(0, QueuePair::number)
    }

    /// UDP source port of its packets, once connected, where they are UDP.
    pub fn source_port(&self) -> Option<SourcePort> {
        self.queue_pair.as_ref().and_then(QueuePair::source_port)
    }

    /// What the peer needs to connect; empty if there is no queue pair.
    pub fn endpoint(&self) -> Endpoint {
        self.queue_pair.as_ref().map_or(Endpoint(Vec::new()), QueuePair::endpoint)
    }

    /// Connects to the peer's queue pair.
    ///
    /// # Errors
    /// [`DriverError::Queue`].
    pub fn connect(
        &mut self,
        peer: &Endpoint,
        options: &ConnectOptions,
    ) -> Result<(), DriverError> {
        let Some(queue_pair) = &mut self.queue_pair else { return Ok(()) };
        let connected = queue_pair.connect(peer, options);
        connected.map_err(DriverError::queue("connecting the queue pair"))
    }

    /// Replaces the pure state of a Channel on which nothing was sent yet: the sizes of the peer's
    /// queues are known only when it has answered.
    pub fn set_state(&mut self, config: ChannelConfig, controller: Controller) {
        self.state = Channel::new(config, controller);
    }

    /// Moves the queue pair to error: nothing it posted is executed any more. The Channel does not
    /// know yet; see [`Group::fence`](crate::Group::fence).
    ///
    /// # Errors
    /// [`DriverError::Queue`].
    pub fn fail_queue_pair(&mut self) -> Result<(), DriverError> {
        let Some(queue_pair) = &mut self.queue_pair else { return Ok(()) };
        queue_pair.fail().map_err(DriverError::queue("moving a queue pair to error"))
    }

    /// Whether the queue pair is being fenced, or gone.
    pub fn is_fencing(&self) -> bool {
        self.progress != Progress::Open
    }

    /// Takes a new queue pair. The send slots are all free: what read them is destroyed.
    pub(crate) fn renew(
        &mut self,
        queue_pair: C::QueuePair,
        completion_tag: u32,
        channel: ChannelConfig,
        controller: Controller,
    ) {
        self.queue_pair = Some(queue_pair);
        self.progress = Progress::Open;
        self.completion_tag = completion_tag;
        self.state = Channel::new(channel, controller);
        self.state.receive_only();
        self.free_slots.clear();
        self.free_slots.extend((0..self.send_slots).rev());
        self.draft = MessageDraft::new();
        self.draft_slot = None;
        self.writes.clear();
        self.write_bytes = 0;
        self.in_flight.clear();
        self.queued = 0;
        self.unsignaled = 0;
        self.unsignaled_bytes = 0;
        self.awaited = 0;
    }

    /// The queue pair, for what only its provider offers.
    pub fn queue_pair(&self) -> Option<&C::QueuePair> {
        self.queue_pair.as_ref()
    }

    /// Whether a frame could be added now: a draft is open, or one may be opened.
    pub fn may_draft(&self) -> bool {
        match self.draft_slot {
            Some(_) => self.state.state() == State::Open,
            None => {
                self.state.may_send(Kind::Data)
                    && !self.free_slots.is_empty()
                    && self.queued + 2 <= self.depth
            }
        }
    }

    /// Whether a draft is open.
    pub fn has_draft(&self) -> bool {
        self.draft_slot.is_some()
    }

    /// Bytes that frames of the draft can still take (of a new one, if none is open).
    pub fn room(&self) -> usize {
        self.draft.room(self.slot_bytes as usize)
    }

    /// Bytes of bulk and frames in the draft.
    pub fn draft_bytes(&self) -> u64 {
        // As `post` counts them: without the header, so that nothing is nothing.
        self.write_bytes + self.draft.len().saturating_sub(MessageDraft::new().len()) as u64
    }

    /// Whether another WRITE fits on the send queue beside the draft's.
    pub fn may_write(&self) -> bool {
        self.queued + self.writes.len() as u32 + 2 <= self.depth
    }

    fn open_draft(&mut self) -> Option<u16> {
        if !self.may_draft() {
            return None;
        }
        if self.draft_slot.is_none() {
            self.draft_slot = self.free_slots.pop();
        }
        self.draft_slot
    }

    /// The slot's memory. Only for a slot that is not posted.
    fn slot_bytes_mut(slots: &mut C::MemoryRegion, slot: u16, slot_bytes: u32) -> &mut [u8] {
        let offset = usize::from(slot) * slot_bytes as usize;
        // SAFETY: the slot lies in the region, which `slots` borrows; the NIC only reads posted
        // slots, and callers pass one that is not posted. Peers have no key to the region.
        unsafe {
            std::slice::from_raw_parts_mut(slots.as_ptr().as_ptr().add(offset), slot_bytes as usize)
        }
    }

    /// Adds a frame to the draft. False if it has no room or may not be opened; after a
    /// [`flush`](Self::flush) there may be.
    pub fn push(&mut self, frame: &Frame<'_>) -> bool {
        let Some(slot) = self.open_draft() else { return false };
        let buffer = Self::slot_bytes_mut(&mut self.slots, slot, self.slot_bytes);
        self.draft.push(buffer, frame).is_ok()
    }

    /// Adds a Data frame whose `len` bytes are copied from `source`. False as in [`push`](Self::push).
    ///
    /// # Safety
    /// `source` is valid for reads of `len` bytes. Another thread or process may be writing them:
    /// then what is sent is unspecified bytes.
    pub unsafe fn push_data(
        &mut self,
        stream: StreamId,
        offset: StreamOffset,
        backlog: u32,
        source: *const u8,
        len: usize,
    ) -> bool {
        let Some(slot) = self.open_draft() else { return false };
        let buffer = Self::slot_bytes_mut(&mut self.slots, slot, self.slot_bytes);
        let Ok(place) = self.draft.push_data(buffer, stream, offset, backlog, len) else {
            return false;
        };
        // SAFETY: `source` is readable for `len` bytes (the caller's promise), `place` has that
        // length and belongs to this Channel alone, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(source, place.as_mut_ptr(), len) };
        true
    }

    /// Adds a WRITE to the post list of the draft, and the Written frame that announces it. False
    /// as in [`push`](Self::push), or if the send queue has no room for it.
    ///
    /// # Safety
    /// The source stays valid and unchanged until the draft's message was confirmed or the
    /// Channel failed; with `inline`, until [`flush`](Self::flush) returned.
    pub unsafe fn push_write(&mut self, source: Source, target: &Target) -> bool {
        if !self.may_write() {
            return false;
        }
        let Some(slot) = self.open_draft() else { return false };
        let buffer = Self::slot_bytes_mut(&mut self.slots, slot, self.slot_bytes);
        let &Target { stream, grant, range, backlog, address, key } = target;
        if self.draft.push_written(buffer, stream, grant, range, backlog).is_err() {
            return false;
        }
        self.write_bytes += u64::from(source.length);
        self.writes.push(SendRequest {
            id: 0,
            operation: SendOperation::Write { address, key: RemoteKey(key) },
            local: Slices::one(LocalSlice {
                address: source.address,
                length: source.length,
                local_key: source.local_key,
            }),
            signaled: false,
            inline: source.inline,
            solicited: false,
        });
        true
    }

    /// Notes what the draft carries.
    pub fn carry(&mut self, item: T) {
        self.carried.push_back(item);
        self.drafted += 1;
    }

    /// Posts the draft, if there is one. True if something left.
    ///
    /// # Errors
    /// [`DriverError::Post`]: the Channel is as good as dead.
    pub fn flush(&mut self, now: Timestamp) -> Result<bool, DriverError> {
        if self.draft.frames() == 0 || self.is_fencing() {
            // An opened draft without frames keeps its slot for the next frame.
            return Ok(false);
        }
        self.post(now, Kind::Data).map(|()| true)
    }

    /// Posts a message without frames, which acknowledges and returns credit. False if there is
    /// no room for it.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn acknowledge(&mut self, now: Timestamp) -> Result<bool, DriverError> {
        if !self.state.may_send(Kind::Control) || self.queued >= self.depth {
            return Ok(false);
        }
        if self.draft_slot.is_none() {
            let Some(slot) = self.free_slots.pop() else { return Ok(false) };
            self.draft_slot = Some(slot);
        }
        self.post(now, Kind::Control).map(|()| true)
    }

    fn post(&mut self, now: Timestamp, kind: Kind) -> Result<(), DriverError> {
        let Some(slot) = self.draft_slot.take() else { return Ok(()) };
        let carried = std::mem::take(&mut self.drafted);
        let frames = self.draft.len().saturating_sub(MessageDraft::new().len()) as u64;
        let header = self.state.on_transmit(now, self.write_bytes + frames, carried, kind);
        let buffer = Self::slot_bytes_mut(&mut self.slots, slot, self.slot_bytes);
        let length = self.draft.finish(buffer, &header) as u32;
        let Some(queue_pair) = &mut self.queue_pair else { return Ok(()) };
        let inline = length <= queue_pair.max_inline();
        let bulk = !self.writes.is_empty();
        self.unsignaled += 1;
        self.unsignaled_bytes += u64::from(length);
        let signaled = bulk
            || !inline
            || self.unsignaled >= SIGNAL_EVERY
            || self.unsignaled_bytes >= SIGNAL_BYTES;
        if signaled {
            self.unsignaled = 0;
            self.unsignaled_bytes = 0;
        }
        let offset = u64::from(slot) * u64::from(self.slot_bytes);
        self.writes.push(SendRequest {
            id: u64::from(self.completion_tag) << 32 | u64::from(header.sequence),
            operation: SendOperation::Send,
            local: Slices::one(LocalSlice {
                address: self.slots.as_ptr().as_ptr() as u64 + offset,
                length,
                local_key: self.slots.local_key(),
            }),
            signaled,
            inline,
            solicited: false,
        });
        for write in &mut self.writes {
            write.id = u64::from(self.completion_tag) << 32 | u64::from(header.sequence);
        }
        // SAFETY: the slot is not touched before the completion of this or a later message gave
        // it back (`on_completion`), or at once if the request is inline; WRITE sources are the
        // business of `push_write`'s caller.
        let posted = unsafe { queue_pair.post_send(&self.writes) };
        let requests = self.writes.len() as u32;
        self.queued += requests;
        let slot = if inline {
            self.free_slots.push(slot);
            None
        } else {
            Some(slot)
        };
        self.in_flight.push_back(InFlight { sequence: header.sequence, slot, requests, signaled });
        self.awaited += u32::from(signaled);
        self.writes.clear();
        self.write_bytes = 0;
        posted.map_err(DriverError::post("send queue"))
    }

    /// A signalled send completion: everything up to `sequence` has left.
    pub(crate) fn on_completion(&mut self, now: Timestamp, sequence: u32) {
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
        self.state.on_completion(now, sequence);
    }

    pub(crate) fn completion_tag(&self) -> u32 {
        self.completion_tag
    }

    /// Whether a signalled request is outstanding.
    pub fn awaits_completion(&self) -> bool {
        match self.progress {
            Progress::Open => self.awaited > 0,
            // Its sources may be read until it is destroyed.
            Progress::InError { .. } => true,
            Progress::Destroyed(_) | Progress::Drained => false,
        }
    }

    /// Whether completions of this Channel are to be expected.
    pub fn has_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Hands over what the messages carried that the peer confirmed since the last time, oldest first, in
    /// one or two pieces. Returns how many messages they were.
    #[inline]
    pub fn poll_confirmed(&mut self, mut each: impl FnMut(&[T])) -> usize {
        let (mut messages, mut items) = (0, 0);
        while let Some(carried) = self.state.poll_confirmed() {
            messages += 1;
            items += carried as usize;
        }
        if items > 0 {
            let (front, back) = self.carried.as_slices();
            let at = items.min(front.len());
            each(&front[..at]);
            if items > at {
                each(&back[..items - at]);
            }
            self.carried.drain(..items);
        }
        messages
    }

    /// What was drafted or sent and is not polled as confirmed.
    pub fn unpolled(&self) -> impl Iterator<Item = &T> {
        self.carried.iter()
    }

    /// The Channel is dead: everything unconfirmed and the draft come back.
    pub fn fail(&mut self) -> Vec<T> {
        let lost = self.state.fail().sum::<u32>() + std::mem::take(&mut self.drafted);
        let lost = self.carried.split_off(self.carried.len() - lost as usize).into();
        self.draft = MessageDraft::new();
        self.writes.clear();
        self.write_bytes = 0;
        lost
    }
}
