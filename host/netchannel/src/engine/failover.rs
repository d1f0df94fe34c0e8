//! A Channel dies, its streams go on: fencing, replay, and a new queue pair in its place.
//!
//! How a failure is noticed is the business of [`failures`](super::failures), what follows that of
//! [`Fence`], the same state machine on both sides; here is what it asks for. The control connection
//! carries what the two say to each other: the engine leaves it in the session's
//! [`SessionShared`](crate::shared::SessionShared), the helper thread sends it and brings the peer's
//! words. The helper makes and connects queue pairs, too.

use netchannel_channel::ChannelStats;
use netchannel_channel::fence::{Action, Fence, State};
use netchannel_units::{ChannelId, Duration, Timestamp};
use netchannel_verbs::{Context, Endpoint};
use netchannel_vns::Carried;
use netchannel_wire::control::{ChannelEpoch, ChannelMessage};

use crate::engine::Engine;
use crate::engine::channel_set::ChannelSet;
use crate::engine::failures::Silence;
use crate::engine::terms::SessionTerms;
use crate::error::Error;
use crate::sync::lock;

/// While a queue pair is drained somebody polls this often, if nobody does anyway.
const DRAIN_POLL: Duration = Duration::from_micros(50);

/// What a session keeps to outlive its Channels. Indexed by the Channels' numbers.
pub(crate) struct Failover {
    pub(super) fences: Vec<Fence>,
    /// Number of the group in the session, and receive slots of each of its Channels at the peer.
    group: u8,
    peer_slots: u32,
    /// The peer knows the messages about it.
    pub(super) negotiated: bool,
    /// Channels whose queue pairs are being drained.
    draining: ChannelSet,
    /// Since when no Channel is up, and why the last one went down.
    no_path: Option<(Timestamp, String)>,
    /// The helper was asked to make queue pairs.
    asked: bool,
    /// Of earlier queue pairs.
    past: Vec<ChannelStats>,
    /// Last arrival of stream bytes through each Channel.
    last_arrival: Vec<Timestamp>,
    /// Bytes that a dead Channel should have brought are waited for since then.
    gap_since: Option<Timestamp>,
    pub(super) silence: Silence,
}

impl Failover {
    pub(super) fn new(now: Timestamp, channels: usize, terms: &SessionTerms) -> Self {
        Self {
            fences: vec![Fence::new(now); channels],
            group: terms.group,
            peer_slots: terms.peer_slots,
            negotiated: terms.failover,
            draining: ChannelSet::default(),
            no_path: None,
            asked: false,
            past: vec![ChannelStats::default(); channels],
            last_arrival: vec![Timestamp::ZERO; channels],
            gap_since: None,
            silence: Silence::new(channels),
        }
    }

    /// Counters of a Channel over all of its queue pairs.
    pub(super) fn total(&self, number: usize, current: &ChannelStats) -> ChannelStats {
        let mut total = *current;
        total += self.past.get(number).copied().unwrap_or_default();
        total
    }

    /// Stream bytes arrived through a Channel. The first after a replay end a gap.
    pub(super) fn on_arrival(&mut self, now: Timestamp, number: usize) -> Option<Duration> {
        self.last_arrival[number] = now;
        self.gap_since.take().map(|since| now - since)
    }

    /// The peer confirmed something through a Channel.
    pub(super) fn on_proved(&mut self, number: usize) {
        self.fences[number].on_proved();
    }

    /// When the session wants a pass on account of this.
    pub(super) fn next_timeout(&self, now: Timestamp, outage: Duration) -> Option<Timestamp> {
        if self.no_path.is_none() && self.draining.is_empty() && self.is_up() {
            return None;
        }
        let draining = (!self.draining.is_empty()).then_some(now + DRAIN_POLL);
        let no_path = self.no_path.as_ref().map(|(since, _)| *since + outage);
        let fences = self.fences.iter().filter_map(Fence::next_timeout);
        let make = fences.min().filter(|_| !self.asked);
        [draining, no_path, make].into_iter().flatten().min()
    }

    #[cfg(test)]
    pub(super) fn is_down(&self) -> bool {
        self.no_path.is_some()
    }

    /// Whether somebody must poll on: a queue pair is being drained.
    pub(super) fn is_draining(&self) -> bool {
        !self.draining.is_empty()
    }

