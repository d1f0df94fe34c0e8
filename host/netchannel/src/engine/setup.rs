//! Sessions and streams come and go.

use std::sync::Arc;

use netchannel_channel::{AckPolicy, ChannelConfig, Controller};
use netchannel_driver::{ChannelKey, Group, GroupConfig};
use netchannel_scheduler::{Scheduler, SchedulerConfig, StreamKey as SchedulerKey};
use netchannel_units::{Bandwidth, ChannelId, Class, Duration, Timestamp};
use netchannel_verbs::context::AsyncEvent;
use netchannel_verbs::queue_pair::ConnectOptions;
use netchannel_verbs::{Access, Context, Endpoint, SourcePort};
use netchannel_vns::Streams;
use netchannel_vns::pool::SLAB_LOG2;
use netchannel_vns::send::SendState;
use netchannel_vns::streams::{Role, StreamsConfig};
use netchannel_wire::StreamId;
use netchannel_wire::control::ChannelMessage;
use netchannel_wire::frame::{MessageHeader, reset};

use crate::application::{Application, ApplicationId, Export};
use crate::cell::{Cell, flags};
use crate::config::Config;
use crate::engine::doorbells::Doorbells;
use crate::engine::failover::Failover;
use crate::engine::session::{EngineStream, Payload, Session, WindowSlab};
use crate::engine::tenants::Tenants;
use crate::engine::{Engine, MAX_SESSIONS, StreamKey};
use crate::error::Error;
use crate::listener::Backlog;
use crate::port;
use crate::ready::EngineList;
use crate::shared::{Command, GroupShared, SessionShared, StreamSeed, lock};

/// Bytes that a stream may send before it has a window: a receive slot's worth or two, a round
/// trip at low rates.
pub(crate) const EAGER_CREDIT: u64 = 16_384;
/// Channels that an engine has room for, over all sessions.
const MAX_CHANNELS: u32 = 256;
/// Ready lists of a runtime at once: one per application thread, as a rule.
pub(crate) const MAX_LISTS: usize = 4_096;
/// The same of a latency group, where a session has one or two.
const MAX_LATENCY_CHANNELS: u32 = 128;

/// Sizes of a group of this class. Latency streams have few and short messages in flight.
fn group_config(class: Class) -> GroupConfig {
    match class {
        Class::Latency => GroupConfig {
            channels: MAX_LATENCY_CHANNELS,
            send_slots: 32,
            send_depth: 128,
            ..GroupConfig::default()
        },
        Class::Throughput => GroupConfig { channels: MAX_CHANNELS, ..GroupConfig::default() },
    }
}

/// How SoftRoCE devices describe themselves.
pub(super) const SOFTWARE_NIC: &str = "SoftRoCE";

/// What a session needs that its two ends agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionTerms {
    pub(crate) role: Role,
    pub(crate) peer_slots: u32,
    pub(crate) peer_slot_bytes: u32,
    pub(crate) peer_eager_credit: u64,
    /// Both can replace Channels.
    pub(crate) failover: bool,
    /// Number of the group in the session.
    pub(crate) group: u8,
}

/// Counters of one Channel.
#[derive(Clone, Debug)]
pub(crate) struct ChannelReport {
    pub(crate) session: u32,
    pub(crate) id: ChannelId,
    pub(crate) queue_pair: u32,
    pub(crate) source_port: Option<SourcePort>,
    pub(crate) payload: Payload,
    pub(crate) stats: netchannel_channel::ChannelStats,
    pub(crate) rate: Bandwidth,
    pub(crate) completion_time: Option<Duration>,
}

/// Set-up operations, the same for every provider.
pub(crate) trait EngineControl: Send {
    /// Makes `channels` unconnected Channels; returns their keys and endpoints.
    fn make_channels(
        &mut self,
        channels: u16,
        peer_slots: u32,
    ) -> Result<Vec<(ChannelKey, Endpoint)>, Error>;

    /// Takes back Channels that no session got.
    fn drop_channels(&mut self, keys: &[ChannelKey]);

    /// Connects Channels to the peer's endpoints, in order.
    fn connect_channels(
        &mut self,
        pairs: &[(ChannelKey, Endpoint)],
        peer_slots: u32,
    ) -> Result<(), Error>;

    /// Makes this engine's part of a session of connected Channels and their numbers in the
    /// session; returns its slot.
    fn add_session(
        &mut self,
        shared: Arc<SessionShared>,
        terms: SessionTerms,
        channels: Vec<(ChannelKey, ChannelId)>,
    ) -> Result<u32, Error>;

