//! What the engine keeps per peer.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use netchannel_driver::{ChannelKey, Group};
use netchannel_scheduler::{ChannelView, Scheduler};
use netchannel_units::{ChannelId, Duration, StreamOffset, Timestamp};
use netchannel_verbs::Context;
use netchannel_vns::pool::SLAB_LOG2;
use netchannel_vns::streams::IdHasher;
use netchannel_vns::{Carried, SlabId, Streams};
use netchannel_wire::StreamId;

use crate::application::{Application, ApplicationId};
use crate::cell::{Cell, CellState, buffer};
use crate::engine::buffers::{SendBuffer, vacancy};
use crate::engine::failover::Failover;
use crate::engine::tenants::Tenants;
use crate::ready::Watchers;
use crate::region::RegionId;
use crate::shared::SessionShared;

/// A send buffer whose bytes are all confirmed is taken back after this long.
const IDLE_BUFFER: Duration = Duration::from_millis(100);

/// One that has held nothing for this long goes to the next stream that wants one, so that many
/// streams that write once in turn touch few pages.
const LENT_AFTER: Duration = Duration::from_millis(5);
/// Idle streams that are looked at for one send buffer.
const RECLAIM_ATTEMPTS: usize = 8;
/// Entries that an empty queue of idle buffers has room for.
const IDLE_CAPACITY: usize = 64;

/// Bytes that an application lends for the time of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Borrow {
    pub(crate) address: *const u8,
    pub(crate) start: StreamOffset,
    pub(crate) end: StreamOffset,
}

// SAFETY: lives only within `Engine::write_borrowed`, on the thread that lends the bytes.
unsafe impl Send for Borrow {}

/// A stream as the engine sees it, beside its state in [`Streams`].
#[derive(Debug)]
pub(crate) struct EngineStream {
    /// Whose stream it is.
    pub(crate) application: ApplicationId,
    /// The application has let go.
    pub(crate) released: bool,
    pub(crate) cell: Cell,
    pub(crate) buffer: Option<SendBuffer>,
    /// Who hears of the stream without waiting for it. Most streams have nobody.
    pub(crate) watchers: Option<Box<Watchers>>,
    /// Number of the newest window that the application knows.
    pub(crate) generation: u32,
    in_idle_queue: bool,
}

impl EngineStream {
    pub(crate) fn new(application: ApplicationId, cell: Cell) -> Self {
        let (released, in_idle_queue) = (false, false);
        Self {
            application,
            released,
            cell,
            buffer: None,
            watchers: None,
            generation: 0,
            in_idle_queue,
        }
    }
}

/// A slab of receive windows, leased to this session.
pub(crate) struct WindowSlab<C: Context> {
    pub(crate) id: RegionId,
    /// Whose windows lie in it.
    pub(crate) application: Arc<Application>,
    // Declared last, dropped last: its number is free before its memory goes.
    pub(crate) region: C::MemoryRegion,
}

impl<C: Context> Drop for WindowSlab<C> {
    fn drop(&mut self) {
        self.application.remove_region(self.id);
    }
}

/// Takes the send buffer away from the application. False if that uses it at the moment.
fn withdraw(state: &CellState) -> bool {
    state
        .application
        .buffer_state
        .compare_exchange(buffer::IDLE, buffer::NONE, Ordering::AcqRel, Ordering::Relaxed)
        .is_ok()
}

pub(crate) type StreamTable = HashMap<u32, EngineStream, BuildHasherDefault<IdHasher>>;

/// Stream bytes that a Channel carried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Payload {
    pub(crate) confirmed: u64,
    pub(crate) received: u64,
}

/// Some of a session's Channels: most passes concern one or two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChannelSet(u64);

impl ChannelSet {
    pub(crate) fn insert(&mut self, number: usize) {
        debug_assert!(number < 64, "`Config::check` allows 64 Channels");
        self.0 |= 1 << (number & 63);
    }

