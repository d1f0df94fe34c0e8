//! How it is noticed that a Channel's queue pair failed: a request completes with an error, posting
//! does, the device or the peer says so, or nothing is acknowledged for too long. What follows is the
//! business of [`failover`](super::failover).

use netchannel_channel::fence::State;
use netchannel_driver::{ChannelKey, DriverError};
use netchannel_units::{Duration, Timestamp};
use netchannel_verbs::Context;
use netchannel_verbs::context::AsyncEvent;
use netchannel_verbs::queue_pair::ConnectOptions;

use crate::config::Keepalive;
use crate::engine::Engine;
use crate::error::Error;

/// While the peer owes an acknowledgement, failed sends are looked for this often: their completions
/// wake nobody.
pub(super) const LOOK_FOR_FAILURES: Duration = Duration::from_millis(100);

/// What a path that works and a peer that is well need beyond the timeouts of the device: a packet or
/// two may be lost, and the peer's engine answers when its processor lets it.
const GRACE: Duration = Duration::from_secs(1);

/// How long a Channel may owe its next acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// While the path is known to work.
    known: Duration,
    /// Whatever is known: longer than the device tries, and than a peer may be silent.
    any: Duration,
    /// The peer is heard this often over the control connection.
    interval: Duration,
}

impl Patience {
    fn new(path: &ConnectOptions, keepalive: &Keepalive) -> Self {
        let tries = path.ack_timeout * (u32::from(path.retries) + 1);
        Self {
            // The device tries again within one timeout of the moment when the path works again.
            known: 2 * path.ack_timeout + GRACE,
            any: (2 * tries).max(keepalive.timeout),
            interval: keepalive.interval,
        }
    }
}

/// How long the Channels of a session have carried nothing although their peer owes
/// acknowledgements.
#[derive(Debug)]
pub(super) struct Silence {
    channels: Vec<Quiet>,
    /// The peer was last heard then, over the control connection or a Channel,
    heard: Timestamp,
    /// and without a longer gap than there may be for so long in all: a clock that stands still
    /// while there is no path.
    worked: Duration,
}

#[derive(Clone, Debug, Default)]
struct Quiet {
    /// How many messages the peer had confirmed when that was looked at, since when there are no
    /// more, and what the other clock said then.
    since: Option<(u64, Timestamp, Duration)>,
    /// Times in a row that patience with it was at an end: a fabric that is slower than can be
    /// gets twice as much each time.
    given_up: u32,
}

impl Silence {
    pub(super) fn new(channels: usize) -> Self {
        let channels = vec![Quiet::default(); channels];
        Self { channels, heard: Timestamp::ZERO, worked: Duration::ZERO }
    }

    /// A queue pair is given up: the next begins anew.
    pub(super) fn end(&mut self, number: usize) {
        self.channels[number].since = None;
    }

    /// The peer was heard then; it speaks once per `interval` at least.
    fn on_heard(&mut self, heard: Timestamp, interval: Duration) {
        let gap = heard - self.heard;
        if gap <= 2 * interval {
            self.worked += gap;
        }
        self.heard = self.heard.max(heard);
    }

    /// For how long the peer has owed the next acknowledgement of a Channel, if that is too long.
    fn ends_patience(
        &mut self,
        now: Timestamp,
        number: usize,
        (owed, confirmed): (bool, u64),
        patience: Patience,
    ) -> Option<Duration> {
        let quiet = &mut self.channels[number];
        if !owed {
            quiet.since = None;
            return None;
        }
        let (before, since, worked) = *quiet.since.get_or_insert((confirmed, now, self.worked));
        if before != confirmed {
            *quiet = Quiet { since: Some((confirmed, now, self.worked)), given_up: 0 };
            self.on_heard(now, patience.interval);
            return None;
        }
        let known = patience.known * 2u32.saturating_pow(quiet.given_up);
        if self.worked - worked < known && now - since < patience.any {
            return None;
        }
        quiet.given_up = (quiet.given_up + 1).min(16);
        Some(now - since)
    }
}