    /// Ends this part of a session; its streams fail with `error`. Does nothing if the slot belongs to another
    /// one by now.
    fn end_session(&mut self, slot: u32, session: &Arc<SessionShared>, error: Error);

    /// Whether streams of this session wait for the confirmation of their end.
    fn is_finishing(&self, slot: u32, session: &Arc<SessionShared>) -> bool;

    /// The peer said something of a Channel of this session; false if it is none of this part.
    fn on_channel_news(
        &mut self,
        now: Timestamp,
        slot: u32,
        session: &Arc<SessionShared>,
        message: &ChannelMessage,
    ) -> bool;

    /// Makes the queue pairs that sessions asked for.
    fn make_wanted(&mut self, now: Timestamp);

    /// The device says something.
    fn on_device_event(&mut self, now: Timestamp, event: AsyncEvent);

    /// Breaks a Channel that is up, as a fault would; false if there is none.
    fn break_channel(&mut self, now: Timestamp, number: usize) -> bool;

    /// Gives a session a slab of receive windows made by [`SlabMaker`].
    fn add_slab(&mut self, slot: u32, slab: Box<dyn std::any::Any + Send>);

    /// Opens a stream for an application.
    fn open_stream(
        &mut self,
        slot: u32,
        application: ApplicationId,
        service: u16,
        class: Class,
    ) -> Result<StreamSeed, Error>;

    /// An application of another process may have streams from now on.
    fn add_application(&mut self, application: Arc<Application>);

    /// The process of an application is gone, and with it its streams.
    fn end_application(&mut self, id: ApplicationId);

    /// Counters of all Channels.
    fn channels(&self) -> Vec<ChannelReport>;

    /// Streams that their applications let go and whose bytes are not all confirmed.
    fn unfinished(&self) -> usize;

    /// The same of one application.
    fn unfinished_of(&self, id: ApplicationId) -> usize;

    /// Number of streams alive, and the numbers of the sessions.
    fn census(&self) -> (usize, Vec<u32>);
}

/// Makes slabs of receive windows off the polling cores.
pub(crate) trait SlabMaker: Send {
    /// A slab, for [`EngineControl::add_slab`].
    fn make(&self, application: &Arc<Application>) -> Result<Box<dyn std::any::Any + Send>, Error>;
}

impl<C: Context> SlabMaker for C {
    fn make(&self, application: &Arc<Application>) -> Result<Box<dyn std::any::Any + Send>, Error> {
        use netchannel_verbs::MemoryRegion;
        let (len, access) = (1 << SLAB_LOG2, Access::LOCAL_WRITE | Access::REMOTE_WRITE);
        let (region, fd) = match application.is_attached() {
            false => (self.alloc(len, access)?, None),
            true => self.alloc_shared(len, access).map(|(region, fd)| (region, Some(fd)))?,
        };
        let export = || {
            let fd = fd.ok_or(Error::NoMemory { what: "memory to share" })?;
            Ok(Export { fd, len: region.len(), writable: false })
        };
        let id = application.add_region(region.as_ptr(), export)?;
        Ok(Box::new(WindowSlab::<C> { id, application: Arc::clone(application), region }))
    }
}

impl<C: Context> Engine<C> {
    /// An engine without sessions.
    pub(crate) fn new(context: C, config: Config, shared: Arc<GroupShared>) -> Result<Self, Error> {
        let group = Group::new(context.clone(), group_config(shared.class))?;
        let local = Arc::clone(&shared.runtime.local);
        Ok(Self {
            group,
            sessions: Vec::new(),
            owners: Vec::new(),
            tenants: Tenants::new(context.clone(), local),
            ports: Vec::new(),
            doorbells: Doorbells::new()?,
            lists: Vec::new(),
            shared,
            config,
            context,
            events: Vec::new(),
            touched: Vec::new(),
            last_poll: Timestamp::ZERO,
            look_at: Timestamp::MAX,
            share: Default::default(),
            turn: 0,
        })
    }

