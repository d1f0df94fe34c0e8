//! Errors.

use netchannel_units::{ByteRange, StreamOffset};
use netchannel_wire::StreamId;
use netchannel_wire::frame::GrantId;
use netchannel_wire::frame::reset::Reason;

/// The peer broke the protocol; its session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A frame for a stream that was never opened.
    #[error("the peer sent a frame for stream {0:?}, which nobody opened")]
    UnknownStream(StreamId),
    /// An OPEN with a number that is not the peer's to give, or far ahead of what it gave before.
    #[error("the peer opened stream {0:?}, a number that is not its to use (now)")]
    BadStreamNumber(StreamId),
    /// More streams at once than this side puts up with.
    #[error("the peer opened stream {0:?} beside too many others (limit {limit})", limit = crate::streams::MAX_PEER_STREAMS)]
    TooManyStreams(StreamId),
    /// Bytes above what was promised.
    #[error("stream {stream:?}: bytes {range:?} are above the limit {limit}")]
    AboveLimit {
        /// The stream.
        stream: StreamId,
        /// The bytes.
        range: ByteRange,
        /// What had been promised.
        limit: StreamOffset,
    },
    /// Bytes above the end of the stream, or two different ends.
    #[error("stream {stream:?}: final offset {was} contradicted by {now}")]
    FinalOffset {
        /// The stream.
        stream: StreamId,
        /// The end (or the highest byte received) known before.
        was: StreamOffset,
        /// The new claim.
        now: StreamOffset,
    },
    /// Bulk bytes in a window that does not hold them.
    #[error(
        "stream {stream:?}: bytes {range:?} were announced in {grant:?}, which does not hold them"
    )]
    BadGrant {
        /// The stream.
        stream: StreamId,
        /// The window named.
        grant: GrantId,
        /// The bytes.
        range: ByteRange,
    },
    /// A frame that this side of the stream never gets (OPENED for a stream the peer opened, a
    /// refusal of bytes never sent, ...).
    #[error("stream {stream:?}: unexpected {what}")]
    Unexpected {
        /// The stream.
        stream: StreamId,
        /// Which frame, and why it is wrong.
        what: &'static str,
    },
}

/// What an application's call may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// There is no such stream (any more).
    #[error("no such stream: it was closed")]
    Closed,
    /// The half was finished by this side.
    #[error("the stream was finished: nothing may be written after that")]
    Finished,
    /// The peer gave up sending.
    #[error("the peer reset the stream: {}", Reason(*.0))]
    Reset(u32),
    /// The peer does not read any more.
    #[error("the peer stopped reading: {}", Reason(*.0))]
    Stopped(u32),
    /// Too many streams of this side are open.
    #[error("too many streams are open at once ({limit}); close some", limit = crate::streams::MAX_STREAMS)]
    TooMany,
    /// All 2^31 numbers of this side are used up.
    #[error("the session has no stream numbers left; open a new session")]
    NumbersExhausted,
}
