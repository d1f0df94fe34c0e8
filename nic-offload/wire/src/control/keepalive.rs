//! Signs of life. The client asks, the server answers, and each takes the other for dead when
//! nothing has come for its death timeout: any byte counts.

use netchannel_units::{Duration, Timestamp};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// Ask with this nonce.
    Ask(u64),
    /// The peer has been silent for so long.
    Dead(Duration),
}

/// The timers of an established connection.
#[derive(Debug)]
pub(super) struct Keepalive {
    /// How often to ask; `None` for the side that answers.
    interval: Option<Duration>,
    death_timeout: Duration,
    next_ask: Timestamp,
    last_heard: Timestamp,
    /// The peer is not dead before this, whatever was heard.
    not_before: Timestamp,
    asked: Option<(u64, Timestamp)>,
    nonce: u64,
    round_trip: Option<Duration>,
}

impl Keepalive {
    pub(super) fn new(interval: Option<Duration>, death_timeout: Duration, now: Timestamp) -> Self {
        Self {
            interval,
            death_timeout,
            next_ask: interval.map_or(Timestamp::MAX, |interval| next_slot(now, interval)),
            last_heard: now,
            not_before: Timestamp::ZERO,
            asked: None,
            nonce: 0,
            round_trip: None,
        }
    }

    pub(super) fn on_bytes(&mut self, now: Timestamp) {
        self.last_heard = self.last_heard.max(now);
    }

    pub(super) fn on_pong(&mut self, nonce: u64, now: Timestamp) {
        if let Some((asked, at)) = self.asked
            && asked == nonce
        {
            self.round_trip = Some(now - at);
            self.asked = None;
        }
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    fn death(&self) -> Timestamp {
        (self.last_heard + self.death_timeout).max(self.not_before)
    }

    pub(super) fn next_timeout(&self) -> Timestamp {
        self.death().min(self.next_ask)
    }

    pub(super) fn on_timeout(&mut self, now: Timestamp) -> Due {
        let mut due = Due::Nothing;
        if let Some(interval) = self.interval
            && now >= self.next_ask
        {
            // Who slept through a whole interval has not asked when it should have: the peer gets
            // the time for one more answer.
            if now - self.next_ask >= interval {
                self.not_before = now + interval;
            }
            self.next_ask = next_slot(now, interval);
            self.nonce += 1;
            self.asked = Some((self.nonce, now));
            due = Due::Ask(self.nonce);
        }
        if now >= self.death() {
            return Due::Dead(now - self.last_heard);
        }
        due
    }
}

/// The next multiple of `interval`: the questions of all sessions of a process fall into the same
/// wake-ups.
fn next_slot(now: Timestamp, interval: Duration) -> Timestamp {
    let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    let slot = (now.as_nanos() / interval).saturating_add(1).saturating_mul(interval);
    Timestamp::from_nanos(slot)
}