    fn streams_config(&self, terms: &SessionTerms) -> StreamsConfig {
        let direct = self.context.attributes().moves_bytes_while_posting();
        let slot = self.group.config().slot_bytes.min(terms.peer_slot_bytes) as u64;
        let overhead = (MessageHeader::LEN + netchannel_wire::encode::DATA_OVERHEAD) as u64;
        StreamsConfig {
            role: terms.role,
            eager_credit: EAGER_CREDIT,
            peer_eager_credit: terms.peer_eager_credit,
            window_log2: self.config.window.trailing_zeros() as u8,
            eager_chunk: slot - overhead,
            // A WRITE and its announcement are two packets and two requests; the soft NIC makes
            // up for that with every copy saved, a real one only above a packet.
            bulk_min: if direct { 1_024 } else { 4_096 },
        }
    }

    /// An acknowledgement of its own costs a NIC a message and three packets, so it waits longer for
    /// company there than where it costs a cache line.
    fn ack_delay(&self) -> Duration {
        if self.context.attributes().moves_bytes_while_posting() {
            AckPolicy::default().delay
        } else {
            Duration::from_micros(200)
        }
    }

    pub(super) fn channel_config(&self, peer_slots: u32) -> Result<ChannelConfig, Error> {
        let config = ChannelConfig {
            receive_slots: self.group.config().receive_slots,
            peer_slots,
            send_queue: self.group.config().send_slots,
            acks: AckPolicy { delay: self.ack_delay(), ..AckPolicy::default() },
        };
        config.check().map_err(|e| Error::Config { reason: e.to_string() })?;
        Ok(config)
    }

    /// SoftRoCE sends packets with a processor that other work shares, at times an emulated one:
    /// its queue takes longer than the timeout that suits a NIC, and what is sent again comes on
    /// top. Dead peers are the keepalive's business there.
    pub(super) fn connect_options(&self) -> ConnectOptions {
        let software = self.context.attributes().description.contains(SOFTWARE_NIC);
        let ack_timeout = if software { Some(Duration::from_micros(1_073_741)) } else { None };
        let default = ConnectOptions::default();
        let path = self.config.path_of(self.shared.class);
        ConnectOptions {
            ack_timeout: ack_timeout.unwrap_or(default.ack_timeout),
            traffic_class: path.traffic_class,
            service_level: path.service_level,
            ..default
        }
    }

    fn scheduler_config(&self) -> SchedulerConfig {
        let direct = self.context.attributes().moves_bytes_while_posting();
        let chunk = match self.config.chunk {
            // In the cache of the core that copies, and of the one that reads meanwhile.
            0 if direct => 128 << 10,
            0 => 256 << 10,
            bytes => bytes as u64,
        };
        self.fit_to_port(SchedulerConfig {
            policy: self.config.policy,
            chunk,
            // A peer that loses its processor for a time slice makes a Channel look slow; work for
            // a millisecond keeps the others going until it is measured again.
            target_delay: Some(Duration::from_millis(1)),
            // Packets per byte stay near those of plain WRITEs however slow a Channel looks.
            min_chunk: if direct { chunk / 2 } else { chunk },
            gather: match self.config.gather {
                Some(bytes) => bytes as u64,
                None if direct => 0,
                // With whole chunks a window of 1 MiB would not keep four Channels busy.
                None => chunk / 2,
            },
            ..SchedulerConfig::default()
        })
    }

    /// Ends every session: the device or a queue of the group broke.
    pub(super) fn fail_all(&mut self, error: &Error) {
        for slot in 0..self.sessions.len() {
            self.fail_session(slot as u32, error.clone());
        }
    }

    /// Ends a session: Channels go, applications learn why.
    pub(super) fn fail_session(&mut self, slot: u32, error: Error) {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        if session.over {
            return;
        }
        tracing::debug!(peer = %session.shared.peer, %error, "session over");
        session.over = true;
        session.attention = true;
        session.shared.fail(error);
        for key in session.channels.drain(..) {
            self.owners[usize::from(key.0)] = None;
            self.group.remove_channel(key);
        }
        for entry in session.table.values() {
            let state = entry.cell.state();
            state.engine.flags.fetch_or(flags::DEAD, std::sync::atomic::Ordering::Release);
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        for entry in session.table.values() {
            super::publish::tell(&self.ports, &mut self.lists, entry);
        }
        self.shared.runtime.ask_helper();
    }

    /// Frees a session that is over once every application has let go of its streams.
    pub(super) fn bury(&mut self, slot: u32) -> bool {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return false };
        if session.attached > 0 {
            return false;
        }
        let Some(session) = self.sessions[slot as usize].take() else { return false };
        self.shared.counters.sessions.sub(1);
        self.shared.counters.streams.sub(session.table.len() as u64);
        for (_, entry) in session.table {
            self.tenants.settle(entry);
        }
        self.see_off();
        true
    }

