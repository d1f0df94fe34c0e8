//! Fencing a dead queue pair and putting another in its place, as both sides of a Channel agree on
//! it over their control connection.
//!
//! Either side may notice first, both may, and every step may fail: the state machine is the same on
//! both sides. What each must be able to rely on:
//!
//! - [`Action::Replay`] comes when the queue pairs of *both* sides are drained and destroyed: nothing of
//!   what they carried can arrive any more, neither message nor WRITE.
//! - The epoch of both sides is the same when messages of the next queue pair travel, so that
//!   what is said of an earlier one cannot be taken for it.
//!
//! - [`state`]: the states and their diagram.

use std::collections::VecDeque;

use netchannel_units::{Duration, Timestamp};
use netchannel_wire::control::{ChannelNews, MessageKind};

pub mod state;

pub use state::State;

/// The first pause before another attempt; each further one is twice as long. A local failure to
/// make a queue pair (no memory for a moment) is over as soon.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest: a path that comes back is found within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A queue pair that was up for so long was no failed attempt, even if it carried nothing.
const LONG_LIFE: Duration = Duration::from_secs(1);

/// What this side is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Move the queue pair to error, take what has arrived, destroy it; then
    /// [`Fence::on_drained`].
    Drain,
    /// Tell the peer.
    Say {
        /// Of which queue pair.
        epoch: u32,
        /// What.
        news: ChannelNews,
    },
    /// Both sides are fenced, and the peer has processed this many messages at least: replay the
    /// others.
    Replay {
        /// As in the peer's report.
        received: u64,
    },
    /// Connect the new queue pair to the peer's; then [`Fence::on_connected`], or
    /// [`Fence::on_failed`].
    Connect {
        /// The peer's.
        endpoint: Vec<u8>,
    },
    /// Messages may leave through the new queue pair.
    Use,
}

/// The peer said something that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// At the wrong time.
    #[error("{kind:?} of a queue pair that is {state:?}")]
    OutOfOrder {
        /// Where the queue pair stands.
        state: State,
        /// What was said.
        kind: MessageKind,
    },
    /// Of a queue pair that cannot exist yet.
    #[error("{kind:?} of queue pair {epoch} where {newest} is the newest")]
    Future {
        /// What was said.
        kind: MessageKind,
        /// Of which.
        epoch: u32,
        /// The newest.
        newest: u32,
    },
}

/// The fence of one Channel. Inputs are the `on_` methods; after each, take all of
/// [`Fence::poll_action`].
///
/// ```
/// use netchannel_channel::fence::{Action, Fence, State};
/// use netchannel_units::Timestamp;
/// use netchannel_wire::control::ChannelNews;
///
/// let now = Timestamp::ZERO;
/// let mut fence = Fence::new(now);
/// // The peer's queue pair died.
/// fence.on_news(now, 0, ChannelNews::Fence { cause: "cut".into() })?;
/// assert_eq!(fence.poll_action(), Some(Action::Drain));
/// fence.on_drained(now, 17);
/// let report = ChannelNews::Fenced { received: 17 };
/// assert_eq!(fence.poll_action(), Some(Action::Say { epoch: 0, news: report }));
/// fence.on_news(now, 0, ChannelNews::Fenced { received: 4 })?;
/// assert_eq!(fence.poll_action(), Some(Action::Replay { received: 4 }));
/// assert_eq!((fence.state(), fence.epoch()), (State::Down, 1));
/// assert!(fence.wants_queue_pair(now));
/// # Ok::<(), netchannel_channel::fence::FenceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fence {
    state: State,
    epoch: u32,
    /// The peer's report, if it came before this side had drained.
    report: Option<u64>,
    /// The peer's endpoint, if it came before this side had a queue pair.
    endpoint: Option<Vec<u8>>,
    /// The peer said Renewed before this side had connected.
    peer_connected: bool,
    /// Attempts since a queue pair last proved that it works.
    attempts: u32,
    proved: bool,
    /// When this queue pair came up, if it did.
    up_since: Option<Timestamp>,
    make_at: Timestamp,
    actions: VecDeque<Action>,
}

/// Getters and outputs.
impl Fence {
    /// Of a Channel whose first queue pair is connected.
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: State::Up,
            epoch: 0,
            report: None,
            endpoint: None,
            peer_connected: false,
            attempts: 0,
            proved: false,
            up_since: Some(now),
            make_at: Timestamp::MAX,
            actions: VecDeque::new(),
        }
    }

    /// Where the queue pair stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Which queue pair it is, counted from 0.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether to make a queue pair now; then [`on_made`](Self::on_made) or
    /// [`on_make_failed`](Self::on_make_failed).
    pub fn wants_queue_pair(&self, now: Timestamp) -> bool {
        self.state == State::Down && self.make_at <= now
    }

    /// When [`wants_queue_pair`](Self::wants_queue_pair) becomes true by itself.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        (self.state == State::Down).then_some(self.make_at)
    }
}

/// What happens on this side.
impl Fence {
    /// The queue pair failed; nothing is changed if that is known.
    pub fn on_failed(&mut self, cause: &str) {
        if !self.state.has_queue_pair() {
            return;
        }
        let news = ChannelNews::Fence { cause: cause.to_owned() };
        self.drain();
        self.say(news);
    }

