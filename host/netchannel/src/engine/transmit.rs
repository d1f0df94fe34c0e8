//! Streams to messages.

use netchannel_channel::AckNeed;
use netchannel_driver::{ChannelKey, DriverError, Group, RcChannel};
use netchannel_scheduler::{Assignment, ChannelView};
use netchannel_units::{ChannelId, Class, Timestamp};
use netchannel_verbs::{Context, MemoryRegion, Mover};
use netchannel_vns::Carried;
use netchannel_vns::streams::Control;
use netchannel_wire::{Frame, StreamId};

use crate::engine::Engine;
use crate::engine::budget::{Port, outstanding};
use crate::engine::chunks::{Outlet, Sink};
use crate::engine::failures::LOOK_FOR_FAILURES;
use crate::engine::session::Session;
use crate::engine::tenants::Tenants;
use crate::shared::GroupShared;

/// The most bulk bytes in one message: as many as take half a microsecond to write at 400 Gb/s, so
/// that the cost of a message is shared by small chunks and the receiver need not wait long.
const MESSAGE_BYTES: u64 = 32 << 10;

impl<C: Context> Engine<C> {
    /// Sends what a session may send now. True if something left.
    pub(super) fn transmit(&mut self, now: Timestamp, slot: u32) -> bool {
        let mut sent = self.send_control(now, slot);
        self.stop_holding(slot);
        sent |= self.send_bytes(now, slot);
        sent |= self.flush(now, slot);
        sent
    }

    /// Sends a session's bytes before anything else of it is looked at, for who answers.
    pub(super) fn answer(&mut self, now: Timestamp, slot: u32) {
        if self
            .sessions
            .get(slot as usize)
            .is_some_and(|s| s.as_ref().is_some_and(|s| !s.is_over()))
        {
            self.send_bytes(now, slot);
            self.flush(now, slot);
        }
    }