    pub(crate) fn remove(&mut self, number: usize) {
        self.0 &= !(1 << (number & 63));
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The numbers, ascending.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let number = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (number < 64).then_some(number as usize)
        })
    }
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
    pub(crate) views: Vec<ChannelView>,
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
    /// Stream bytes per Channel: confirmed by the peer, and received.
    pub(crate) payload: Vec<Payload>,
    /// Messages per Channel (and whether they elicit an acknowledgement) that must not be
    /// acknowledged before what was refused of them: a peer forgets what is acknowledged.
    pub(crate) held: Vec<Vec<bool>>,
    /// Channels with entries in `held`.
    pub(crate) holding: ChannelSet,
    /// Channels with a draft.
    pub(crate) drafts: ChannelSet,
    /// Channels that may owe an acknowledgement or have a timer.
    pub(crate) owing: ChannelSet,
    /// What outlives the Channels' queue pairs.
    pub(crate) failover: Failover,
    /// Failed or closed: waits for the applications to let go.
    pub(crate) over: bool,
    /// When to look, which stream, and its tail when it was noted.
    idle_buffers: VecDeque<(Timestamp, StreamId, StreamOffset)>,
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
            payload,
            held,
            holding: ChannelSet::default(),
            drafts: ChannelSet::default(),
            owing: ChannelSet::default(),
            shared,
            streams,
            scheduler,
            channels,
            numbers,
            views: Vec::new(),
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

    /// The peer has processed what a message of Channel `number` carried.
    pub(crate) fn confirm(&mut self, number: usize, carried: &[Carried]) {
        for item in carried {
            if let Carried::Chunk { range, .. } = item {
                self.payload[number].confirmed += range.len();
            }
            self.streams.on_confirmed(item);
        }
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

    /// Bytes of receive windows of an application.
    pub(crate) fn slab_bytes(&self, application: ApplicationId) -> u64 {
        let slabs = self.slabs.iter().flatten();
        (slabs.filter(|slab| slab.application.id == application).count() as u64) << SLAB_LOG2
    }

    /// What the application lends for `id` at the moment.
    pub(crate) fn borrowed(&self, id: StreamId) -> Option<Borrow> {
        self.borrow.filter(|(stream, _)| *stream == id).map(|(_, borrow)| borrow)
    }

    /// Whether there is such a stream, and it is this application's to use.
    pub(super) fn belongs_to(&self, id: StreamId, application: ApplicationId) -> bool {
        let entry = self.table.get(&id.0);
        entry.is_some_and(|entry| entry.application == application && !entry.released)
    }

    /// The application wrote, or wants a buffer to write into.
    pub(super) fn on_written(&mut self, now: Timestamp, id: StreamId, tenants: &mut Tenants<C>) {
        let Some(entry) = self.table.get_mut(&id.0) else { return };
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

    /// Leases a send buffer, or a larger one if the old one is empty.
    pub(super) fn supply_buffer(
        &mut self,
        now: Timestamp,
        id: StreamId,
        bytes: u64,
        tenants: &mut Tenants<C>,
    ) {
        let Some(entry) = self.table.get_mut(&id.0) else { return };
        let Some(buffers) = tenants.buffers(entry.application) else { return };
        let Some(half) = self.streams.send_half(id) else { return };
        if let Some(old) = &entry.buffer {
            let state = &entry.cell.state().application.buffer_state;
            let wanted = state.load(Ordering::Acquire) == buffer::WANTED;
            if half.confirmed() < half.tail() || old.size() >= bytes {
                if wanted {
                    // It may go on with the one it has.
                    state.store(buffer::IDLE, Ordering::Release);
                    self.streams.touch(id);
                }
                return;
            }
            // Who wants another has let go of the old one.
            if !wanted && !withdraw(entry.cell.state()) {
                return;
            }
            entry.buffer.take().into_iter().for_each(|old| buffers.release(old));
        }
        let application = entry.application;
        self.reclaim_buffers(now, application, bytes, tenants);
        let Some(buffers) = tenants.buffers(application) else { return };
        let Some(entry) = self.table.get_mut(&id.0) else { return };
        let state = entry.cell.state();
        let answer = match buffers.lease(bytes) {
            Ok(new) => {
                state.engine.buffer_place.store(buffers.place(&new), Ordering::Relaxed);
                state.engine.buffer_log2.store(u32::from(new.log2()), Ordering::Relaxed);
                entry.buffer = Some(new);
                buffer::IDLE
            }
            Err(error) => {
                // The application asks again; other buffers come back meanwhile.
                tracing::debug!(%error, "no send buffer");
                buffer::NONE
            }
        };
        state.application.buffer_state.store(answer, Ordering::Release);
        self.streams.touch(id);
    }

    /// The application read.
    pub(crate) fn on_consumed(&mut self, now: Timestamp, id: StreamId) {
        let Some(entry) = self.table.get(&id.0) else { return };
        let upto = entry.cell.state().application.consumed.load(Ordering::Acquire);
        if !self.streams.consume(now, id, StreamOffset::new(upto)) {
            tracing::debug!(?id, upto, "the application claims to have read what is not there");
        }
    }

    /// Notes that a stream's send buffer holds nothing now.
    pub(crate) fn note_idle_buffer(&mut self, now: Timestamp, id: StreamId) {
        if let Some(entry) = self.table.get_mut(&id.0)
            && entry.buffer.is_some()
            && !entry.in_idle_queue
        {
            entry.in_idle_queue = true;
            let tail = self.streams.send_half(id).map_or(StreamOffset::ZERO, |half| half.tail());
            self.idle_buffers.push_back((now + IDLE_BUFFER, id, tail));
        }
    }

    /// Gives back what was idle for long.
    pub(super) fn on_timeout(&mut self, now: Timestamp, tenants: &mut Tenants<C>) {
        if self.streams.next_timeout().is_some_and(|at| at <= now) {
            self.streams.on_timeout(now);
        }
        while let Some(&(at, id, noted)) = self.idle_buffers.front()
            && at <= now
        {
            self.idle_buffers.pop_front();
            let Some(entry) = self.table.get_mut(&id.0) else { continue };
            entry.in_idle_queue = false;
            let Some(half) = self.streams.send_half(id) else { continue };
            if half.tail() == noted {
                self.take_buffer_back(id, tenants);
            } else {
                // In use since then.
                self.note_idle_buffer(now, id);
            }
        }
        if self.idle_buffers.is_empty() {
            self.idle_buffers.shrink_to(IDLE_CAPACITY);
        }
    }

    /// Takes the send buffer of a stream that has no byte in it, and forgets what the scheduler
    /// knows of such a stream.
    fn take_buffer_back(&mut self, id: StreamId, tenants: &mut Tenants<C>) {
        let lends = self.borrowed(id).is_some();
        let Some(entry) = self.table.get_mut(&id.0) else { return };
        let Some(buffers) = tenants.buffers(entry.application) else { return };
        let Some(half) = self.streams.send_half(id) else { return };
        let state = entry.cell.state();
        // Bytes of which we have not heard yet may lie in it.
        let unseen = || state.application.tail.load(Ordering::Acquire) > half.confirmed().get();
        if lends || half.confirmed() < half.tail() || unseen() || !withdraw(state) {
            return;
        }
        if unseen() {
            // The writer came and went between the two looks.
            state.application.buffer_state.store(buffer::IDLE, Ordering::Release);
            return;
        }
        entry.buffer.take().into_iter().for_each(|old| buffers.release(old));
        self.streams.on_send_idle(id);
        self.scheduler.remove(netchannel_scheduler::StreamKey(u64::from(id.0)));
    }

    /// Takes buffers from streams of an application that have no use for them just now, the longest
    /// idle first, while there is none of `bytes` bytes or they have been idle for a while; gives up
    /// soon if those in front do have a use.
    fn reclaim_buffers(
        &mut self,
        now: Timestamp,
        application: ApplicationId,
        bytes: u64,
        tenants: &mut Tenants<C>,
    ) {
        for _ in 0..RECLAIM_ATTEMPTS {
            let has = tenants.buffers(application).is_none_or(|buffers| buffers.has(bytes));
            let Some(&(at, id, noted)) = self.idle_buffers.front() else { return };
            if has && at > now + (IDLE_BUFFER - LENT_AFTER) {
                return;
            }
            self.idle_buffers.pop_front();
            let Some(entry) = self.table.get_mut(&id.0) else { continue };
            entry.in_idle_queue = false;
            let entry_application = entry.application;
            let idle = self.streams.send_half(id).is_some_and(|half| half.tail() == noted);
            if idle || (!has && entry_application == application) {
                self.take_buffer_back(id, tenants);
            }
            self.note_idle_buffer(now, id);
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
