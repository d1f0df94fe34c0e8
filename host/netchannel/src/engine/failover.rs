//! A Channel dies, its streams go on: fencing, replay, and a new queue pair in its place.
//!
//! What happens when is the business of [`Fence`], the same state machine on both sides; here is what it
//! asks for. The control connection carries what the two say to each other: the engine leaves it in
//! the session's [`SessionShared`](crate::shared::SessionShared), the helper thread sends it and brings
//! the peer's words. The helper makes and connects queue pairs, too.

use netchannel_channel::ChannelStats;
use netchannel_channel::fence::{Action, Fence, State};
use netchannel_driver::{ChannelKey, DriverError};
use netchannel_units::{ChannelId, Duration, Timestamp};
use netchannel_verbs::context::AsyncEvent;
use netchannel_verbs::{Context, Endpoint};
use netchannel_vns::Carried;
use netchannel_wire::control::{ChannelEpoch, ChannelMessage};

use crate::engine::Engine;
use crate::engine::control::SessionTerms;
use crate::engine::session::ChannelSet;
use crate::error::Error;
use crate::shared::lock;

/// While a queue pair is drained somebody polls this often, if nobody does anyway.
const DRAIN_POLL: Duration = Duration::from_micros(50);
/// While the peer owes an acknowledgement, failed sends are looked for this often: their completions
/// wake nobody.
pub(super) const LOOK_FOR_FAILURES: Duration = Duration::from_millis(100);

/// What a session keeps to outlive its Channels. Indexed by the Channels' numbers.
pub(crate) struct Failover {
    fences: Vec<Fence>,
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
    /// Channels whose peer owes an acknowledgement: how many messages it had confirmed when that was
    /// looked at, and since when there are no more.
    silent: Vec<Option<(u64, Timestamp)>>,
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
            silent: vec![None; channels],
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

    /// How long the peer has owed the next acknowledgement of a Channel.
    fn silence(&mut self, now: Timestamp, number: usize, owed: bool, confirmed: u64) -> Duration {
        let silent = &mut self.silent[number];
        if !owed {
            *silent = None;
        } else if silent.is_none_or(|(before, _)| before != confirmed) {
            *silent = Some((confirmed, now));
        }
        silent.map_or(Duration::ZERO, |(_, since)| now - since)
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

/// What happens to Channels.
impl<C: Context> Engine<C> {
    /// Fences Channels that carry nothing although nothing says that they failed: a NIC that gave up
    /// silently. True if peers owe acknowledgements.
    pub(super) fn look_for_silence(&mut self, now: Timestamp) -> bool {
        // Longer than the NIC tries, and than a peer may be silent.
        let path = self.connect_options();
        let tries = path.ack_timeout * (u32::from(path.retries) + 1);
        let patience = (2 * tries).max(self.config.keepalive.timeout);
        let (mut any, mut dead) = (false, Vec::new());
        for session in self.sessions.iter_mut().flatten().filter(|session| !session.over) {
            for (number, key) in session.channels.iter().enumerate() {
                let Some(channel) = self.group.channel(*key) else { continue };
                let state = channel.state();
                let (owed, confirmed) = (state.expects_ack(), state.stats().messages_confirmed);
                any |= owed;
                if session.failover.silence(now, number, owed, confirmed) >= patience {
                    dead.push(*key);
                }
            }
        }
        for key in dead {
            let cause = format!("nothing was acknowledged for {} ms", patience.as_millis());
            self.on_channel_failed(now, key, &cause);
        }
        any
    }

    /// A Channel's queue pair failed, however that was noticed.
    pub(super) fn on_channel_failed(&mut self, now: Timestamp, key: ChannelKey, cause: &str) {
        let Some((slot, number)) = self.owner(key) else { return };
        let number = usize::from(number);
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        if session.over || !session.failover.fences[number].state().has_queue_pair() {
            return;
        }
        let queue_pair = self.group.channel(key).map_or(0, |c| c.queue_pair_number());
        let id = session.numbers[number].0;
        let cause = format!("Channel {id} (queue pair {queue_pair}): {cause}");
        tracing::info!(peer = %session.shared.peer, %cause, "fencing a Channel");
        if !session.failover.negotiated {
            let error = Error::Session {
                peer: session.shared.peer,
                reason: format!("{cause}; the peer's version cannot replace a Channel"),
                kind: std::io::ErrorKind::ConnectionAborted,
            };
            return self.fail_session(slot, error);
        }
        session.failover.fences[number].on_failed(&cause);
        self.run_fence(now, slot, number, &cause);
    }

    pub(super) fn on_post_failed(
        &mut self,
        now: Timestamp,
        slot: u32,
        number: usize,
        error: &DriverError,
    ) {
        let Some(Some(session)) = self.sessions.get(slot as usize) else { return };
        if let Some(key) = session.channels.get(number).copied() {
            self.on_channel_failed(now, key, &error.to_string());
        }
    }

    /// The device says something.
    pub(super) fn on_device_event(&mut self, now: Timestamp, event: AsyncEvent) {
        let (number, cause) = match event {
            AsyncEvent::QueuePairFatal(number) => (number, "the device says that it failed"),
            AsyncEvent::AccessViolation(number) => {
                (number, "the device says that the peer broke the rules")
            }
            AsyncEvent::LastReceiveReached(number) => {
                self.group.on_last_receive(number);
                (number, "the device moved it to error")
            }
            AsyncEvent::DeviceFatal => {
                let reason = format!("the device {} is gone", self.context.attributes().name);
                let source = std::io::Error::new(std::io::ErrorKind::NotConnected, reason);
                return self.fail_all(&Error::system("using the device")(source));
            }
            AsyncEvent::PortActive | AsyncEvent::PortDown => {
                return tracing::info!(?event, "port of the device");
            }
            // A broken completion queue says so itself when it is polled.
            AsyncEvent::CompletionQueueFatal
            | AsyncEvent::ReceiveQueueLimit
            | AsyncEvent::Unknown(_) => return,
        };
        if let Some(key) = self.group.channel_of(number)
            && self.group.channel(key).is_some_and(|channel| !channel.is_fencing())
        {
            self.on_channel_failed(now, key, cause);
        }
    }

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
    fn run_fence(&mut self, now: Timestamp, slot: u32, number: usize, cause: &str) {
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
        while let Some(carried) = channel.poll_confirmed() {
            session.confirm(number, &carried);
            channel.recycle(carried);
        }
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

    /// Moves the queue pair of a Channel that is up to error, as a fault would: of all of them, the
    /// one with this number, counted around.
    pub(super) fn break_channel(&mut self, now: Timestamp, number: usize) -> bool {
        let sessions = self.sessions.iter().flatten().filter(|session| !session.over);
        let up: Vec<ChannelKey> = sessions
            .flat_map(|session| session.channels.iter().zip(&session.failover.fences))
            .filter(|(_, fence)| fence.state() == State::Up)
            .map(|(key, _)| *key)
            .collect();
        let Some(key) = up.get(number.checked_rem(up.len()).unwrap_or(0)).copied() else {
            return false;
        };
        let Some(channel) = self.group.channel_mut(key) else { return false };
        let queue_pair = channel.queue_pair_number();
        if let Err(error) = channel.fail_queue_pair() {
            tracing::warn!(%error, "breaking a Channel");
            return false;
        }
        // No device raises this event for an error that was asked for; for any other it would.
        self.on_device_event(now, AsyncEvent::QueuePairFatal(queue_pair));
        true
    }
}
