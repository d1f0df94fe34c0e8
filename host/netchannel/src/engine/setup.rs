//! Sessions and streams come and go.

use std::sync::Arc;

use netchannel_channel::Controller;
use netchannel_driver::{ChannelKey, Group};
use netchannel_scheduler::{Scheduler, StreamKey as SchedulerKey};
use netchannel_units::{ChannelId, Claim, Timestamp};
use netchannel_verbs::context::AsyncEvent;
use netchannel_verbs::{Context, Endpoint};
use netchannel_vns::Streams;
use netchannel_vns::pool::SLAB_LOG2;
use netchannel_vns::send::SendState;
use netchannel_wire::StreamId;
use netchannel_wire::control::ChannelMessage;
use netchannel_wire::frame::reset;

use crate::application::{Application, ApplicationId};
use crate::cell::{Cell, flags};
use crate::config::Config;
use crate::engine::control::{ChannelReport, EngineControl, SessionTerms};
use crate::engine::doorbells::Doorbells;
use crate::engine::failover::Failover;
use crate::engine::session::{EngineStream, Session, WindowSlab};
use crate::engine::settings::group_config;
use crate::engine::tenants::Tenants;
use crate::engine::{Engine, MAX_SESSIONS, StreamKey};
use crate::error::Error;
use crate::listener::Backlog;
use crate::shared::{GroupShared, SessionShared, SlabDemand, StreamSeed, lock};
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
            let application = self.tenants.application(id).cloned();
            let room = session.slab_room(id, self.config.session_memory >> SLAB_LOG2);
            let Some((application, room)) = application.zip(room) else {
                session.streams.on_slab_denied(id);
                continue;
            };
            lock(&self.shared.slab_demand).push(SlabDemand { slot, application, room });
            self.shared.runtime.ask_helper();
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
}

fn attach<C: Context>(
    group: &GroupShared,
    slot: u32,
    session: &mut Session<C>,
    application: ApplicationId,
    id: StreamId,
    claim: Claim,
    cell: Cell,
) -> StreamSeed {
    session.table.insert(id.0, EngineStream::new(application, cell.clone()));
    session.attached += 1;
    group.counters.streams.add(1);
    let key = StreamKey::new(group.id, slot, id);
    StreamSeed { key, cell, session: Arc::clone(&session.shared), claim }
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
    let seed = attach(group, slot, session, application, incoming.stream, incoming.claim, cell);
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

    fn deny_slab(&mut self, slot: u32, application: ApplicationId) {
        if let Some(Some(session)) = self.sessions.get_mut(slot as usize) {
            session.streams.on_slab_denied(application);
        }
    }

    fn open_stream(
        &mut self,
        slot: u32,
        application: ApplicationId,
        service: u16,
        claim: Claim,
    ) -> Result<StreamSeed, Error> {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else {
            return Err(Error::Closed);
        };
        if session.over {
            return Err(session.shared.error());
        }
        let cell = self.tenants.take_cell(application)?;
        session.attention = true;
        let id = match session.streams.open(service, claim) {
            Ok(id) => id,
            Err(error) => {
                self.tenants.give_cell(application, cell);
                return Err(Error::Stream(error));
            }
        };
        session.streams.assign(id, application);
        Ok(attach(&self.shared, slot, session, application, id, claim, cell))
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
