//! Counters of a Channel, from events and never from plans.

/// What a Channel has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelStats {
    /// Messages posted, acknowledgements among them.
    pub messages_posted: u64,
    /// Bytes posted, as given to `on_transmit`.
    pub bytes_posted: u64,
    /// Messages that the NIC completed, those flushed after a failure among them.
    pub messages_completed: u64,
    /// Bytes of those.
    pub bytes_completed: u64,
    /// Messages that the peer's engine acknowledged.
    pub messages_confirmed: u64,
    /// Bytes of the messages handed out by `poll_confirmed`.
    pub bytes_confirmed: u64,
    /// Messages received, acknowledgements among them.
    pub messages_received: u64,
    /// Messages posted that carried an acknowledgement and nothing else.
    pub acks_sent: u64,
}