    /// Whether every Channel is.
    pub(super) fn is_up(&self) -> bool {
        self.fences.iter().all(|fence| fence.state() == State::Up)
    }

    #[cfg(test)]
    pub(super) fn states(&self) -> Vec<(State, u32)> {
        self.fences.iter().map(|fence| (fence.state(), fence.epoch())).collect()
    }

    /// Notes whether there is a path at all.
    fn look_at_paths(&mut self, now: Timestamp, cause: &str) {
        if self.fences.iter().any(|fence| fence.state() == State::Up) {
            self.no_path = None;
        } else if self.no_path.is_none() {
            self.no_path = Some((now, cause.to_owned()));
        }
    }
}

/// What peers say of Channels.
impl<C: Context> Engine<C> {
    /// The peer said something of a Channel. False if this part of the session has no such one.
    pub(super) fn on_channel_news(
        &mut self,
        now: Timestamp,
        slot: u32,
        message: &ChannelMessage,
    ) -> bool {
        let ChannelMessage { of: ChannelEpoch { group, channel, epoch }, news } = message;
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return false };
        let number = session.numbers.iter().position(|id| id.0 == *channel);
        let Some(number) = number.filter(|_| *group == session.failover.group) else {
            return false;
        };
        if session.over {
            return true;
        }
        let cause = format!("Channel {channel}: the peer says {news:?}");
        match session.failover.fences[number].on_news(now, *epoch, news.clone()) {
            Ok(()) => self.run_fence(now, slot, number, &cause),
            Err(error) => self.reject(slot, &format!("Channel {channel}: {error}")),
        }
        true
    }

    fn reject(&mut self, slot: u32, what: &str) {
        let Some(Some(session)) = self.sessions.get(slot as usize) else { return };
        let error = Error::Session {
            peer: session.shared.peer,
            reason: format!("the peer broke the control protocol: {what}"),
            kind: std::io::ErrorKind::InvalidData,
        };
        self.fail_session(slot, error);
    }
}

/// What fences ask for.
impl<C: Context> Engine<C> {
    pub(super) fn run_fence(&mut self, now: Timestamp, slot: u32, number: usize, cause: &str) {
        loop {
            let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
            if session.over {
                return;
            }
            session.attention = true;
            let Some(action) = session.failover.fences[number].poll_action() else {
                return session.failover.look_at_paths(now, cause);
            };
            match action {
                Action::Drain => self.begin_drain(now, slot, number),
                Action::Say { epoch, news } => {
                    let (group, channel) = (session.failover.group, session.numbers[number].0);
                    let of = ChannelEpoch { group, channel, epoch };
                    session.shared.say(ChannelMessage { of, news });
                    self.shared.runtime.ask_helper();
                }
                Action::Replay { received } => self.replay(slot, number, received),
                Action::Connect { endpoint } => self.connect_renewed(now, slot, number, endpoint),
                Action::Use => {
                    let key = session.channels[number];
                    if let Some(channel) = self.group.channel_mut(key) {
                        channel.state_mut().open();
                    }
                    // The peer may have been quicker: then its messages wait for an answer.
                    session.owing.insert(number);
                }
            }
        }
    }

    fn begin_drain(&mut self, now: Timestamp, slot: u32, number: usize) {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        self.shared.counters.failovers.add(1);
        session.drafts.remove(number);
        session.owing.remove(number);
        session.failover.draining.insert(number);
        session.failover.silence.end(number);
        if let Err(error) = self.group.fence(now, session.channels[number]) {
            // Destroying it fences as well.
            tracing::warn!(%error, "fencing");
        }
    }

    /// After a poll whose messages were handled: fences that are complete.
    pub(super) fn finish_drains(&mut self, now: Timestamp, slot: u32) {
        let Some(Some(session)) = self.sessions.get(slot as usize) else { return };
        for number in session.failover.draining.iter() {
            let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
            let Some(&key) = session.channels.get(number) else { return };
            if !self.group.is_drained(now, key) {
                continue;
            }
            session.failover.draining.remove(number);
            let received = self.report(slot, number);
            let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
            session.failover.fences[number].on_drained(now, received);
            self.run_fence(now, slot, number, "drained");
        }
    }

