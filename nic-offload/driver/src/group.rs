//! A Channel group: one shared receive queue, its completion queues and its Channels.

use netchannel_channel::{ChannelConfig, Controller};
use netchannel_units::{ChannelId, Timestamp};
use netchannel_verbs::queue_pair::{QueuePairInit, Service};
use netchannel_verbs::work::{Status, WorkCompletion};
use netchannel_verbs::{CompletionQueue, Context, QueuePair};

use crate::error::DriverError;
use crate::rc_channel::RcChannel;
use crate::receive_slots::{ReceiveSlots, with_spare};

/// Completions taken per poll of a queue: enough to amortise the call, few enough that one queue
/// does not hold up the others.
const BATCH: usize = 32;

/// When no signalled request is outstanding, the send completion queue can only bring failures:
/// it is polled this rarely then.
const FAILURE_POLL: u32 = 16;

/// Sizes of a group.
#[derive(Clone, Copy, Debug)]
pub struct GroupConfig {
    /// Bytes of a receive or send slot: the largest message.
    pub slot_bytes: u32,
    /// Receive slots that a Channel's peer has credit for; some spare ones come along with them.
    pub receive_slots: u32,
    /// Send slots of a Channel.
    pub send_slots: u32,
    /// Requests on the send queue of a Channel.
    pub send_depth: u32,
    /// Channels that the group has room for.
    pub channels: u32,
    /// Wanted inline size.
    pub inline_bytes: u32,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            slot_bytes: 8_192,
            receive_slots: 64,
            send_slots: 64,
            send_depth: 256,
            channels: 64,
            inline_bytes: 256,
        }
    }
}

/// Index of a Channel in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey(pub u16);

/// What a poll found.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A message lies in a slot; give the slot back with [`Group::release`].
    Message {
        /// The Channel it came through.
        channel: ChannelKey,
        /// The slot.
        slot: u32,
        /// Its length.
        length: u32,
    },
    /// The queue pair failed.
    Failed {
        /// The Channel.
        channel: ChannelKey,
        /// Why.
        status: Status,
    },
}

/// A Channel group. One thread at a time uses it.
pub struct Group<C: Context, T> {
    // Declared first, dropped first: queue pairs, then the receive queue, then completion queues.
    channels: Vec<Option<RcChannel<C, T>>>,
    receives: ReceiveSlots<C>,
    receive_completions: C::CompletionQueue,
    send_completions: C::CompletionQueue,
    numbers: Vec<(u32, ChannelKey)>,
    next_tag: u16,
    config: GroupConfig,
    context: C,
    batch: Vec<WorkCompletion>,
    polls: u32,
    /// A Channel was removed (its last completions, and what they hold, are to be taken), or may have
    /// failed.
    look_at_sends: bool,
    /// The last poll found everything that there was to receive.
    receives_emptied: bool,
    receives_taken: u64,
}

impl<C: Context, T> Group<C, T> {
    /// An empty group.
    ///
    /// # Errors
    /// [`DriverError::Queue`] if the device refuses.
    pub fn new(context: C, config: GroupConfig) -> Result<Self, DriverError> {
        let attributes = context.attributes();
        let limit = attributes.max_completions;
        let receives = (with_spare(config.receive_slots) * config.channels)
            .min(limit)
            .min(attributes.max_shared_receives);
        let sends = (config.send_depth * config.channels).min(limit);
        let make =
            |n: u32, what| context.create_completion_queue(n).map_err(DriverError::queue(what));
        let receive_completions = make(receives, "creating the receive completion queue")?;
        let send_completions = make(sends, "creating the send completion queue")?;
        let slots = ReceiveSlots::new(&context, receives, config.slot_bytes, config.receive_slots)?;
        Ok(Self {
            channels: Vec::new(),
            receives: slots,
            receive_completions,
            send_completions,
            numbers: Vec::new(),
            next_tag: 0,
            config,
            context,
            batch: vec![WorkCompletion::default(); BATCH],
            polls: 0,
            look_at_sends: false,
            receives_emptied: true,
            receives_taken: 0,
        })
    }

    /// The sizes.
    pub fn config(&self) -> &GroupConfig {
        &self.config
    }