    /// Streams that both sides are done with.
    pub(super) fn collect_closed(&mut self, slot: u32) {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        while let Some(id) = session.streams.poll_closed() {
            session.scheduler.remove(SchedulerKey(u64::from(id.0)));
            if let Some(entry) = session.table.remove(&id.0) {
                self.shared.counters.streams.sub(1);
                self.tenants.settle(entry);
            }
        }
        while let Some(id) = session.streams.take_slab_demand() {
            let Some(application) = self.tenants.application(id) else { continue };
            let held = session.slab_bytes(id);
            if held + (1 << SLAB_LOG2) <= self.config.session_memory as u64 {
                lock(&self.shared.slab_demand).push((slot, Arc::clone(application)));
                self.shared.runtime.ask_helper();
            }
        }
    }

    /// Gives streams that the peer opened to their listeners.
    pub(super) fn take_incoming(&mut self, slot: u32) {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        while let Some(incoming) = session.streams.poll_incoming() {
            let listener = lock(&self.shared.runtime.listeners).get(&incoming.service).cloned();
            let outcome = match listener {
                None => Err(reset::REFUSED),
                Some(backlog) => {
                    offer(&self.shared, slot, session, &mut self.tenants, &incoming, &backlog)
                }
            };
            if let Err(code) = outcome {
                session.streams.refuse(incoming.stream, code);
            }
        }
    }

    pub(super) fn take_inbox(&mut self) -> bool {
        let commands = self.shared.inbox.take();
        let any = !commands.is_empty();
        for (application, command) in commands {
            self.on_command(application, command);
        }
        self.drop_closed_ports();
        any
    }

    /// Ports of threads that are gone. Their last doorbells may not have been heard yet.
    pub(super) fn drop_closed_ports(&mut self) {
        let mut index = 0;
        while let Some(port) = self.ports.get(index) {
            if !port.is_closed() {
                index += 1;
                continue;
            }
            let mut port = self.ports.swap_remove(index);
            self.doorbells.remove(&port);
            for _ in 0..port::CAPACITY {
                let Some(doorbell) = port.pop() else { break };
                self.on_doorbell(port.application(), doorbell);
            }
        }
    }

    fn add_list(&mut self, list: EngineList) {
        let index = list.number as usize;
        if index >= MAX_LISTS {
            tracing::warn!(index, "no more ready lists");
            return;
        }
        if self.lists.len() <= index {
            self.lists.resize_with(index + 1, || None);
        }
        self.lists[index] = Some(list);
    }

    fn remove_list(&mut self, application: ApplicationId, number: u32) {
        if let Some(list) = self.lists.get_mut(number as usize)
            && list.as_ref().is_some_and(|list| list.application() == application)
        {
            *list = None;
        }
    }

    fn on_command(&mut self, application: ApplicationId, command: Command) {
        let key = match command {
            Command::Port(port) => {
                if !self.tenants.is_here(port.application()) {
                    return;
                }
                // Its thread may have noted itself somewhere already: a wake-up meant for it found
                // no port until now, so it looks once more.
                if let Err(error) = port.shared.wake.notify() {
                    tracing::warn!(%error, "cannot wake an application thread");
                }
                self.doorbells.add(&port);
                self.ports.push(*port);
                return;
            }
            Command::List(list) => return self.add_list(*list),
            Command::Unlist(number) => return self.remove_list(application, number),
            Command::Watch(ref watch) => watch.stream,
            Command::Finish(key)
            | Command::Reset(key, _)
            | Command::Stop(key, _)
            | Command::Release(key) => key,
        };
        let Some(Some(session)) = self.sessions.get_mut(key.session() as usize) else { return };
        let id = key.stream();
        if !session.belongs_to(id, application) {
            return;
        }
        session.attention = true;
        match command {
            Command::Port(_) | Command::List(_) | Command::Unlist(_) => {}
            Command::Watch(watch) => {
                if let Some(entry) = session.table.get_mut(&id.0) {
                    let watchers = entry.watchers.get_or_insert_default();
                    watchers.set(watch.direction, watch.target);
                    super::publish::tell(&self.ports, &mut self.lists, entry);
                }
            }
            Command::Finish(_) => {
                // The last bytes may not have rung yet.
                session.on_written(self.last_poll, id, &mut self.tenants);
                session.streams.finish(id);
            }
            Command::Reset(_, code) => session.streams.reset(id, code),
            Command::Stop(_, code) => session.streams.stop(id, code),
            Command::Release(_) => {
                session.attached -= 1;
                if let Some(entry) = session.table.get_mut(&id.0) {
                    entry.released = true;
                }
                if session.over {
                    return;
                }
                session.on_written(self.last_poll, id, &mut self.tenants);
                session.streams.release(id, reset::CANCELLED);
            }
        }
    }
}

