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

impl core::ops::AddAssign for ChannelStats {
    /// Of the queue pairs that a Channel has had.
    fn add_assign(&mut self, other: Self) {
        self.messages_posted += other.messages_posted;
        self.bytes_posted += other.bytes_posted;
        self.messages_completed += other.messages_completed;
        self.bytes_completed += other.bytes_completed;
        self.messages_confirmed += other.messages_confirmed;
        self.bytes_confirmed += other.bytes_confirmed;
        self.messages_received += other.messages_received;
        self.acks_sent += other.acks_sent;
    }
}
