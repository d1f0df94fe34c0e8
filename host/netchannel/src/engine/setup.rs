//! Sessions and streams come and go.

use std::sync::Arc;

use netchannel_driver::Group;
use netchannel_scheduler::StreamKey as SchedulerKey;
use netchannel_units::{Claim, Timestamp};
use netchannel_verbs::Context;
use netchannel_vns::pool::SLAB_LOG2;
use netchannel_wire::StreamId;
use netchannel_wire::frame::reset;

use crate::boundary::StreamKey;
use crate::boundary::application::ApplicationId;
use crate::boundary::cell::{Cell, flags};
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::doorbells::Doorbells;
use crate::engine::session::Session;
use crate::engine::settings::group_config;
use crate::engine::stream::EngineStream;
use crate::engine::tenants::Tenants;
use crate::error::Error;
use crate::shared::Backlog;
use crate::shared::{GroupShared, SlabDemand, StreamSeed};
use crate::sync::lock;
impl<C: Context> Engine<C> {
    /// An engine without sessions.
    pub(crate) fn new(
        context: C,
        mut config: Config,
        shared: Arc<GroupShared>,
    ) -> Result<Self, Error> {
        config.window = config.window_on(context.attributes());
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
            arrived: false,
            payload_taken: 0,
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
        for entry in session.table.into_values() {
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
            if let Some(entry) = session.table.remove(id.0) {
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

pub(super) fn attach<C: Context>(
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
        session.table.remove(incoming.stream.0);
        session.attached -= 1;
        group.counters.streams.sub(1);
        tenants.give_cell(application, seed.cell);
        return Err(reset::REFUSED);
    }
    Ok(())
}
