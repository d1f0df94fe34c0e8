//! How it is noticed that a Channel's queue pair failed: a request completes with an error, posting
//! does, the device or the peer says so, or nothing is acknowledged for too long. What follows is the
//! business of [`failover`](super::failover).

use netchannel_channel::fence::State;
use netchannel_driver::{ChannelKey, DriverError};
use netchannel_units::{Duration, Timestamp};
use netchannel_verbs::Context;
use netchannel_verbs::context::AsyncEvent;

use crate::engine::Engine;
use crate::error::Error;

/// While the peer owes an acknowledgement, failed sends are looked for this often: their completions
/// wake nobody.
pub(super) const LOOK_FOR_FAILURES: Duration = Duration::from_millis(100);

/// Channels whose peer owes an acknowledgement: how many messages it had confirmed when that was
/// looked at, and since when there are no more.
#[derive(Debug)]
pub(super) struct Silence(Vec<Option<(u64, Timestamp)>>);

impl Silence {
    pub(super) fn new(channels: usize) -> Self {
        Self(vec![None; channels])
    }

    /// A queue pair is given up: the next begins anew.
    pub(super) fn end(&mut self, number: usize) {
        self.0[number] = None;
    }

    /// How long the peer has owed the next acknowledgement of a Channel.
    fn lasts(&mut self, now: Timestamp, number: usize, owed: bool, confirmed: u64) -> Duration {
        let silent = &mut self.0[number];
        if !owed {
            *silent = None;
        } else if silent.is_none_or(|(before, _)| before != confirmed) {
            *silent = Some((confirmed, now));
        }
        silent.map_or(Duration::ZERO, |(_, since)| now - since)
    }
}

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
                if session.failover.silence.lasts(now, number, owed, confirmed) >= patience {
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

    #[test]
    fn silence_ends_with_an_answer_and_with_the_queue_pair() {
        let at = |seconds: u64| Timestamp::ZERO + Duration::from_secs(seconds);
        let mut silence = Silence::new(2);
        let mut lasts = |now, owed, confirmed| silence.lasts(at(now), 1, owed, confirmed).as_secs();
        assert_eq!([lasts(1, true, 0), lasts(4, true, 0)], [0, 3]);
        assert_eq!([lasts(5, true, 1), lasts(6, true, 1)], [0, 1], "an answer came");
        assert_eq!([lasts(7, false, 1), lasts(8, true, 1)], [0, 0], "nothing was owed");
        assert_eq!(lasts(9, true, 1), 1);
        // The next queue pair may have confirmed as little.
        silence.end(1);
        assert_eq!(silence.lasts(at(10), 1, true, 1), Duration::ZERO);
    }
}