fn attach<C: Context>(
    group: &GroupShared,
    slot: u32,
    session: &mut Session<C>,
    application: ApplicationId,
    id: StreamId,
    class: Class,
    cell: Cell,
) -> StreamSeed {
    session.table.insert(id.0, EngineStream::new(application, cell.clone()));
    session.attached += 1;
    group.counters.streams.add(1);
    let key = StreamKey::new(group.id, slot, id);
    StreamSeed { key, cell, session: Arc::clone(&session.shared), class }
}

fn offer<C: Context>(
    group: &GroupShared,
    slot: u32,
    session: &mut Session<C>,
    tenants: &mut Tenants<C>,
    incoming: &netchannel_vns::streams::Incoming,
    backlog: &Backlog,
) -> Result<(), u32> {
    if backlog.is_full() {
        return Err(reset::BUSY);
    }
    let application = backlog.application();
    if session.streams.application(incoming.stream) != Some(application) {
        // The listener has come since the stream was opened: its bytes may lie elsewhere.
        if !session.streams.assign(incoming.stream, application) {
            return Err(reset::BUSY);
        }
    }
    let cell = tenants.take_cell(application).map_err(|_| reset::BUSY)?;
    let seed = attach(group, slot, session, application, incoming.stream, incoming.class, cell);
    if let Err(seed) = backlog.push(seed) {
        // The listener went away this moment.
        session.table.remove(&incoming.stream.0);
        session.attached -= 1;
        group.counters.streams.sub(1);
        tenants.give_cell(application, seed.cell);
        return Err(reset::REFUSED);
    }
    Ok(())
}

