//! Why a control connection cannot go on.

use super::message::MessageKind;
use super::reason::Reason;
use super::state::State;

/// What went wrong. After any error of [`Connection::receive`](super::Connection::receive) the
/// connection is closed: send what [`poll_transmit`](super::Connection::poll_transmit) still has
/// (words to the peer), then close the socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Something else runs on the other end, or bytes were lost.
    #[error("{}", bad_magic(*record, prefix))]
    Magic {
        /// Number of the record, from 0.
        record: u64,
        /// What stands where the prefix should be.
        prefix: [u8; 8],
    },
    /// A record is longer than any may be.
    #[error("a control record of {length} bytes; the longest is {max}")]
    RecordLength {
        /// What it claims.
        length: u32,
        /// The limit.
        max: u32,
    },
    /// A record is not a message.
    #[error("cannot read a control record{}: {detail}", kind.map_or(String::new(), |k| format!(" ({k:?})")))]
    Malformed {
        /// The message, if that much can be told.
        kind: Option<MessageKind>,
        /// What the CBOR reader says.
        detail: String,
    },
    /// A message that this version does not know and must not skip.
    #[error("control message {number} ({name}) is not supported in this version")]
    NotSupported {
        /// Its number.
        number: u32,
        /// Its name, if it is reserved, else "unknown".
        name: &'static str,
    },
    /// A message at the wrong time.
    #[error("{kind:?} in state {state:?}")]
    OutOfOrder {
        /// The state.
        state: State,
        /// The message.
        kind: MessageKind,
    },
    /// A value that cannot be.
    #[error("{field} is {value}, must be {min} to {max}")]
    OutOfRange {
        /// What.
        field: &'static str,
        /// What it is.
        value: u64,
        /// The least it may be.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A list of Channels that does not fit together.
    #[error("channel {index} {what}")]
    ChannelOffers {
        /// Its index.
        index: u16,
        /// What about it.
        what: &'static str,
    },
    /// The peer accepted something that was not offered.
    #[error("{what} {value:#x} was not offered")]
    NotOffered {
        /// What.
        what: &'static str,
        /// What it chose.
        value: u64,
    },
    /// This side refused the peer.
    #[error("refused the peer: {text}")]
    Refused {
        /// The reason.
        reason: Reason,
        /// What the peer was told.
        text: String,
    },
    /// This side asked for something that its state does not allow; nothing was done.
    #[error("{operation} in state {state:?}")]
    Misuse {
        /// What was called.
        operation: &'static str,
        /// The state.
        state: State,
    },
}

impl ControlError {
    /// What the peer is told.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Magic { .. }
            | Self::RecordLength { .. }
            | Self::Malformed { .. }
            | Self::OutOfRange { .. }
            | Self::ChannelOffers { .. }
            | Self::NotOffered { .. } => Reason::Malformed,
            Self::NotSupported { .. } => Reason::NotSupported,
            Self::OutOfOrder { .. } | Self::Misuse { .. } => Reason::OutOfOrder,
            Self::Refused { reason, .. } => *reason,
        }
    }
}

fn bad_magic(record: u64, prefix: &[u8; 8]) -> String {
    let hex: Vec<String> = prefix.iter().map(|byte| format!("{byte:02x}")).collect();
    let hex = hex.join(" ");
    if record == 0 {
        format!("this does not speak the NetChannel control protocol: it starts with {hex}")
    } else {
        format!("control record {record} starts with {hex}: bytes were lost or damaged")
    }
}
