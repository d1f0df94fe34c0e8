//! An engine: one Channel group, the parts of sessions that use it, and their streams, driven by
//! [`Engine::poll`]. A runtime has one for each group.
//!
//! The way of the data: `submit` (applications' doorbells) and [`transmit`] go down, [`receive`]
//! and [`publish`] go up. Set-up lies apart in [`setup`].
//!
//! - [`session`]: what the engine keeps per peer, by the [`terms`] that both agreed on; [`stream`]: per
//!   stream; [`channel_set`]: some of its Channels. [`slabs`]: memory for its receive windows.
//! - [`buffers`]: send buffers. [`lending`]: which streams have some. [`budget`]: an engine's part of what
//!   all may have outstanding together.
//! - [`receive`]: messages to streams.
//! - [`transmit`]: streams to messages; [`chunks`]: where a chunk's bytes lie and how a message takes them.
//! - [`publish`]: streams to applications.
//! - `failures`, [`failover`]: how it is noticed that a Channel dies; its streams go on.
//! - [`direct`]: writes straight from an application's buffer.
//! - [`doorbells`]: how applications of other processes wake the engine.
//! - [`pass`]: one step.
//! - [`control`]: what the runtime asks for; [`commands`]: what applications do; [`settings`].
//! - [`setup`]: sessions come and go. [`departures`]: applications do; [`tenants`]: what they have.
//! - `harness`: sessions for benchmarks and tests.

pub(crate) mod budget;
pub(crate) mod buffers;
mod channel_set;
mod chunks;
#[cfg(test)]
mod class_tests;
pub(crate) mod commands;
pub(crate) mod control;
mod departures;
mod direct;
mod doorbells;
pub(crate) mod failover;
mod failures;
#[cfg(any(test, feature = "bench"))]
pub(crate) mod harness;
mod lending;
pub(crate) mod pass;
mod publish;
mod receive;
pub(crate) mod session;
pub(crate) mod settings;
mod setup;
pub(crate) mod slabs;
mod stream;
mod tenants;
pub(crate) mod terms;
#[cfg(test)]
mod tests;
mod transmit;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use netchannel_driver::{Event, Group};
use netchannel_units::Timestamp;
use netchannel_verbs::Context;
use netchannel_vns::Carried;
use netchannel_wire::StreamId;

use crate::boundary::application::ApplicationId;
use crate::boundary::port::{self, Doorbell, EnginePort, What};
use crate::boundary::ready::EngineList;
use crate::config::Config;
use crate::engine::control::EngineControl;
pub(crate) use crate::engine::direct::Loan;
use crate::engine::doorbells::Doorbells;
use crate::engine::pass::Passed;
use crate::engine::session::Session;
use crate::engine::tenants::Tenants;
use crate::shared::GroupShared;
use crate::wait::Waitable;

/// The engine of a Channel group. One thread at a time drives it.
pub(crate) struct Engine<C: Context> {
    // Declared first, dropped first: queue pairs go before the memory they may touch.
    group: Group<C, Carried>,
    sessions: Vec<Option<Session<C>>>,
    /// Session (slot and number in it) of each Channel of the group.
    owners: Vec<Option<(u32, u16)>>,
    tenants: Tenants<C>,
    ports: Vec<EnginePort>,
    doorbells: Doorbells,
    /// Ready lists by number.
    lists: Vec<Option<EngineList>>,
    shared: Arc<GroupShared>,
    config: Config,
    context: C,
    events: Vec<Event>,
    touched: Vec<StreamId>,
    /// The last pass found messages, and nobody has written since.
    arrived: bool,
    /// Payload that the last pass took.
    payload_taken: u64,
    last_poll: Timestamp,
    /// When to look for failed sends; `MAX` while nothing was sent.
    look_at: Timestamp,
    /// What it has of the port's budget.
    share: budget::Share,
    /// Whose turn it is to send first.
    turn: usize,
}

/// A session that has moved is settled in the next pass that finds nothing for it, so that no message
/// waits for that; where there is no such pass, after this time.
const UNSETTLED: Duration = Duration::from_millis(1);

/// Descriptors to sleep on.
pub(crate) const EVENT_FDS: usize = 3;

/// What the runtime does with an engine, whatever its provider: one indirect call per poll or
/// application call, none per work request.
pub(crate) trait Drive: Send {
    /// Takes everything there is and sends everything that may go. True if anything moved.
    fn poll(&mut self, now: Timestamp) -> bool;

    /// The same for who waits for `what`.
    fn poll_for(&mut self, now: Timestamp, what: &dyn Waitable) -> Passed;