impl<C: Context> EngineControl for Engine<C> {
    fn make_channels(
        &mut self,
        channels: u16,
        peer_slots: u32,
    ) -> Result<Vec<(ChannelKey, Endpoint)>, Error> {
        let config = self.channel_config(peer_slots)?;
        let mut made: Vec<(ChannelKey, Endpoint)> = Vec::new();
        for number in 0..channels {
            let controller: Controller = self.config.congestion.clone();
            match self.group.add_channel(ChannelId(number), config, controller) {
                Ok(key) => {
                    let endpoint = self.group.channel(key).map(|c| c.endpoint());
                    made.extend(endpoint.map(|endpoint| (key, endpoint)));
                }
                Err(error) => {
                    for (key, _) in made {
                        self.group.remove_channel(key);
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(made)
    }

    fn drop_channels(&mut self, keys: &[ChannelKey]) {
        for key in keys {
            self.group.remove_channel(*key);
        }
    }

    fn connect_channels(
        &mut self,
        pairs: &[(ChannelKey, Endpoint)],
        peer_slots: u32,
    ) -> Result<(), Error> {
        let config = self.channel_config(peer_slots)?;
        let options = self.connect_options();
        for (key, endpoint) in pairs {
            if let Some(channel) = self.group.channel_mut(*key) {
                // Nothing was sent yet: the peer's number of slots is known only now.
                channel.set_state(config, self.config.congestion.clone());
                channel.connect(endpoint, &options)?;
            }
        }
        Ok(())
    }

    fn add_session(
        &mut self,
        shared: Arc<SessionShared>,
        terms: SessionTerms,
        channels: Vec<(ChannelKey, ChannelId)>,
    ) -> Result<u32, Error> {
        let streams = Streams::new(self.streams_config(&terms));
        let scheduler = Scheduler::new(self.scheduler_config());
        let slot = match self.sessions.iter().position(Option::is_none) {
            Some(slot) => slot,
            None if self.sessions.len() >= MAX_SESSIONS as usize => {
                return Err(Error::NoMemory { what: "names of sessions" });
            }
            None => {
                self.sessions.push(None);
                self.sessions.len() - 1
            }
        };
        for (number, (key, _)) in channels.iter().enumerate() {
            let index = usize::from(key.0);
            if self.owners.len() <= index {
                self.owners.resize(index + 1, None);
            }
            self.owners[index] = Some((slot as u32, number as u16));
        }
        let failover = Failover::new(self.last_poll, channels.len(), &terms);
        let session = Session::new(shared, streams, scheduler, channels, failover);
        self.sessions[slot] = Some(session);
        self.shared.counters.sessions.add(1);
        Ok(slot as u32)
    }

    fn end_session(&mut self, slot: u32, session: &Arc<SessionShared>, error: Error) {
        let found = self.sessions.get(slot as usize).and_then(Option::as_ref);
        if found.is_some_and(|found| Arc::ptr_eq(&found.shared, session)) {
            self.fail_session(slot, error);
        }
    }

    fn is_finishing(&self, slot: u32, session: &Arc<SessionShared>) -> bool {
        let found = self.sessions.get(slot as usize).and_then(Option::as_ref);
        found.filter(|found| Arc::ptr_eq(&found.shared, session) && !found.over).is_some_and(
            |found| {
                found.table.keys().any(|id| {
                    let half = found.streams.send_half(StreamId(*id));
                    half.is_some_and(|half| half.state() == SendState::Finishing)
                })
            },
        )
    }

    fn on_channel_news(
        &mut self,
        now: Timestamp,
        slot: u32,
        session: &Arc<SessionShared>,
        message: &ChannelMessage,
    ) -> bool {
        let found = self.sessions.get(slot as usize).and_then(Option::as_ref);
        found.is_some_and(|found| Arc::ptr_eq(&found.shared, session))
            && self.on_channel_news(now, slot, message)
    }

    fn make_wanted(&mut self, now: Timestamp) {
        let wanted = std::mem::take(&mut *lock(&self.shared.renewals));
        for slot in wanted {
            self.make_wanted(now, slot);
        }
    }

    fn on_device_event(&mut self, now: Timestamp, event: AsyncEvent) {
        self.on_device_event(now, event);
    }

    fn break_channel(&mut self, now: Timestamp, number: usize) -> bool {
        self.break_channel(now, number)
    }

    fn add_slab(&mut self, slot: u32, slab: Box<dyn std::any::Any + Send>) {
        let Ok(slab) = slab.downcast::<WindowSlab<C>>() else { return };
        match self.sessions.get_mut(slot as usize) {
            Some(Some(session)) if !session.over && self.tenants.is_here(slab.application.id) => {
                session.add_slab(*slab);
            }
            _ => self.shared.runtime.discard(slab),
        }
    }

    fn open_stream(
        &mut self,
        slot: u32,
        application: ApplicationId,
        service: u16,
        class: Class,
    ) -> Result<StreamSeed, Error> {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else {
            return Err(Error::Closed);
        };
        if session.over {
            return Err(session.shared.error());
        }
        let cell = self.tenants.take_cell(application)?;
        session.attention = true;
        let id = match session.streams.open(service, class) {
            Ok(id) => id,
            Err(error) => {
                self.tenants.give_cell(application, cell);
                return Err(Error::Stream(error));
            }
        };
        session.streams.assign(id, application);
        Ok(attach(&self.shared, slot, session, application, id, class, cell))
    }

    fn channels(&self) -> Vec<ChannelReport> {
        let mut reports = Vec::new();
        for session in self.sessions.iter().flatten() {
            for (number, key) in session.channels.iter().enumerate() {
                let Some(channel) = self.group.channel(*key) else { continue };
                reports.push(ChannelReport {
                    session: session.shared.number,
                    id: session.numbers[number],
                    queue_pair: channel.queue_pair_number(),
                    source_port: channel.source_port(),
                    payload: session.payload[number],
                    stats: session.failover.total(number, channel.state().stats()),
                    rate: channel.state().rate(),
                    completion_time: channel.state().completion_time(),
                });
            }
        }
        reports
    }

    fn unfinished(&self) -> usize {
        let alive = self.sessions.iter().flatten().filter(|s| !s.over);
        alive.map(|s| s.streams.released()).sum()
    }

    fn add_application(&mut self, application: Arc<Application>) {
        self.admit(application);
    }

    fn end_application(&mut self, id: ApplicationId) {
        self.dismiss(id);
    }

    fn unfinished_of(&self, id: ApplicationId) -> usize {
        self.unfinished_of(id)
    }

    fn census(&self) -> (usize, Vec<u32>) {
        let sessions = self.sessions.iter().flatten();
        let streams = sessions.clone().map(|s| s.streams.len()).sum();
        (streams, sessions.map(|s| s.shared.number).collect())
    }
}