    /// Everything that arrived was taken, the queue pair is destroyed, and `received` messages from
    /// the first were processed for good.
    pub fn on_drained(&mut self, now: Timestamp, received: u64) {
        if self.state != State::Draining {
            return;
        }
        self.say(ChannelNews::Fenced { received });
        self.state = State::Fenced;
        if let Some(report) = self.report.take() {
            self.on_both_fenced(now, report);
        }
    }

    /// A queue pair is made, with this endpoint.
    pub fn on_made(&mut self, endpoint: Vec<u8>) {
        if self.state != State::Down {
            return;
        }
        self.make_at = Timestamp::MAX;
        self.say(ChannelNews::Renew { endpoint });
        self.state = State::Offered;
        if let Some(theirs) = self.endpoint.take() {
            self.connect(theirs);
        }
    }

    /// None could be made: it is tried again later.
    pub fn on_make_failed(&mut self, now: Timestamp) {
        if self.state == State::Down {
            self.make_at = now + self.pause().max(FIRST_PAUSE);
        }
    }

    /// The queue pair is connected.
    pub fn on_connected(&mut self, now: Timestamp) {
        if self.state != State::Connecting {
            return;
        }
        self.say(ChannelNews::Renewed);
        self.state = State::Connected;
        if std::mem::take(&mut self.peer_connected) {
            self.up(now);
        }
    }

    /// The queue pair has carried something: the next failure is a new one.
    pub fn on_proved(&mut self) {
        self.proved = true;
    }
}

/// What the peer says.
impl Fence {
    /// The peer said something of queue pair `epoch`.
    ///
    /// # Errors
    /// It cannot have: the peer is broken. Nothing was changed.
    pub fn on_news(
        &mut self,
        now: Timestamp,
        epoch: u32,
        news: ChannelNews,
    ) -> Result<(), FenceError> {
        let kind = news.kind();
        if epoch > self.epoch {
            return Err(FenceError::Future { kind, epoch, newest: self.epoch });
        }
        if epoch < self.epoch {
            return Ok(());
        }
        match (self.state, news) {
            // Both noticed.
            (State::Draining | State::Fenced, ChannelNews::Fence { .. }) => {}
            (State::Down, ChannelNews::Fence { .. }) => {
                self.endpoint = None;
                self.make_at = Timestamp::MAX;
                self.say(ChannelNews::Fenced { received: 0 });
                self.state = State::Fenced;
            }
            (_, ChannelNews::Fence { .. }) => self.drain(),
            (State::Draining, ChannelNews::Fenced { received }) if self.report.is_none() => {
                self.report = Some(received);
            }
            (State::Fenced, ChannelNews::Fenced { received }) => self.on_both_fenced(now, received),
            (State::Down, ChannelNews::Renew { endpoint }) if self.endpoint.is_none() => {
                self.endpoint = Some(endpoint);
            }
            (State::Offered, ChannelNews::Renew { endpoint }) => self.connect(endpoint),
            (State::Connecting, ChannelNews::Renewed) if !self.peer_connected => {
                self.peer_connected = true;
            }
            (State::Connected, ChannelNews::Renewed) => self.up(now),
            // Said before the peer heard of the failure here.
            (State::Draining | State::Fenced, ChannelNews::Renew { .. } | ChannelNews::Renewed)
                if self.epoch > 0 => {}
            (state, _) => return Err(FenceError::OutOfOrder { state, kind }),
        }
        Ok(())
    }
}

impl Fence {
    fn say(&mut self, news: ChannelNews) {
        self.actions.push_back(Action::Say { epoch: self.epoch, news });
    }

    fn drain(&mut self) {
        // What was to be done with this queue pair is not to be done any more.
        self.actions.retain(|a| !matches!(a, Action::Connect { .. } | Action::Use));
        self.peer_connected = false;
        self.state = State::Draining;
        self.actions.push_back(Action::Drain);
    }

    fn connect(&mut self, endpoint: Vec<u8>) {
        self.state = State::Connecting;
        self.actions.push_back(Action::Connect { endpoint });
    }

    fn up(&mut self, now: Timestamp) {
        self.state = State::Up;
        self.up_since = Some(now);
        self.proved = false;
        self.actions.push_back(Action::Use);
    }

    fn on_both_fenced(&mut self, now: Timestamp, received: u64) {
        self.actions.push_back(Action::Replay { received });
        self.state = State::Down;
        self.epoch = self.epoch.wrapping_add(1);
        let lived = self.up_since.take().map_or(Duration::ZERO, |since| now - since);
        if std::mem::take(&mut self.proved) || lived >= LONG_LIFE {
            self.attempts = 0;
        }
        self.make_at = now + self.pause();
    }

    /// The pause before the next attempt: none before the first.
    fn pause(&mut self) -> Duration {
        let failed = self.attempts;
        self.attempts = failed.saturating_add(1);
        match failed {
            0 => Duration::ZERO,
            n => (FIRST_PAUSE * 2u32.saturating_pow((n - 1).min(16))).min(LONGEST_PAUSE),
        }
    }
}
