//! Why bytes are not a message.

/// What is wrong with a message that came in. The Channel that carried it cannot be trusted any
/// more and is to be fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside something.
    #[error("the message ends inside its {field}: {needed} bytes needed, {available} there")]
    Truncated {
        /// What the bytes end in.
        field: &'static str,
        /// Bytes that it takes.
        needed: usize,
        /// Bytes that were left.
        available: usize,
    },
    /// Bytes follow the last frame.
    #[error("{count} bytes follow the last frame")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// The message has another layout.
    #[error("message version {value}; this side reads version 1")]
    Version {
        /// The version that it claims.
        value: u8,
    },
    /// Something that must be zero in this version is not.
    #[error("{field} is {value:#x}, must be zero")]
    Reserved {
        /// Where.
        field: &'static str,
        /// What stands there.
        value: u32,
    },
    /// A frame of a kind that this side does not know, and must not skip.
    #[error("unknown frame kind {kind:#04x}")]
    UnknownKind {
        /// The kind.
        kind: u8,
    },
    /// The body of a frame has the wrong length for its kind.
    #[error("the body of a {frame} frame has {value} bytes, must have {expected}")]
    Length {
        /// Name of the kind.
        frame: &'static str,
        /// What it must be (the least it must be, for kinds that end in bytes).
        expected: u16,
        /// What it is.
        value: u16,
    },
    /// Something runs past the end of its 64-bit space.
    #[error("{field}: {len} bytes from {start:#x} run past the 64-bit space")]
    Overflow {
        /// What.
        field: &'static str,
        /// Where it starts.
        start: u64,
        /// How long it is.
        len: u64,
    },
    /// A range without bytes, or one that ends before it starts.
    #[error("the range of a {frame} frame, {start} to {end}, has no bytes")]
    Range {
        /// Name of the kind.
        frame: &'static str,
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// An unknown traffic class.
    #[error("unknown traffic class {value}")]
    Class {
        /// Its number.
        value: u8,
    },
    /// A weight out of range.
    #[error("weight byte {value}, must be below {}", netchannel_units::Weight::MAX)]
    Weight {
        /// As it came: one less than the weight.
        value: u8,
    },
    /// A window of a size that no receiver grants.
    #[error("a window of 2^{value} bytes; windows have 2^12 to 2^40")]
    WindowSize {
        /// Logarithm of the size.
        value: u8,
    },
}

/// The frame does not fit into the rest of the message buffer: backpressure, not failure. Send
/// what is there and start the next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame does not fit into this message")]
pub struct NoRoom;
