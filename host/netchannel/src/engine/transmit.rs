//! Streams to messages.

use netchannel_channel::AckNeed;
use netchannel_driver::RcChannel;
use netchannel_scheduler::{Assignment, ChannelView, StreamKey as SchedulerKey};
use netchannel_units::{ChannelId, Class, Timestamp};
use netchannel_verbs::{Context, MemoryRegion};
use netchannel_vns::streams::Control;
use netchannel_vns::{Carried, Form};
use netchannel_wire::{Frame, StreamId};

use crate::engine::Engine;
use crate::engine::chunks::{bulk, eager, locate};
use crate::engine::failures::LOOK_FOR_FAILURES;
use crate::engine::session::Session;
use crate::shared::GroupShared;

/// The most bulk bytes in one message: as many as take half a microsecond to write at 400 Gb/s, so
/// that the cost of a message is shared by small chunks and the receiver need not wait long.
const MESSAGE_BYTES: u64 = 32 << 10;

/// Borrowed bytes are confirmed sooner in smaller pieces, so that less is left to keep when their
/// writer's call ends.
const BORROWED_PIECE: u64 = 128 << 10;

impl<C: Context> Engine<C> {
    /// Sends what a session may send now. True if something left.
    pub(super) fn transmit(&mut self, now: Timestamp, slot: u32) -> bool {
        let mut sent = self.send_control(now, slot);
        self.stop_holding(slot);
        sent |= self.send_bytes(now, slot);
        sent |= self.flush(now, slot);
        sent
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
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return false };
        while let Some(backlog) = session.streams.poll_backlog() {
            let key = SchedulerKey(u64::from(backlog.stream.0));
            session.scheduler.pin(key, backlog.via);
            session.scheduler.on_backlog(key, backlog.claim, backlog.bytes);
        }
        if session.scheduler.is_idle() {
            return false;
        }
        session.views.clear();
        for (number, key) in session.channels.iter().enumerate() {
            let id = ChannelId(number as u16);
            // By number, so that a Channel that is gone leaves a gap.
            let channel = self.group.channel(*key);
            session.views.push(channel.map_or_else(|| nowhere(id), |channel| view(id, channel)));
        }
        let mut any = false;
        loop {
            let room = self.room_at_port();
            let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return any };
            if room < u64::MAX {
                for view in &mut session.views {
                    view.window_left = view.window_left.min(room);
                }
            }
            let Some(assignment) = session.scheduler.next(&session.views) else {
                if room < u64::MAX && !session.scheduler.is_idle() {
                    self.on_denied();
                }
                return any;
            };
            let number = usize::from(assignment.channel.0);
            let before = session.views[number].outstanding;
            match self.send_assignment(now, slot, assignment) {
                Ok(sent) => {
                    any |= sent;
                    if let Some(Some(session)) = self.sessions.get(slot as usize) {
                        let after = session.views.get(number).map_or(before, |v| v.outstanding);
                        self.on_sent_at_port(now, before, after);
                    }
                }
                Err(error) => {
                    self.on_post_failed(now, slot, number, &error);
                    return true;
                }
            }
        }
    }

    /// Sends what the scheduler assigned to a Channel, as far as that has room.
    fn send_assignment(
        &mut self,
        now: Timestamp,
        slot: u32,
        assignment: Assignment,
    ) -> Result<bool, netchannel_driver::DriverError> {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return Ok(false) };
        let id = StreamId(assignment.stream.0 as u32);
        let number = usize::from(assignment.channel.0);
        let key = session.channels[number];
        let direct = self.context.attributes().moves_bytes_while_posting();
        let most = message_bytes(&self.shared);
        let Some(channel) = self.group.channel_mut(key) else { return Ok(false) };
        let borrow = session.borrowed(id);
        let piece = if borrow.is_some() { BORROWED_PIECE } else { u64::MAX };
        let entry = session.table.get(&id.0);
        let buffers = entry.and_then(|entry| self.tenants.buffers_of(entry.application));
        let (Some(mut sending), Some(entry), Some(buffers)) =
            (session.streams.sending(id), entry, buffers)
        else {
            session.scheduler.on_backlog(assignment.stream, Class::default(), 0);
            return Ok(false);
        };
        session.drafts.insert(number);
        let counters = &self.shared.counters;
        let mut left = assignment.bytes;
        while left > 0 {
            let Some(mut chunk) = sending.next_chunk(left.min(piece)) else { break };
            let Some(source) = locate(entry, borrow, buffers, chunk.range, direct) else { break };
            chunk.cut(u64::from(source.length));
            let hint = sending.backlog_hint(&chunk);
            let taken = match chunk.form {
                Form::Bulk(grant) => bulk(channel, id, chunk.range, grant, source, hint),
                Form::Eager => eager(channel, id, chunk.range, source, hint),
            };
            if taken == 0 {
                // Full: let it go, and try once more if that made room.
                if channel.has_draft() && channel.flush(now)? {
                    continue;
                }
                break;
            }
            match chunk.form {
                Form::Eager => counters.engine_copied.add(taken),
                Form::Bulk(_) if source.inline => counters.moved_by_posting.add(taken),
                Form::Bulk(_) => {}
            }
            chunk.cut(taken);
            channel.carry(sending.on_sent(&chunk));
            left = left.saturating_sub(taken);
            // The receiver works on what it has while more is sent.
            if channel.draft_bytes() >= most {
                channel.flush(now)?;
            }
        }
        let sent = assignment.bytes - left;
        let view = &mut session.views[number];
        view.outstanding += sent;
        view.window_left = view.window_left.saturating_sub(sent);
        view.usable = sent > 0 && channel.may_draft() && channel.may_write();
        view.message_due = true;
        let remaining = sending.due();
        if remaining != assignment.left {
            session.scheduler.on_backlog(assignment.stream, sending.claim(), remaining);
        }
        Ok(sent > 0)
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

/// Bytes that were posted and have not left as far as this side knows. What the peer confirmed has
/// left, whether or not it was signalled: without this the last small messages would look
/// outstanding for ever, and a window smaller than a chunk closed.
pub(super) fn outstanding<C: Context>(channel: &RcChannel<C, Carried>) -> u64 {
    let state = channel.state();
    let unconfirmed = state.stats().bytes_posted - state.stats().bytes_confirmed;
    state.outstanding().min(unconfirmed)
}

fn view<C: Context>(id: ChannelId, channel: &RcChannel<C, Carried>) -> ChannelView {
    let state = channel.state();
    let draft = channel.draft_bytes();
    let outstanding = outstanding(channel);
    let gone = state.outstanding() - outstanding;
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
    ChannelView {
        id,
        usable: false,
        class: None,
        outstanding: 0,
        window_left: 0,
        rate: netchannel_units::Bandwidth::ZERO,
        completion_time: netchannel_units::Duration::ZERO,
        message_due: false,
    }
}

/// The Channel with the least outstanding that takes a frame; with `company` rather one on which a
/// message is due.
fn lightest<C: Context>(
    session: &Session<C>,
    group: &netchannel_driver::Group<C, Carried>,
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
