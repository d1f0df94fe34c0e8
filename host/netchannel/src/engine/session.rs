//! What the engine keeps per peer.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use netchannel_channel::AckNeed;
use netchannel_driver::{ChannelKey, Group};
use netchannel_scheduler::{Scheduler, StreamKey as SchedulerKey};
use netchannel_units::{ChannelId, Duration, StreamOffset, Timestamp};
use netchannel_verbs::Context;
use netchannel_vns::{Carried, SlabId, Streams};
use netchannel_wire::StreamId;

use crate::boundary::application::ApplicationId;
use crate::boundary::cell::buffer;
use crate::engine::buffers::{SendBuffer, vacancy};
use crate::engine::channel_set::ChannelSet;
use crate::engine::failover::Failover;
use crate::engine::slabs::WindowSlab;
use crate::engine::stream::StreamTable;
use crate::engine::tenants::Tenants;
use crate::shared::{SessionShared, SlabRoom};

/// Bytes that an application lends for the time of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Borrow {
    pub(crate) address: *const u8,
    pub(crate) start: StreamOffset,
    pub(crate) end: StreamOffset,
}

// SAFETY: lives only within `Engine::write_borrowed`, on the thread that lends the bytes.
unsafe impl Send for Borrow {}

/// Stream bytes that a Channel carried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Payload {
    pub(crate) confirmed: u64,
    pub(crate) received: u64,
}

/// An engine's part of a session.
pub(crate) struct Session<C: Context> {
    pub(crate) shared: Arc<SessionShared>,
    pub(crate) streams: Streams,
    pub(crate) scheduler: Scheduler,
    /// In here a Channel goes by its place in this list.
    pub(crate) channels: Vec<ChannelKey>,
    /// What both sides call them.
    pub(crate) numbers: Vec<ChannelId>,
    pub(crate) table: StreamTable,
    /// By number; what was given up leaves a gap.
    pub(crate) slabs: Vec<Option<WindowSlab<C>>>,
    /// What an application lends at the moment, and for which stream.
    pub(crate) borrow: Option<(StreamId, Borrow)>,
    /// Streams whose application has not let go.
    pub(crate) attached: usize,
    /// Something happened since the last pass, or could not be finished in it.
    pub(crate) attention: bool,
    /// When the session wants a pass at the latest.
    pub(crate) timer: Timestamp,
    /// It has moved since `timer` was set and since its spare memory was looked at.
    pub(crate) unsettled: bool,
    /// Stream bytes per Channel: confirmed by the peer, and received.
    pub(crate) payload: Vec<Payload>,
    /// Messages per Channel (and whether they elicit an acknowledgement) that must not be
    /// acknowledged before what was refused of them: a peer forgets what is acknowledged.
    pub(crate) held: Vec<Vec<bool>>,
    /// Channels with entries in `held`.
    pub(crate) holding: ChannelSet,
    /// Channels whose messages may have confirmed something since the last look.
    pub(crate) confirming: ChannelSet,
    /// Channels with a draft.
    pub(crate) drafts: ChannelSet,
    /// Channels that may owe an acknowledgement or have a timer.
    pub(crate) owing: ChannelSet,
    /// What outlives the Channels' queue pairs.
    pub(crate) failover: Failover,
    /// Failed or closed: waits for the applications to let go.
    pub(crate) over: bool,
    /// When to look, which stream, and its tail when it was noted.
    pub(super) idle_buffers: VecDeque<(Timestamp, StreamId, StreamOffset)>,
}

