//! What the other side can do wrong.

/// Why a conversation cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The first packet is not one of ours.
    #[error(
        "the other side does not speak the NetChannel attach protocol (its first bytes are {start:02x?})"
    )]
    Magic {
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// Another release.
    #[error(
        "the other side speaks version {theirs} of the attach protocol, this one version {ours}; \
         use programs of one release on both sides"
    )]
    Version {
        /// Theirs.
        theirs: u16,
        /// Ours.
        ours: u16,
    },
    /// A packet that is no message.
    #[error("cannot read {what}: {detail}")]
    Malformed {
        /// What it should have been.
        what: &'static str,
        /// What the CBOR reader says.
        detail: String,
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
        /// The most it may be.
        max: u64,
    },
    /// Descriptors where none are wanted.
    #[error("{found} descriptors came with {what}, which needs none")]
    Descriptors {
        /// How many.
        found: usize,
        /// With what.
        what: &'static str,
    },
    /// A packet longer than any may be.
    #[error("a packet of {length} bytes; the longest is {max}")]
    TooLong {
        /// Its length.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// The other side does not want this conversation, and says why.
    #[error("{0}")]
    Refused(String),
}