    fn send_control(&mut self, now: Timestamp, slot: u32) -> bool {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return false };
        let mut failure = None;
        let mut any = false;
        let mut deferred = 0;
        // Where a message costs packets it takes acknowledgements along.
        let company = !self.context.attributes().moves_bytes_while_posting();
        while let Some(outgoing) = session.streams.poll_control() {
            let via = match outgoing.via {
                Some(via) => Some(via),
                None => lightest(session, &self.group, company),
            };
            let key = via.and_then(|via| session.channels.get(usize::from(via.0)).copied());
            let channel = key.and_then(|key| self.group.channel_mut(key));
            let (Some(via), Some(channel)) = (via, channel) else { break };
            let Some(frame) = complete(session, &outgoing.frame) else { break };
            let mut pushed = channel.push(&frame);
            if !pushed && channel.has_draft() {
                // The draft is full: let it go and begin another.
                match channel.flush(now) {
                    Ok(_) => pushed = channel.push(&frame),
                    Err(error) => {
                        failure = Some((usize::from(via.0), error));
                        break;
                    }
                }
            }
            if pushed {
                session.drafts.insert(usize::from(via.0));
                channel.carry(outgoing.carried);
                session.streams.on_control_sent(&outgoing.carried, via);
                any = true;
            } else {
                // That Channel has no room; frames of other streams may use others.
                deferred += 1;
                if outgoing.via.is_none() || deferred > session.streams.owing() {
                    break;
                }
                session.streams.defer_control();
            }
        }
        if let Some((number, error)) = failure {
            self.on_post_failed(now, slot, number, &error);
        }
        any
    }

    /// Lets messages be acknowledged whose refusals are all in drafts or sent.
    fn stop_holding(&mut self, slot: u32) {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        for number in session.holding.iter() {
            if session.streams.has_refusals(ChannelId(number as u16)) {
                continue;
            }
            session.holding.remove(number);
            let key = session.channels.get(number).copied();
            let Some(channel) = key.and_then(|key| self.group.channel_mut(key)) else { continue };
            for elicits_ack in session.held[number].drain(..) {
                channel.state_mut().on_processed(elicits_ack);
            }
        }
    }

    fn send_bytes(&mut self, now: Timestamp, slot: u32) -> bool {
        let Self { sessions, group, tenants, shared, share, context, .. } = self;
        let Some(Some(session)) = sessions.get_mut(slot as usize) else { return false };
        session.report_backlogs();
        if session.scheduler.is_idle() {
            return false;
        }
        let mover = context.attributes().mover;
        session.scheduler.look(views(&session.channels, group, mover));
        let direct = context.attributes().moves_bytes_while_posting();
        let sink = Sink { now, direct, most: message_bytes(shared), counters: &shared.counters };
        let mut pass = Pass { group, tenants, port: share.at_port(shared), sink, any: false };
        let mut next = pass.port.next(&mut session.scheduler);
        let mut failure = None;
        while let Some(first) = next {
            match pass.serve(session, first) {
                Ok(following) => next = following,
                Err(failed) => {
                    failure = Some(failed);
                    break;
                }
            }
        }
        let any = pass.any;
        if let Some((number, error)) = failure {
            self.on_post_failed(now, slot, number, &error);
            return true;
        }
        any
    }

    fn flush(&mut self, now: Timestamp, slot: u32) -> bool {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return false };
        let mut any = false;
        let mut failure = None;
        for number in session.drafts.iter() {
            let key = session.channels.get(number).copied();
            let Some(channel) = key.and_then(|key| self.group.channel_mut(key)) else { continue };
            match channel.flush(now) {
                Ok(sent) => any |= sent,
                Err(error) => failure = Some((number, error)),
            }
            if !channel.has_draft() {
                session.drafts.remove(number);
            }
            session.owing.insert(number);
        }
        if any && self.look_at == Timestamp::MAX {
            self.look_at = now + LOOK_FOR_FAILURES;
        }
        if let Some((number, error)) = failure {
            self.on_post_failed(now, slot, number, &error);
        }
        any
    }

    /// Acknowledges where that is due (with `all`, wherever anything is unacknowledged).
    pub(super) fn acknowledge(&mut self, now: Timestamp, slot: u32, all: bool) -> bool {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return false };
        let mut any = false;
        let mut failure = None;
        for number in session.owing.iter() {
            let key = session.channels.get(number).copied();
            let Some(channel) = key.and_then(|key| self.group.channel_mut(key)) else { continue };
            if channel.state().next_timeout().is_some_and(|at| at <= now) {
                channel.state_mut().on_timeout(now);
            }
            let due = match channel.state().wants_ack() {
                AckNeed::Now => true,
                AckNeed::Soon => all,
                AckNeed::None => false,
            };
            if due {
                match channel.acknowledge(now) {
                    Ok(sent) => any |= sent,
                    Err(error) => failure = Some((number, error)),
                }
            }
            let state = channel.state();
            if state.wants_ack() == AckNeed::None && state.next_timeout().is_none() {
                session.owing.remove(number);
            }
        }
        if let Some((number, error)) = failure {
            self.on_post_failed(now, slot, number, &error);
        }
        any
    }

    /// For a pass that found nothing to do: acknowledges what would wait for company. Where posting
    /// moves the bytes their writer must copy what is not confirmed when its call ends; elsewhere a
    /// message costs more than it brings.
    pub(super) fn acknowledge_at_leisure(&mut self, now: Timestamp) {
        if !self.context.attributes().moves_bytes_while_posting() {
            return;
        }
        for slot in 0..self.sessions.len() {
            if self.sessions[slot].as_ref().is_some_and(|session| !session.owing.is_empty()) {
                self.acknowledge(now, slot as u32, true);
            }
        }
    }
}

/// What a pass sends with.
struct Pass<'a, C: Context> {
    group: &'a mut Group<C, Carried>,
    tenants: &'a Tenants<C>,
    port: Port<'a>,
    sink: Sink<'a>,
    any: bool,
}