impl<C: Context> Session<C> {
    pub(crate) fn new(
        shared: Arc<SessionShared>,
        streams: Streams,
        scheduler: Scheduler,
        channels: Vec<(ChannelKey, ChannelId)>,
        failover: Failover,
    ) -> Self {
        let (channels, numbers): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
        let payload = vec![Payload::default(); channels.len()];
        let held = vec![Vec::new(); channels.len()];
        Self {
            attention: true,
            timer: Timestamp::MAX,
            unsettled: false,
            payload,
            held,
            holding: ChannelSet::default(),
            confirming: ChannelSet::default(),
            drafts: ChannelSet::default(),
            owing: ChannelSet::default(),
            shared,
            streams,
            scheduler,
            channels,
            numbers,
            table: StreamTable::default(),
            slabs: Vec::new(),
            borrow: None,
            failover,
            attached: 0,
            over: false,
            idle_buffers: VecDeque::new(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Shows applications how far they can read. Whether that is all there is to do at once: nothing else is new,
    /// and no frame, no bytes and no acknowledgement is due.
    pub(super) fn show(&self, group: &Group<C, Carried>) -> bool {
        let may_wait = |number: usize| {
            let channel = self.channels.get(number).and_then(|key| group.channel(*key));
            channel.is_none_or(|channel| channel.state().wants_ack() != AckNeed::Now)
        };
        let table = &self.table;
        self.scheduler.is_idle()
            && self.drafts.is_empty()
            && self.owing.iter().all(may_wait)
            && self.streams.glance(|id, half| table.get(id.0).is_some_and(|e| e.show(half)))
    }

    /// The peer has processed what a message of Channel `number` carried.
    pub(crate) fn confirm(&mut self, number: usize, carried: &[Carried]) {
        self.payload[number].confirmed += self.streams.on_message_confirmed(carried);
    }

    pub(crate) fn add_slab(&mut self, slab: WindowSlab<C>) {
        self.attention = true;
        let number = vacancy(&mut self.slabs);
        self.streams.add_slab(slab.application.id, SlabId(number as u32));
        self.slabs[number] = Some(slab);
    }

    /// A slab of windows that nobody has needed for long. To be dropped off the way of the data.
    pub(crate) fn take_spare_slab(&mut self, now: Timestamp) -> Option<Box<dyn Any + Send>> {
        let id = self.streams.take_spare_slab(now)?;
        Some(Box::new(self.slabs.get_mut(id.0 as usize)?.take()?))
    }

    /// Room for a slab of an application's receive windows. A part always gets the first: the others
    /// must not starve it.
    pub(super) fn slab_room(&self, application: ApplicationId, most: usize) -> Option<SlabRoom> {
        let mut slabs = self.slabs.iter().flatten();
        match slabs.any(|slab| slab.application.id == application) {
            true => self.shared.slab_room(most),
            false => Some(self.shared.first_slab_room()),
        }
    }

    /// Tells the scheduler what streams could send.
    pub(super) fn report_backlogs(&mut self) {
        while let Some(backlog) = self.streams.poll_backlog() {
            let key = SchedulerKey(u64::from(backlog.stream.0));
            self.scheduler.pin(key, backlog.via);
            self.scheduler.on_backlog(key, backlog.claim, backlog.bytes);
        }
    }

    /// What the application lends for `id` at the moment.
    pub(crate) fn borrowed(&self, id: StreamId) -> Option<Borrow> {
        self.borrow.filter(|(stream, _)| *stream == id).map(|(_, borrow)| borrow)
    }

    /// Whether there is such a stream, and it is this application's to use.
    pub(super) fn belongs_to(&self, id: StreamId, application: ApplicationId) -> bool {
        let entry = self.table.get(id.0);
        entry.is_some_and(|entry| entry.application == application && !entry.released)
    }

    /// The application wrote, or wants a buffer to write into.
    pub(super) fn on_written(&mut self, now: Timestamp, id: StreamId, tenants: &mut Tenants<C>) {
        let Some(entry) = self.table.get_mut(id.0) else { return };
        let application = &entry.cell.state().application;
        let wanted = u64::from(application.buffer_wanted.load(Ordering::Relaxed));
        // Pairs with the release store of the writer: the bytes are there.
        let tail = StreamOffset::new(application.tail.load(Ordering::Acquire));
        if application.in_place.load(Ordering::Relaxed) != 0 {
            self.streams.prefer_window(id);
        }
        let Some(half) = self.streams.send_half(id) else { return };
        let room = entry.buffer.as_ref().map_or(0, SendBuffer::size);
        // The tail is another party's word: what does not fit into the buffer was not written.
        let lends = self.borrow.is_some_and(|(stream, _)| stream == id);
        if !lends && tail > half.tail() && tail.saturating_since(half.confirmed()) <= room {
            // Fails if the half was finished or stopped, which the cell says already.
            let _ = self.streams.write(id, tail);
        }
        if application.buffer_state.load(Ordering::Acquire) == buffer::WANTED {
            self.supply_buffer(now, id, wanted, tenants);
        }
    }

    /// The application read.
    pub(crate) fn on_consumed(&mut self, now: Timestamp, id: StreamId) {
        let Some(entry) = self.table.get(id.0) else { return };
        let upto = entry.cell.state().application.consumed.load(Ordering::Acquire);
        if !self.streams.consume(now, id, StreamOffset::new(upto)) {
            tracing::debug!(?id, upto, "the application claims to have read what is not there");
        }
    }

    pub(crate) fn next_timeout(
        &self,
        now: Timestamp,
        group: &Group<C, Carried>,
        outage: Duration,
    ) -> Option<Timestamp> {
        let buffers = self.idle_buffers.front().map(|(at, ..)| *at);
        let channels = self
            .owing
            .iter()
            .filter_map(|number| group.channel(*self.channels.get(number)?)?.state().next_timeout())
            .min();
        let failover = self.failover.next_timeout(now, outage);
        [buffers, self.streams.next_timeout(), channels, failover].into_iter().flatten().min()
    }
}
