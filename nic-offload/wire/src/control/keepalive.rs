//! Signs of life. The client asks, the server answers, and each takes the other for dead when
//! nothing has come for its death timeout: any byte counts.
//!
//! A side that has heard nothing for two intervals asks, too, whatever its role: what becomes of
//! its bytes tells a stopped peer from a path that is [out](Path::Out). An outage is not a death:
//! the bytes go on to be sent again, and the peer gets the outage timeout.

use netchannel_units::{Duration, Timestamp};

use super::state::Role;

/// What the transport knows of the bytes that this side has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Path {
    /// The peer's host acknowledged all of them: a silent peer is itself to blame.
    #[default]
    Works,
    /// Some were sent a moment ago: neither acknowledged nor sent again.
    Unknown,
    /// Some had to be sent again and are not acknowledged, or this side's own port is down.
    Out,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// Ask with this nonce.
    Ask(u64),
    /// The peer is dead.
    Dead {
        /// It has been silent for so long.
        silent: Duration,
        /// What was known of the path.
        path: Path,
    },
}

/// With the path unknown, death waits this much longer: TCP sends again after 200 ms or so, and then
/// the path is known. Within the 2 s that operators wait for a stopped peer.
const BENEFIT_OF_DOUBT: Duration = Duration::from_millis(300);

/// The timers of an established connection.
#[derive(Debug)]
pub(super) struct Keepalive {
    role: Role,
    interval: Duration,
    death_timeout: Duration,
    outage_timeout: Duration,
    path: Path,
    next_ask: Timestamp,
    last_heard: Timestamp,
    /// The peer is not dead before this, whatever was heard.
    not_before: Timestamp,
    asked: Option<(u64, Timestamp)>,
    nonce: u64,
    round_trip: Option<Duration>,
}

impl Keepalive {
    /// `timeouts` are those of death and of an outage.
    pub(super) fn new(
        role: Role,
        interval: Duration,
        timeouts: [Duration; 2],
        now: Timestamp,
    ) -> Self {
        let [death_timeout, outage_timeout] = timeouts;
        let mut this = Self {
            role,
            interval,
            death_timeout,
            outage_timeout: outage_timeout.max(death_timeout),
            path: Path::Works,
            next_ask: Timestamp::MAX,
            last_heard: now,
            not_before: Timestamp::ZERO,
            asked: None,
            nonce: 0,
            round_trip: None,
        };
        this.schedule(now);
        this
    }

    pub(super) fn on_bytes(&mut self, now: Timestamp) {
        self.last_heard = self.last_heard.max(now);
        self.path = Path::Works;
        if self.role == Role::Server {
            self.schedule(now);
        }
    }

    pub(super) fn on_path(&mut self, now: Timestamp, path: Path) {
        if self.path == Path::Out && path != Path::Out {
            // The path is back; the peer's own bytes wait for a timer of its transport that has
            // backed off by no more than the outage took.
            self.not_before = now + (now - self.last_heard).min(self.outage_timeout);
        }
        self.path = path;
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

    /// Who is asked for signs of life wonders only when they do not come.
    fn schedule(&mut self, now: Timestamp) {
        self.next_ask = match self.role {
            Role::Client => next_slot(now, self.interval),
            Role::Server => (self.last_heard + self.interval * 2).max(now + self.interval / 2),
        };
    }

    fn death(&self) -> Timestamp {
        let timeout = match self.path {
            Path::Works => self.death_timeout,
            Path::Unknown => self.death_timeout + BENEFIT_OF_DOUBT,
            Path::Out => self.outage_timeout,
        };
        (self.last_heard + timeout).max(self.not_before)
    }

    pub(super) fn next_timeout(&self) -> Timestamp {
        self.death().min(self.next_ask)
    }

    pub(super) fn on_timeout(&mut self, now: Timestamp) -> Due {
        let mut due = Due::Nothing;
        if now >= self.next_ask {
            // Who slept through a whole interval has not asked when it should have: the peer gets
            // the time for one more answer.
            if now - self.next_ask >= self.interval {
                self.not_before = now + self.interval;
            }
            self.schedule(now);
            // What was sent is sent again by the transport: more would only pile up.
            if self.path != Path::Out {
                self.nonce += 1;
                self.asked = Some((self.nonce, now));
                due = Due::Ask(self.nonce);
            }
        }
        if now >= self.death() {
            return Due::Dead { silent: now - self.last_heard, path: self.path };
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
