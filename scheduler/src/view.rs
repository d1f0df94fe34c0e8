//! What a decision sees and says.

use netchannel_units::{Bandwidth, Class, Duration};

/// The scheduler keeps a table indexed by it: count from zero and reuse.
pub use netchannel_units::ChannelId;

/// Name of a stream, the caller's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey(pub u64);

/// A Channel as a decision sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelView {
    /// Which one.
    pub id: ChannelId,
    /// It may take a data message now: alive, with a receive slot left at the peer.
    pub usable: bool,
    /// The class whose streams it carries; `None` is any.
    pub class: Option<Class>,
    /// Bytes posted and not completed.
    pub outstanding: u64,
    /// Bytes that congestion control still lets out.
    pub window_left: u64,
    /// Measured delivery rate; zero is unknown.
    pub rate: Bandwidth,
    /// Measured completion time without its own queueing; zero is unknown.
    pub completion_time: Duration,
    /// A message is due on it anyway: it owes an acknowledgement, or has a draft.
    pub message_due: bool,
}

impl ChannelView {
    /// A usable Channel for any class that carried nothing yet.
    pub const fn new(id: ChannelId) -> Self {
        Self {
            id,
            usable: true,
            class: None,
            outstanding: 0,
            window_left: u64::MAX,
            rate: Bandwidth::ZERO,
            completion_time: Duration::ZERO,
            message_due: false,
        }
    }

    /// Whether it carries streams of `class`.
    pub fn carries(&self, class: Class) -> bool {
        self.class.is_none_or(|own| own == class)
    }
}

/// The next piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Whose bytes.
    pub stream: StreamKey,
    /// Where they go.
    pub channel: ChannelId,
    /// How many, at least one.
    pub bytes: u64,
    /// What the stream has left after these. Only if that is not so the caller need say it.
    pub left: u64,
}