    /// Adds a Channel, not connected yet.
    ///
    /// # Errors
    /// [`DriverError`] if the device refuses or the group is full.
    pub fn add_channel(
        &mut self,
        id: ChannelId,
        channel: ChannelConfig,
        controller: Controller,
    ) -> Result<ChannelKey, DriverError> {
        let index = self.channels.iter().position(Option::is_none).unwrap_or(self.channels.len());
        let queue_pair = self.make_queue_pair()?;
        let key = ChannelKey(index as u16);
        let tag = self.new_tag(key);
        let number = queue_pair.number();
        let bound =
            RcChannel::new(&self.context, &self.config, queue_pair, id, tag, channel, controller)?;
        self.receives.grow(&self.context)?;
        if index == self.channels.len() {
            self.channels.push(Some(bound));
        } else {
            self.channels[index] = Some(bound);
        }
        self.note_number(number, key);
        Ok(key)
    }

    pub(crate) fn make_queue_pair(&self) -> Result<C::QueuePair, DriverError> {
        let init = QueuePairInit {
            service: Service::ReliableConnection,
            send_queue: &self.send_completions,
            receive_queue: &self.receive_completions,
            shared_receive_queue: Some(self.receives.queue()),
            send_capacity: self.config.send_depth,
            receive_capacity: 0,
            inline_bytes: self.config.inline_bytes.min(self.context.attributes().max_inline),
        };
        let made = self.context.create_queue_pair(&init);
        made.map_err(DriverError::queue("creating a queue pair"))
    }

    /// A tag that tells the completions of a queue pair from those of earlier ones.
    pub(crate) fn new_tag(&mut self, key: ChannelKey) -> u32 {
        let tag = u32::from(self.next_tag) << 16 | u32::from(key.0);
        self.next_tag = self.next_tag.wrapping_add(1);
        tag
    }

    pub(crate) fn note_number(&mut self, number: u32, key: ChannelKey) {
        let at = self.numbers.partition_point(|(n, _)| *n < number);
        self.numbers.insert(at, (number, key));
    }

    pub(crate) fn forget_number(&mut self, key: ChannelKey) {
        self.numbers.retain(|(_, k)| *k != key);
    }

    /// So many receive completions were taken; `emptied`: there were no more.
    pub(crate) fn note_receives(&mut self, count: u32, emptied: bool) {
        self.receives_emptied = emptied;
        self.receives_taken += u64::from(count);
    }

    /// What [`has_taken`](Self::has_taken) is to be asked about the receive completions that there
    /// are now.
    pub(crate) fn receive_mark(&self) -> u64 {
        let (_, slots) = self.receives.census();
        self.receives_taken + u64::from(slots)
    }

    /// Whether all receive completions from before the mark were taken: the last poll emptied the
    /// queue, or as many came since as there were slots. Other Channels may never let it run empty.
    pub(crate) fn has_taken(&self, mark: u64) -> bool {
        self.receives_emptied || self.receives_taken >= mark
    }

    /// The next poll looks for failed sends, even if none was to complete.
    pub fn look_for_failures(&mut self) {
        self.look_at_sends = true;
    }

    /// Takes a Channel out and destroys its queue pair. Its late completions are dropped.
    pub fn remove_channel(&mut self, key: ChannelKey) -> Option<RcChannel<C, T>> {
        let channel = self.channels.get_mut(usize::from(key.0))?.take()?;
        self.forget_number(key);
        self.receives.shrink();
        self.look_at_sends = true;
        Some(channel)
    }

    /// A Channel.
    pub fn channel(&self, key: ChannelKey) -> Option<&RcChannel<C, T>> {
        self.channels.get(usize::from(key.0))?.as_ref()
    }

    /// A Channel.
    pub fn channel_mut(&mut self, key: ChannelKey) -> Option<&mut RcChannel<C, T>> {
        self.channels.get_mut(usize::from(key.0))?.as_mut()
    }

