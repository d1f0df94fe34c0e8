//! Sizes of a Channel and its acknowledgement policy.

use netchannel_units::Duration;

use crate::error::ChannelError;
use crate::flow::{CONTROL_RESERVE, MAX_SLOTS, MIN_SLOTS};

/// Sizes of a Channel. Both sides know both slot counts before the first message (the session
/// exchanges them with the queue pair addresses).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// Receives that this side keeps posted for this Channel.
    pub receive_slots: u32,
    /// Receives that the peer keeps posted: the credit before its first message.
    pub peer_slots: u32,
    /// Most messages posted and not yet completed by the NIC. The driver signals at least one
    /// message in `send_queue - 2` or the queue never drains.
    pub send_queue: u32,
    /// When to acknowledge.
    pub acks: AckPolicy,
}

impl ChannelConfig {
    /// Checks the sizes; the session calls this with the peer's numbers before it makes a
    /// Channel.
    ///
    /// # Errors
    /// [`ChannelError::Slots`] or [`ChannelError::SendQueue`] for a size out of range.
    pub fn check(&self) -> Result<(), ChannelError> {
        for slots in [self.receive_slots, self.peer_slots] {
            if !(MIN_SLOTS..=MAX_SLOTS).contains(&slots) {
                return Err(ChannelError::Slots { slots });
            }
        }
        if u64::from(self.send_queue) <= CONTROL_RESERVE {
            return Err(ChannelError::SendQueue { send_queue: self.send_queue });
        }
        Ok(())
    }
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self { receive_slots: 64, peer_slots: 64, send_queue: 128, acks: AckPolicy::default() }
    }
}

/// When the receiver of messages owes a message of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckPolicy {
    /// Messages with frames that may stay unacknowledged before an acknowledgement is due at the
    /// end of the poll pass. Two, as in RFC 9000 section 13.2.2: with 256 KiB chunks in 4 KiB
    /// packets that is half a packet on 65, while the sender's memory comes back early.
    pub every: u32,
    /// How long fewer messages than that may stay unacknowledged. Long enough for a reply to
    /// carry the acknowledgement, of the order of a round trip through a busy fabric, and short
    /// beside the time in which the sender would miss the memory.
    pub delay: Duration,
}

impl Default for AckPolicy {
    fn default() -> Self {
        Self { every: 2, delay: Duration::from_micros(20) }
    }
}
