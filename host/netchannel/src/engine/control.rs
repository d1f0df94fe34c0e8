//! What the runtime asks of an engine beside polling: the same for every provider.

use std::any::Any;
use std::sync::Arc;

use netchannel_channel::Controller;
use netchannel_driver::ChannelKey;
use netchannel_scheduler::Scheduler;
use netchannel_units::{Bandwidth, ChannelId, Claim, Duration, Timestamp};
use netchannel_verbs::context::AsyncEvent;
use netchannel_verbs::{Context, Endpoint, SourcePort};
use netchannel_vns::Streams;
use netchannel_vns::send::SendState;
use netchannel_wire::StreamId;
use netchannel_wire::control::ChannelMessage;

use crate::boundary::MAX_SESSIONS;
use crate::boundary::application::{Application, ApplicationId};
use crate::engine::Engine;
use crate::engine::failover::Failover;
use crate::engine::session::{Payload, Session};
use crate::engine::setup::attach;
use crate::engine::slabs::WindowSlab;
use crate::engine::terms::SessionTerms;
use crate::error::Error;
use crate::shared::{SessionShared, StreamSeed};
use crate::sync::lock;

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

    /// Gives a session a slab of receive windows made by a [`SlabMaker`](super::slabs::SlabMaker).
    fn add_slab(&mut self, slot: u32, slab: Box<dyn Any + Send>);

    /// There is no memory for the slab that an application's streams wait for.
    fn deny_slab(&mut self, slot: u32, application: ApplicationId);

    /// Opens a stream for an application.
    fn open_stream(
        &mut self,
        slot: u32,
        application: ApplicationId,
        service: u16,
        claim: Claim,
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

impl<C: Context> Engine<C> {
    /// The session in a slot, if it is (still) this one.
    fn session_of(&self, slot: u32, session: &Arc<SessionShared>) -> Option<&Session<C>> {
        let found = self.sessions.get(slot as usize)?.as_ref()?;
        Arc::ptr_eq(&found.shared, session).then_some(found)
    }
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
        if self.session_of(slot, session).is_some() {
            self.fail_session(slot, error);
        }
    }

    fn is_finishing(&self, slot: u32, session: &Arc<SessionShared>) -> bool {
        self.session_of(slot, session).filter(|found| !found.over).is_some_and(|found| {
            found.table.numbers().any(|id| {
                let half = found.streams.send_half(StreamId(id));
                half.is_some_and(|half| half.state() == SendState::Finishing)
            })
        })
    }

    fn on_channel_news(
        &mut self,
        now: Timestamp,
        slot: u32,
        session: &Arc<SessionShared>,
        message: &ChannelMessage,
    ) -> bool {
        self.session_of(slot, session).is_some() && self.on_channel_news(now, slot, message)
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

    fn add_slab(&mut self, slot: u32, slab: Box<dyn Any + Send>) {
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