    /// How many of the peer's messages it may forget, beyond those that it heard to be acknowledged.
    fn report(&self, slot: u32, number: usize) -> u64 {
        let Some(Some(session)) = self.sessions.get(slot as usize) else { return 0 };
        let Some(channel) = self.group.channel(session.channels[number]) else { return 0 };
        // A peer that forgets bytes before it has heard that they were refused never sends them
        // again. It does not forget what was not acknowledged, and finds out itself.
        let refused = !session.held[number].is_empty()
            || session.streams.has_refusals(ChannelId(number as u16))
            || channel.unpolled().any(Carried::is_refusal);
        if refused { 0 } else { channel.state().processed() }
    }

    /// Both sides are fenced: what the peer has is confirmed, the rest is sent again.
    fn replay(&mut self, slot: u32, number: usize, received: u64) {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        let Some(channel) = self.group.channel_mut(session.channels[number]) else { return };
        if let Err(error) = channel.state_mut().on_report(received) {
            return self.reject(slot, &format!("Channel {number}: {error}"));
        }
        channel.poll_confirmed(|carried| session.confirm(number, carried));
        let mut bytes = 0;
        for item in channel.fail() {
            if let Carried::Chunk { range, .. } = item {
                bytes += range.len();
            }
            session.streams.on_lost(&item);
        }
        session.streams.on_channel_lost(ChannelId(number as u16));
        session.held[number].clear();
        session.holding.remove(number);
        let failover = &mut session.failover;
        failover.past[number] += *channel.state().stats();
        let last = failover.last_arrival[number];
        if last > Timestamp::ZERO {
            failover.gap_since = Some(failover.gap_since.map_or(last, |since| since.min(last)));
        }
        self.shared.counters.replayed_bytes.add(bytes);
        tracing::info!(peer = %session.shared.peer, number, bytes, "a Channel is fenced");
    }

    fn connect_renewed(&mut self, now: Timestamp, slot: u32, number: usize, endpoint: Vec<u8>) {
        let options = self.connect_options();
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        let Some(channel) = self.group.channel_mut(session.channels[number]) else { return };
        let fence = &mut session.failover.fences[number];
        match channel.connect(&Endpoint(endpoint), &options) {
            Ok(()) => fence.on_connected(now),
            Err(error) => fence.on_failed(&format!("Channel {number}: {error}")),
        }
    }

    /// Asks for queue pairs whose time has come, and ends a session that has had no path for too
    /// long.
    pub(super) fn look_after_paths(&mut self, now: Timestamp, slot: u32) {
        let outage = self.config.keepalive.outage;
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        let failover = &mut session.failover;
        let wanted = failover.fences.iter().any(|fence| fence.wants_queue_pair(now));
        if wanted && !std::mem::replace(&mut failover.asked, true) {
            lock(&self.shared.renewals).push(slot);
            self.shared.runtime.ask_helper();
        }
        let Some((since, cause)) = &failover.no_path else { return };
        if now - *since < outage {
            return;
        }
        let error = Error::Session {
            peer: session.shared.peer,
            reason: format!(
                "every path is down: no Channel could be made for {} ms; the last one went down \
                 because of {cause}",
                (now - *since).as_millis()
            ),
            kind: std::io::ErrorKind::TimedOut,
        };
        self.fail_session(slot, error);
    }

    /// Makes the queue pairs that are wanted. For the helper thread: it takes a while.
    pub(super) fn make_wanted(&mut self, now: Timestamp, slot: u32) {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        session.failover.asked = false;
        // Others that want one later had no timer while this was asked for.
        session.attention = true;
        let slots = session.failover.peer_slots;
        let Ok(config) = self.channel_config(slots) else { return };
        let Some(Some(session)) = self.sessions.get(slot as usize) else { return };
        for number in 0..session.channels.len() {
            let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
            let Some(&key) = session.channels.get(number) else { return };
            let fence = &mut session.failover.fences[number];
            if session.over || !fence.wants_queue_pair(now) {
                continue;
            }
            let controller = self.config.congestion.clone();
            match self.group.renew(key, config, controller) {
                Ok(Some(Endpoint(endpoint))) => fence.on_made(endpoint),
                Ok(None) => fence.on_make_failed(now),
                Err(error) => {
                    tracing::warn!(%error, number, "making a queue pair again later");
                    fence.on_make_failed(now);
                }
            }
            self.run_fence(now, slot, number, "no queue pair could be made");
        }
    }
}