    /// An application's doorbell, and a pass. Who has just been shown what arrived sends without looking for
    /// more.
    fn serve(&mut self, now: Timestamp, doorbell: Doorbell);

    /// Writes straight from an application's buffer while polling; returns how many bytes are
    /// taken (sent and confirmed, or kept). `None` if the device cannot: copy to the send buffer.
    fn write_direct(&mut self, clock: &dyn Fn() -> Timestamp, loan: Loan<'_>) -> Option<usize>;

    /// Sends acknowledgements that wait for company, before everyone goes to sleep.
    fn settle(&mut self, now: Timestamp);

    /// Asks for completion events.
    fn arm(&mut self);

    /// Takes completion events off those of the descriptors that are readable.
    fn drain_events(&mut self, readable: [bool; EVENT_FDS]);

    /// The descriptors of completion events (receives, sends) and of doorbells from other
    /// processes; they live as long as the engine.
    fn event_fds(&self) -> [RawFd; EVENT_FDS];

    /// When to poll again at the latest.
    fn next_timeout(&self) -> Option<Timestamp>;

    /// Sessions come and go.
    fn control(&mut self) -> &mut dyn EngineControl;
}

impl<C: Context> Drive for Engine<C> {
    fn poll(&mut self, now: Timestamp) -> bool {
        self.pass(now)
    }

    fn poll_for(&mut self, now: Timestamp, what: &dyn Waitable) -> Passed {
        self.pass_for(now, what)
    }

    fn serve(&mut self, now: Timestamp, doorbell: Doorbell) {
        self.serve_doorbell(now, doorbell);
    }

    fn write_direct(&mut self, clock: &dyn Fn() -> Timestamp, loan: Loan<'_>) -> Option<usize> {
        self.write_borrowed(clock, loan)
    }

    fn settle(&mut self, now: Timestamp) {
        let now = now.max(self.last_poll);
        self.drop_closed_ports();
        for slot in 0..self.sessions.len() {
            self.acknowledge(now, slot as u32, true);
            self.set_timer(slot);
        }
    }

    fn arm(&mut self) {
        self.ports.iter_mut().for_each(EnginePort::arm);
        let sends = self.waits_for_sends();
        if let Err(error) = self.group.arm(sends) {
            self.fail_all(&error.into());
        }
    }

    fn drain_events(&mut self, readable: [bool; EVENT_FDS]) {
        let [receives, sends, doorbells] = readable;
        if doorbells {
            self.doorbells.hear(&self.ports);
        }
        if let Err(error) = self.group.drain_events([receives, sends]) {
            self.fail_all(&error.into());
        }
    }

    fn event_fds(&self) -> [RawFd; EVENT_FDS] {
        use std::os::fd::AsRawFd;
        let [receives, sends] = self.group.event_fds().map(|fd| fd.as_raw_fd());
        [receives, sends, self.doorbells.fd()]
    }

    fn next_timeout(&self) -> Option<Timestamp> {
        let timers = self.sessions.iter().flatten().map(|s| s.timer);
        timers.chain([self.look_at]).min().filter(|at| *at < Timestamp::MAX)
    }

    fn control(&mut self) -> &mut dyn EngineControl {
        self
    }
}

impl<C: Context> Engine<C> {
    /// An application's doorbell, without a ring in between.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn doorbell(&mut self, doorbell: Doorbell) {
        self.on_doorbell(ApplicationId::LOCAL, doorbell);
    }

    /// Takes the doorbells of all ports and what came through the inbox.
    fn submit(&mut self) -> bool {
        let mut any = self.shared.inbox.has_any() && self.take_inbox();
        if let Some(stream) = self.shared.last_read.take() {
            self.on_doorbell(ApplicationId::LOCAL, Doorbell { stream, what: What::Consumed });
        }
        for index in 0..self.ports.len() {
            let application = self.ports[index].application();
            // No more than it holds: who rings all the time does not hold up the rest.
            for _ in 0..port::CAPACITY {
                let Some(doorbell) = self.ports[index].pop() else { break };
                // What another process wants counts when something comes of it: who rings in vain
                // keeps nobody awake.
                any |= application == ApplicationId::LOCAL;
                self.on_doorbell(application, doorbell);
            }
            self.ports[index].release();
        }
        any
    }

