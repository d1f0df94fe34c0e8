//! One Channel over a reliable connection.

use std::collections::VecDeque;

use netchannel_channel::{Channel, ChannelConfig, Controller, Kind, State};
use netchannel_units::{ChannelId, StreamOffset, Timestamp};
use netchannel_verbs::queue_pair::ConnectOptions;
use netchannel_verbs::{Context, Endpoint, QueuePair, SourcePort};
use netchannel_wire::{Frame, StreamId};

use crate::draft::{Draft, Source, Target};
use crate::error::DriverError;
use crate::fencing::Progress;
use crate::group::GroupConfig;
use crate::send_queue::{INITIAL_ROOM, InFlight, SendQueue};

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
    draft: Draft<C>,
    /// What was sent and not polled as confirmed, oldest first, and what the draft carries.
    carried: VecDeque<T>,
    drafted: u32,
    queue: SendQueue,
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
        Ok(Self {
            queue_pair: Some(queue_pair),
            progress: Progress::Open,
            id,
            state: Channel::new(channel, controller),
            draft: Draft::new(context, config)?,
            carried: VecDeque::with_capacity(INITIAL_ROOM),
            drafted: 0,
            queue: SendQueue::new(config),
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

    /// Connects to the peer's queue pair, without waiting for its device: who polls must not. What goes
    /// wrong later fails the queue pair.
    ///
    /// # Errors
    /// [`DriverError::Queue`].
    pub fn connect(
        &mut self,
        peer: &Endpoint,
        options: &ConnectOptions,
    ) -> Result<(), DriverError> {
        let Some(queue_pair) = &mut self.queue_pair else { return Ok(()) };
        let connected = queue_pair.start_connect(peer, options);
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
        self.draft.close();
        self.queue.clear();
    }

    /// The queue pair, for what only its provider offers.
    pub fn queue_pair(&self) -> Option<&C::QueuePair> {
        self.queue_pair.as_ref()
    }

    /// Whether a frame could be added now: a draft is open, or one may be opened.
    pub fn may_draft(&self) -> bool {
        if self.draft.is_open() {
            return self.state.state() == State::Open;
        }
        self.state.may_send(Kind::Data) && self.queue.has_slot() && self.queue.has_room(2)
    }

    /// Whether a draft is open.
    pub fn has_draft(&self) -> bool {
        self.draft.is_open()
    }

    /// Bytes that frames of the draft can still take (of a new one, if none is open).
    pub fn room(&self) -> usize {
        self.draft.room()
    }

    /// Bytes of bulk and frames in the draft.
    pub fn draft_bytes(&self) -> u64 {
        self.draft.bytes()
    }

    /// Whether another WRITE fits on the send queue beside the draft's.
    pub fn may_write(&self) -> bool {
        self.queue.has_room(self.draft.writes() + 2)
    }

    fn open_draft(&mut self) -> bool {
        if !self.may_draft() {
            return false;
        }
        if !self.draft.is_open()
            && let Some(slot) = self.queue.take_slot()
        {
            self.draft.open(slot);
        }
        true
    }

    /// Adds a frame to the draft. False if it has no room or may not be opened; after a
    /// [`flush`](Self::flush) there may be.
    pub fn push(&mut self, frame: &Frame<'_>) -> bool {
        self.open_draft() && self.draft.push(frame)
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
        // SAFETY: the caller's promise is the same.
        self.open_draft() && unsafe { self.draft.push_data(stream, offset, backlog, source, len) }
    }

    /// Adds a WRITE to the post list of the draft, and the Written frame that announces it. False
    /// as in [`push`](Self::push), or if the send queue has no room for it.
    ///
    /// # Safety
    /// The source stays valid and unchanged until the draft's message was confirmed or the
    /// Channel failed; with `inline`, until [`flush`](Self::flush) returned.
    pub unsafe fn push_write(&mut self, source: Source, target: &Target) -> bool {
        // SAFETY: the caller's promise covers it.
        self.may_write() && self.open_draft() && unsafe { self.draft.push_write(source, target) }
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
        if !self.draft.has_frames() || self.is_fencing() {
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
        if !self.state.may_send(Kind::Control) || !self.queue.has_room(1) {
            return Ok(false);
        }
        if !self.draft.is_open() {
            let Some(slot) = self.queue.take_slot() else { return Ok(false) };
            self.draft.open(slot);
        }
        self.post(now, Kind::Control).map(|()| true)
    }

    fn post(&mut self, now: Timestamp, kind: Kind) -> Result<(), DriverError> {
        if !self.draft.is_open() {
            return Ok(());
        }
        let carried = std::mem::take(&mut self.drafted);
        let header = self.state.on_transmit(now, self.draft.bytes(), carried, kind);
        let message = self.draft.finish(&header);
        let (Some(message), Some(queue_pair)) = (message, &mut self.queue_pair) else {
            return Ok(());
        };
        let inline = message.length <= queue_pair.max_inline();
        let is_bulk = self.draft.writes() > 0;
        let signaled = self.queue.is_to_signal(message.length, is_bulk || !inline);
        let id = u64::from(self.completion_tag) << 32 | u64::from(header.sequence);
        let requests = self.draft.requests(&message, id, signaled, inline);
        // SAFETY: the slot is not touched before the completion of this or a later message gave
        // it back (`on_completion`), or at once if the request is inline; WRITE sources are the
        // business of `push_write`'s caller.
        let posted = unsafe { queue_pair.post_send(requests) };
        if inline {
            self.queue.free_slot(message.slot);
        }
        self.queue.on_posted(InFlight {
            sequence: header.sequence,
            slot: (!inline).then_some(message.slot),
            requests: requests.len() as u32,
            signaled,
        });
        self.draft.clear_writes();
        posted.map_err(DriverError::post("send queue"))
    }

    /// A signalled send completion: everything up to `sequence` has left.
    pub(crate) fn on_completion(&mut self, now: Timestamp, sequence: u32) {
        self.queue.on_completion(sequence);
        self.state.on_completion(now, sequence);
    }

    pub(crate) fn completion_tag(&self) -> u32 {
        self.completion_tag
    }

    /// Whether a signalled request is outstanding.
    pub fn awaits_completion(&self) -> bool {
        match self.progress {
            Progress::Open => self.queue.awaits_completion(),
            // Its sources may be read until it is destroyed.
            Progress::InError { .. } => true,
            Progress::Destroyed(_) | Progress::Drained => false,
        }
    }

    /// Whether completions of this Channel are to be expected.
    pub fn has_in_flight(&self) -> bool {
        !self.queue.is_empty()
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
        self.draft.discard();
        lost
    }
}