    /// Number of Channels.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    pub(crate) fn by_number(&self, number: u32) -> Option<ChannelKey> {
        let at = self.numbers.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        Some(self.numbers[at].1)
    }

    /// Polls both completion queues once and appends what it found. Send completions go straight
    /// to their Channels.
    ///
    /// # Errors
    /// [`DriverError::Queue`] if a completion queue broke.
    pub fn poll(&mut self, now: Timestamp, events: &mut Vec<Event>) -> Result<usize, DriverError> {
        let mut batch = std::mem::take(&mut self.batch);
        let received = self
            .receive_completions
            .poll(&mut batch)
            .map_err(DriverError::queue("polling the receive completion queue"));
        let mut found = 0;
        if let Ok(count) = received {
            found += count;
            self.note_receives(count as u32, count < batch.len());
            for completion in &batch[..count] {
                self.on_receive(completion, events);
            }
        }
        self.polls = self.polls.wrapping_add(1);
        let awaited = std::mem::take(&mut self.look_at_sends)
            || self.polls.is_multiple_of(FAILURE_POLL)
            || self.channels.iter().flatten().any(|channel| channel.awaits_completion());
        let sent = match received {
            Ok(_) if !awaited => Ok(0),
            Ok(_) => self
                .send_completions
                .poll(&mut batch)
                .map_err(DriverError::queue("polling the send completion queue")),
            Err(error) => Err(error),
        };
        if let Ok(count) = sent {
            found += count;
            for completion in &batch[..count] {
                self.on_send(now, completion, events);
            }
        }
        self.batch = batch;
        sent.map(|_| found)
    }

    fn on_receive(&mut self, completion: &WorkCompletion, events: &mut Vec<Event>) {
        let slot = completion.id as u32;
        let channel = self.by_number(completion.queue_pair);
        match channel {
            Some(channel) if completion.status.is_success() => {
                events.push(Event::Message { channel, slot, length: completion.bytes });
            }
            Some(channel) => {
                self.receives.release(slot);
                if self.channel(channel).is_some_and(|c| !c.is_fencing()) {
                    events.push(Event::Failed { channel, status: completion.status });
                }
            }
            None => self.receives.release(slot),
        }
    }

    fn on_send(&mut self, now: Timestamp, completion: &WorkCompletion, events: &mut Vec<Event>) {
        let tag = (completion.id >> 32) as u32;
        let key = ChannelKey(tag as u16);
        let Some(channel) = self.channel_mut(key) else { return };
        if channel.completion_tag() != tag {
            return;
        }
        if completion.status.is_success() {
            channel.on_completion(now, completion.id as u32);
        } else if !channel.is_fencing() {
            events.push(Event::Failed { channel: key, status: completion.status });
        }
    }

    /// The Channel with this queue pair.
    pub fn channel_of(&self, queue_pair: u32) -> Option<ChannelKey> {
        self.by_number(queue_pair)
    }

    /// Receive slots that the group keeps posted or lends out, and those that are at the moment: after each
    /// [`repost`](Self::repost) fewer by less than the spare ones of a Channel.
    pub fn receive_slots(&self) -> (u32, u32) {
        self.receives.census()
    }

    /// The bytes of a message.
    pub fn message(&self, slot: u32, length: u32) -> &[u8] {
        self.receives.message(slot, length)
    }

    /// A message is processed; its slot is posted again by [`repost`](Self::repost).
    pub fn release(&mut self, slot: u32) {
        self.receives.release(slot);
    }

    /// Posts released slots, several at once. Once per poll pass.
    ///
    /// # Errors
    /// [`DriverError::Post`].
    pub fn repost(&mut self) -> Result<(), DriverError> {
        self.receives.repost()
    }

    /// Asks for an event at the next received message; with `sends` also at the next send
    /// completion.
    ///
    /// # Errors
    /// [`DriverError::Queue`].
    pub fn arm(&mut self, sends: bool) -> Result<(), DriverError> {
        self.receive_completions.arm().map_err(DriverError::queue("arming completion events"))?;
        if sends {
            self.send_completions.arm().map_err(DriverError::queue("arming completion events"))?;
        }
        Ok(())
    }

    /// Takes events off the descriptors (receives, sends) that are readable. Looking is a system
    /// call, so only where there may be something.
    ///
    /// # Errors
    /// [`DriverError::Queue`].
    pub fn drain_events(&mut self, readable: [bool; 2]) -> Result<(), DriverError> {
        let failed = "draining completion events";
        if readable[0] {
            self.receive_completions.drain_events().map_err(DriverError::queue(failed))?;
        }
        if readable[1] {
            self.send_completions.drain_events().map_err(DriverError::queue(failed))?;
        }
        Ok(())
    }

    /// The descriptors that become readable at events: receives, sends.
    pub fn event_fds(&self) -> [std::os::fd::BorrowedFd<'_>; 2] {
        [self.receive_completions.event_fd(), self.send_completions.event_fd()]
    }
}