    fn on_doorbell(&mut self, application: ApplicationId, doorbell: Doorbell) {
        let now = self.last_poll;
        let Some(Some(session)) = self.sessions.get_mut(doorbell.stream.session() as usize) else {
            return;
        };
        let id = doorbell.stream.stream();
        if !session.belongs_to(id, application) {
            return;
        }
        match doorbell.what {
            What::Written => {
                session.on_written(now, id, &mut self.tenants);
                session.attention = true;
            }
            What::Consumed => {
                session.on_consumed(now, id);
                // Small reads make no news as a rule: the peer has credit left.
                session.attention |= session.streams.has_news();
                session.unsettled = true;
            }
        }
    }

    /// Everything of one session that is due.
    fn run_session(&mut self, now: Timestamp, slot: u32) -> bool {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return false };
        if session.is_over() {
            session.attention = false;
            session.unsettled = false;
            session.timer = Timestamp::MAX;
            return self.bury(slot);
        }
        self.confirm(slot);
        self.finish_drains(now, slot);
        self.take_incoming(slot);
        let sent = self.transmit(now, slot);
        let acknowledged = self.acknowledge(now, slot, false);
        self.publish(slot);
        if let Some(Some(session)) = self.sessions.get_mut(slot as usize) {
            // What could not go now is tried again; the rest waits for an event or a timer.
            session.attention = session.streams.owing() > 0
                || !session.scheduler.is_idle()
                || session.failover.is_draining();
            session.unsettled = true;
            session.timer = session.timer.min(now + UNSETTLED);
        }
        sent || acknowledged
    }

    /// For a pass that found nothing to do: what nobody waits for.
    fn on_leisure(&mut self, now: Timestamp) {
        self.acknowledge_at_leisure(now);
        for slot in 0..self.sessions.len() {
            if self.sessions[slot].as_ref().is_some_and(|session| session.unsettled) {
                self.settle_session(now, slot);
            }
        }
    }

    /// The time has come for something in a session.
    fn on_timer(&mut self, now: Timestamp, slot: u32) {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        if !session.is_over() {
            session.on_timeout(now, &mut self.tenants);
            self.look_after_paths(now, slot);
        }
    }

    /// What need not be done whenever a session moves.
    fn settle_session(&mut self, now: Timestamp, slot: usize) {
        self.give_up_memory(now, slot as u32);
        self.set_timer(slot);
    }

    fn set_timer(&mut self, slot: usize) {
        let memory = self.tenants.next_timeout(self.last_poll);
        let (now, outage) = (self.last_poll, self.config.keepalive.outage);
        if let Some(Some(session)) = self.sessions.get_mut(slot) {
            let own = session.next_timeout(now, &self.group, outage);
            session.timer = [own, memory].into_iter().flatten().min().unwrap_or(Timestamp::MAX);
            session.unsettled = false;
        }
    }

    /// Slabs that nobody has needed for long go to the helper thread, which gives them back to the
    /// device and the system.
    fn give_up_memory(&mut self, now: Timestamp, slot: u32) {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        while let Some(slab) = session.take_spare_slab(now) {
            self.shared.runtime.discard(slab);
        }
        let (sessions, group) = (&self.sessions, &self.group);
        while let Some(slab) = self.tenants.take_spare(now, || awaits_completion(sessions, group)) {
            self.shared.runtime.discard(slab);
        }
        self.see_off();
    }

    /// The completion of a failed send wakes nobody: while peers owe acknowledgements somebody
    /// looks.
    fn look_for_failures(&mut self, now: Timestamp) {
        self.look_at = match self.look_for_silence(now) {
            true => now + failures::LOOK_FOR_FAILURES,
            false => Timestamp::MAX,
        };
        self.group.look_for_failures();
    }

    fn on_poll_gap(&mut self) {
        for session in self.sessions.iter().flatten() {
            for key in &session.channels {
                if let Some(channel) = self.group.channel_mut(*key) {
                    channel.state_mut().on_poll_gap();
                }
            }
        }
    }

    /// Whether a send completion could let something go that waits.
    fn waits_for_sends(&self) -> bool {
        let others_wait = self.owes_completions();
        self.sessions.iter().flatten().any(|session| {
            session.channels.iter().filter_map(|key| self.group.channel(*key)).any(|channel| {
                // Full queues, or (with `attention`) bytes that congestion control holds back.
                let full = !channel.may_draft() || !channel.may_write();
                channel.has_in_flight() && (full || session.attention || others_wait)
            })
        })
    }
}

/// Whether the device may still read sources of WRITEs.
fn awaits_completion<C: Context>(
    sessions: &[Option<Session<C>>],
    group: &Group<C, Carried>,
) -> bool {
    let channels = sessions.iter().flatten().flat_map(|session| &session.channels);
    channels.filter_map(|key| group.channel(*key)).any(|channel| channel.awaits_completion())
}