impl<C: Context> Pass<'_, C> {
    /// Sends what a stream was assigned, and what it is assigned next: it is looked up once for as long
    /// as it is its turn. Returns what another one is assigned.
    ///
    /// # Errors
    /// A Channel that could not post.
    fn serve(
        &mut self,
        session: &mut Session<C>,
        first: Assignment,
    ) -> Result<Option<Assignment>, (usize, DriverError)> {
        let id = StreamId(first.stream.0 as u32);
        let borrow = session.borrowed(id);
        let Session { streams, scheduler, table, channels, drafts, .. } = session;
        let Some(mut outlet) = Outlet::new(id, streams, table, self.tenants, borrow) else {
            scheduler.on_backlog(first.stream, Class::default(), 0);
            scheduler.on_refused(first.channel, first.bytes, true);
            return Ok(self.port.next(scheduler));
        };
        let mut next = Some(first);
        while let Some(assignment) = next.filter(|next| next.stream == first.stream) {
            let Assignment { channel: id, bytes, left, .. } = assignment;
            let number = usize::from(id.0);
            let key = channels.get(number).copied();
            let (mut sent, mut usable) = (0, false);
            if let Some(channel) = key.and_then(|key| self.group.channel_mut(key)) {
                drafts.insert(number);
                sent = outlet.send(&self.sink, channel, bytes).map_err(|error| (number, error))?;
                usable = sent > 0 && channel.may_draft() && channel.may_write();
            }
            if sent < bytes || !usable {
                scheduler.on_refused(id, bytes - sent, usable);
            }
            let sendable = outlet.sendable();
            if sendable != left {
                scheduler.on_backlog(assignment.stream, outlet.claim(), sendable);
            }
            if sent > 0 {
                self.any = true;
                self.port.on_sent(self.sink.now, sent);
            }
            next = self.port.next(scheduler);
        }
        Ok(next)
    }
}

/// How a session's Channels stand. By number: a Channel that is gone leaves a gap.
fn views<C: Context>(
    channels: &[ChannelKey],
    group: &Group<C, Carried>,
    mover: Mover,
) -> impl Iterator<Item = ChannelView> {
    channels.iter().enumerate().map(move |(number, key)| {
        let id = ChannelId(number as u16);
        group.channel(*key).map_or_else(|| nowhere(id), |channel| view(id, channel, mover))
    })
}

fn view<C: Context>(id: ChannelId, channel: &RcChannel<C, Carried>, mover: Mover) -> ChannelView {
    let state = channel.state();
    let draft = channel.draft_bytes();
    let outstanding = outstanding(channel, mover);
    let gone = state.outstanding().saturating_sub(outstanding);
    ChannelView {
        id,
        usable: channel.may_draft() && channel.may_write(),
        class: None,
        outstanding: outstanding + draft,
        window_left: state.window_left().saturating_add(gone).saturating_sub(draft),
        rate: state.rate(),
        completion_time: state.completion_time().unwrap_or_default(),
        message_due: draft > 0 || state.wants_ack() != AckNeed::None,
    }
}

/// The view of a Channel that is gone.
fn nowhere(id: ChannelId) -> ChannelView {
    ChannelView { usable: false, window_left: 0, ..ChannelView::new(id) }
}

/// The Channel with the least outstanding that takes a frame; with `company` rather one on which a
/// message is due.
fn lightest<C: Context>(
    session: &Session<C>,
    group: &Group<C, Carried>,
    company: bool,
) -> Option<ChannelId> {
    let usable = session.channels.iter().enumerate().filter_map(|(number, key)| {
        let channel = group.channel(*key)?;
        channel
            .may_draft()
            // A draft that is open already costs no message of its own, and an acknowledgement that is
            // due anyway goes along.
            .then(|| {
                let due = company && channel.state().wants_ack() != AckNeed::None;
                (!channel.has_draft() && !due, channel.state().outstanding(), number)
            })
    });
    usable.min().map(|(_, _, number)| ChannelId(number as u16))
}

/// The frame of a control output.
fn complete<C: Context>(session: &Session<C>, control: &Control) -> Option<Frame<'static>> {
    Some(match *control {
        Control::Frame(frame) => frame,
        Control::Window { stream, grant, lease, from, limit } => {
            let slab = session.slabs.get(lease.slab.0 as usize)?.as_ref()?;
            Frame::Window {
                stream,
                grant,
                log2_size: lease.log2,
                address: slab.region.remote_address() + u64::from(lease.offset),
                key: slab.region.remote_key().0,
                from,
                limit,
            }
        }
    })
}

/// Bytes in a message of bulk, after which it leaves: many small chunks share a message, and none
/// waits for long at the rate of the port.
fn message_bytes(shared: &GroupShared) -> u64 {
    match shared.runtime.budget.get() {
        Some(budget) => MESSAGE_BYTES.min(budget.rules.chunk()),
        None => MESSAGE_BYTES,
    }
}