impl<C: Context> Engine<C> {
    /// Fences Channels that carry nothing although nothing says that they failed: a NIC that gave up
    /// silently. True if peers owe acknowledgements.
    pub(super) fn look_for_silence(&mut self, now: Timestamp) -> bool {
        let patience = Patience::new(&self.connect_options(), &self.config.keepalive);
        let (mut any, mut dead) = (false, Vec::new());
        for session in self.sessions.iter_mut().flatten().filter(|session| !session.over) {
            let silence = &mut session.failover.silence;
            silence.on_heard(session.shared.heard(), patience.interval);
            for (number, key) in session.channels.iter().enumerate() {
                let Some(channel) = self.group.channel(*key) else { continue };
                let state = channel.state();
                let owes = (state.expects_ack(), state.stats().messages_confirmed);
                any |= owes.0;
                if let Some(lasted) = silence.ends_patience(now, number, owes, patience) {
                    dead.push((*key, lasted));
                }
            }
        }
        for (key, lasted) in dead {
            let cause = format!("nothing was acknowledged for {} ms", lasted.as_millis());
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

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Duration = Duration::from_secs(3);
    const ANY: Duration = Duration::from_secs(20);
    const PATIENCE: Patience =
        Patience { known: KNOWN, any: ANY, interval: Duration::from_secs(1) };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    /// Seconds of silence at the end of patience with Channel 1, of which `owes(second)` says what is
    /// owed; the peer is heard whenever `heard` says so.
    fn lasts(
        silence: &mut Silence,
        from: u64,
        heard: impl Fn(u64) -> bool,
        owes: impl Fn(u64) -> (bool, u64),
    ) -> Option<u64> {
        (from..from + 60).find_map(|second| {
            if heard(second) {
                silence.on_heard(at(second), PATIENCE.interval);
            }
            let lasted = silence.ends_patience(at(second), 1, owes(second), PATIENCE)?;
            silence.end(1);
            Some(lasted.as_secs())
        })
    }

    #[test]
    fn silence_ends_with_an_answer_and_with_the_queue_pair() {
        let mut silence = Silence::new(2);
        let never = |_: u64| false;
        assert_eq!(lasts(&mut silence, 100, never, |_| (false, 0)), None, "nothing is owed");
        assert_eq!(lasts(&mut silence, 200, never, |second| (true, second / 19)), None, "answers");
        silence.end(1);
        assert_eq!(lasts(&mut silence, 300, never, |second| (second % 19 > 0, 1)), None);
        silence.end(1);
        // The next queue pair may have confirmed as little.
        assert_eq!(lasts(&mut silence, 400, never, |_| (true, 1)), Some(20));
        assert_eq!(lasts(&mut silence, 500, never, |_| (true, 1)), Some(20));
    }

    #[test]
    fn patience_is_shorter_while_the_path_works() {
        let owed = |_: u64| (true, 7);
        let mut silence = Silence::new(2);
        assert_eq!(lasts(&mut silence, 100, |_| true, owed), Some(3));
        // An outage does not count: from 200 to 202 and from 210 on there is a path.
        let mut silence = Silence::new(2);
        silence.on_heard(at(199), PATIENCE.interval);
        let outage = |second| !(203..210).contains(&second);
        assert_eq!(lasts(&mut silence, 200, outage, owed), Some(11));
    }

    #[test]
    fn another_channel_that_carries_shows_that_the_path_works() {
        let mut silence = Silence::new(2);
        let lasted = (100..160).find_map(|second| {
            let carries = (true, second);
            assert!(silence.ends_patience(at(second), 0, carries, PATIENCE).is_none());
            silence.ends_patience(at(second), 1, (true, 7), PATIENCE)
        });
        // It carries for the second time, and so for the first time shows something, after 1 s.
        assert_eq!(lasted.map(|lasted| lasted.as_secs()), Some(4));
    }

    #[test]
    fn patience_grows_while_nothing_is_ever_confirmed() {
        let mut silence = Silence::new(2);
        let mut lasts = |from, owes: (bool, u64)| lasts(&mut silence, from, |_| true, |_| owes);
        let owed = (true, 0);
        let all = [lasts(100, owed), lasts(200, owed), lasts(300, owed), lasts(400, owed)];
        assert_eq!(all, [Some(3), Some(6), Some(12), Some(20)]);
    }

    #[test]
    fn patience_is_back_to_what_it_was_after_progress() {
        let mut silence = Silence::new(2);
        assert_eq!(lasts(&mut silence, 100, |_| true, |_| (true, 0)), Some(3));
        assert_eq!(
            lasts(&mut silence, 200, |_| true, |second| (true, (second / 202) * 5)),
            Some(3)
        );
    }
}
