//! What goes in and out of the table of streams.

use netchannel_units::{ByteRange, ChannelId, Claim, StreamOffset};
use netchannel_wire::frame::GrantId;
use netchannel_wire::{Frame, StreamId};

use crate::pool::Lease;
use crate::receive::ReceiveLimits;
pub use crate::stream::Owed;

/// Which side of the session this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opened the control connection: its streams have even numbers.
    Client,
    /// Accepted it: its streams have odd numbers.
    Server,
}

/// Settings of a session's streams.
#[derive(Clone, Copy, Debug)]
pub struct StreamsConfig {
    /// Which side this is.
    pub role: Role,
    /// Bytes that this side takes on a new or idle stream, eagerly. A power of two, at most
    /// 2 MiB.
    pub eager_credit: u64,
    /// Bytes that the peer takes so.
    pub peer_eager_credit: u64,
    /// log2 of the largest receive window, at most 21.
    pub window_log2: u8,
    /// Most bytes of one eager chunk, not zero.
    pub eager_chunk: u64,
    /// Fewer bytes than this go eagerly even where there is a window. At least 1 KiB: a peer that
    /// gets bulk bytes out of order in smaller pieces takes that for an attack.
    pub bulk_min: u64,
    /// How often a peer that sends steadily hears of new credit while it fills a window.
    pub credits_per_window: u64,
}

impl StreamsConfig {
    /// What limits receiving halves.
    pub(crate) fn receive_limits(&self) -> ReceiveLimits {
        ReceiveLimits {
            eager: self.eager_credit,
            window_log2: self.window_log2,
            credits_per_window: self.credits_per_window,
        }
    }
}

/// What a message carried for the streams; comes back confirmed or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Bytes.
    Chunk {
        /// The stream.
        stream: StreamId,
        /// Which bytes.
        range: ByteRange,
        /// Whether they were written into a window.
        bulk: bool,
    },
    /// Other frames.
    Control {
        /// The stream.
        stream: StreamId,
        /// Which frames.
        what: Owed,
    },
    /// RETURN for a stream that is gone.
    LateReturn {
        /// The stream.
        stream: StreamId,
        /// The window.
        grant: GrantId,
    },
}

impl Carried {
    /// Whether it refuses bytes of the peer: until it is confirmed the peer must not take the message
    /// that brought those bytes for processed, whatever happens to the Channel.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Control { what, .. } if what.has(Owed::REFUSE))
    }
}

/// What to do with the bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Nothing: there were none, or nobody wants them.
    None,
    /// Copy them as [`Streams::pieces`](super::Streams::pieces) says.
    Copy {
        /// Whether earlier bytes are missing.
        out_of_order: bool,
    },
    /// They are in place already.
    InPlace {
        /// Number of bytes.
        bytes: u64,
        /// Whether earlier bytes are missing.
        out_of_order: bool,
    },
}

/// A frame to send that carries no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Complete as it is.
    Frame(Frame<'static>),
    /// A window; the engine knows its address and key ([`Frame::Window`]).
    Window {
        /// The stream.
        stream: StreamId,
        /// Name of the grant.
        grant: GrantId,
        /// The memory.
        lease: Lease,
        /// First byte that may be written.
        from: StreamOffset,
        /// Bytes below may be sent.
        limit: StreamOffset,
    },
}

/// A [`Control`] frame and its circumstances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The frame.
    pub frame: Control,
    /// The Channel it must use, if it matters.
    pub via: Option<ChannelId>,
    /// What to hand to [`Streams::on_control_sent`](super::Streams::on_control_sent).
    pub carried: Carried,
}

/// What a stream could send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The stream.
    pub stream: StreamId,
    /// Its class and weight.
    pub claim: Claim,
    /// Bytes that could go now.
    pub bytes: u64,
    /// The Channel they must use, if it matters.
    pub via: Option<ChannelId>,
}

/// A stream that the peer opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The stream.
    pub stream: StreamId,
    /// Its class and weight.
    pub claim: Claim,
    /// The listener it wants.
    pub service: u16,
}
