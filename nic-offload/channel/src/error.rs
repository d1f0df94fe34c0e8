//! What a peer can do wrong on a Channel, and what a configuration can.

use thiserror::Error;

/// A violation of the Channel's rules. Each one of a peer is fatal for the Channel: fence it and
/// replay elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChannelError {
    /// A reliable queue pair delivers in order and once; this message is another one.
    #[error("message {found} arrived where message {expected} was next")]
    Sequence {
        /// Low 32 bits of the number that was next.
        expected: u32,
        /// The number in the header.
        found: u32,
    },
    /// The peer sent more than the credit it was given.
    #[error("message {sequence} exceeds the credit of {credit} messages")]
    Overrun {
        /// Number of the message.
        sequence: u64,
        /// Messages the peer was allowed in all.
        credit: u64,
    },
    /// An acknowledgement of a message that was never sent, or below an earlier one.
    #[error("acknowledgement of {found} messages (low 32 bits) is not in {earlier}..={sent}")]
    Acknowledged {
        /// The count in the header.
        found: u32,
        /// The highest count acknowledged before.
        earlier: u64,
        /// Messages sent.
        sent: u64,
    },
    /// Credit below an earlier one, or beyond the receives that the peer can have posted.
    #[error("credit for {found} messages (low 32 bits) is not in {earlier}..={most}")]
    Credit {
        /// The credit in the header.
        found: u32,
        /// The highest credit before.
        earlier: u64,
        /// Messages acknowledged plus the peer's slots.
        most: u64,
    },
    /// The Channel has failed; nothing that arrives counts any more.
    #[error("the Channel has failed and takes no message")]
    Failed,
    /// A slot count that cannot work.
    #[error("{slots} receive slots: a Channel needs 4 to 65536")]
    Slots {
        /// The count.
        slots: u32,
    },
    /// A send queue without room for data beside the control reserve.
    #[error("send queue of {send_queue} messages: a Channel needs 3 or more")]
    SendQueue {
        /// The bound.
        send_queue: u32,
    },
}
