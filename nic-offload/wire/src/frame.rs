//! Messages of the data path. A message is the payload of one SEND: a [`MessageHeader`], then
//! frames.

use netchannel_units::{ByteRange, Class, StreamOffset, Weight};

/// Number of a stream in its group of a session. The side that opened the session's control connection uses
/// even numbers, the other odd ones; each counts up and never uses a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// Number of a receive window that was granted, counted up by the receiver per group of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(pub u32);

/// The first bytes of every message.
///
/// The counters are the low 32 bits of counts that start at zero with the Channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageHeader {
    /// Number of this message on its Channel, from 0.
    pub sequence: u32,
    /// How many of the peer's messages on this Channel the sender's engine has processed. It
    /// speaks for the time after the frames of this message.
    pub acknowledged: u32,
    /// How many messages the peer may have sent in all on this Channel.
    pub credit: u32,
    /// How many frames follow.
    pub frames: u16,
}

impl MessageHeader {
    /// Bytes of an encoded header.
    pub const LEN: usize = 16;
    /// The version of message that this crate reads and writes: the first byte.
    pub const VERSION: u8 = 1;
}

/// One frame of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A new stream. Travels before anything else of it, and everything of it stays on that
    /// Channel until [`Frame::Opened`] comes back.
    Open {
        /// The stream.
        stream: StreamId,
        /// What it asks for.
        class: Class,
        /// Its part beside other streams of the class, in both directions.
        weight: Weight,
        /// The listener it wants (the TCP port number of the address that was dialled).
        service: u16,
        /// The opener takes bytes up to here from the acceptor.
        limit: StreamOffset,
    },
    /// The peer knows the stream now.
    Opened {
        /// The stream.
        stream: StreamId,
        /// The acceptor takes bytes up to here.
        limit: StreamOffset,
    },
    /// Eager bytes.
    Data {
        /// The stream.
        stream: StreamId,
        /// Where the bytes belong.
        offset: StreamOffset,
        /// Bytes that wait at the sender behind these (saturating): a reason to grant a window.
        backlog: u32,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Bulk bytes: these were written into the window by WRITEs that precede this message on its
    /// queue pair.
    Written {
        /// The stream.
        stream: StreamId,
        /// The window they were written into.
        grant: GrantId,
        /// Which bytes.
        range: ByteRange,
        /// As in [`Frame::Data`].
        backlog: u32,
    },
    /// The highest offset that may be sent, in either form. Never shrinks but by `Refuse`.
    Credit {
        /// The stream.
        stream: StreamId,
        /// Bytes below may be sent.
        limit: StreamOffset,
    },
    /// A window to WRITE into: byte `o` of the stream lies at `address + (o & (2^log2_size - 1))`.
    Window {
        /// The stream.
        stream: StreamId,
        /// Name of this grant.
        grant: GrantId,
        /// Size of the window as a power of two.
        log2_size: u8,
        /// Address of the window in the granting host's terms.
        address: u64,
        /// Key of the memory.
        key: u32,
        /// First byte that may be written into it; earlier bytes must not.
        from: StreamOffset,
        /// As [`Frame::Credit`].
        limit: StreamOffset,
    },
    /// Please give this window back when no WRITE into it is outstanding.
    Recall {
        /// The stream.
        stream: StreamId,
        /// The window.
        grant: GrantId,
    },
    /// No WRITE into this window is outstanding and none will follow.
    Return {
        /// The stream.
        stream: StreamId,
        /// The window.
        grant: GrantId,
    },
    /// These eager bytes found no room and were dropped; the limit falls to their start. They are
    /// sent again on new credit. Travels on the Channel that carried them, ahead of the
    /// acknowledgement of their message.
    Refuse {
        /// The stream.
        stream: StreamId,
        /// The bytes dropped.
        range: ByteRange,
    },
    /// The stream ends here.
    Fin {
        /// The stream.
        stream: StreamId,
        /// Number of bytes in it.
        final_offset: StreamOffset,
    },
    /// The sender gives up its direction; bytes not yet read may be lost.
    Reset {
        /// The stream.
        stream: StreamId,
        /// The application's reason, or one of [`reset`].
        code: u32,
    },
    /// The receiver does not want any more of the other direction.
    Stop {
        /// The stream.
        stream: StreamId,
        /// The application's reason, or one of [`reset`].
        code: u32,
    },
}

/// Reset codes of the stack itself; applications use those below `0xFFFF_0000`.
pub mod reset {
    /// The application dropped the stream.
    pub const CANCELLED: u32 = 0xFFFF_0001;
    /// Nobody listens on the service.
    pub const REFUSED: u32 = 0xFFFF_0002;
    /// The listener's queue of streams to accept is full.
    pub const BUSY: u32 = 0xFFFF_0003;

    /// A code in words for a message: what the peer did, or the application's code as a number.
    #[derive(Clone, Copy, Debug)]
    pub struct Reason(pub u32);

    impl std::fmt::Display for Reason {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            match self.0 {
                CANCELLED => f.write_str("its application dropped the stream"),
                REFUSED => f.write_str("nobody listens on that port of its runtime"),
                BUSY => f.write_str("its listener's backlog is full; try again later"),
                code => write!(f, "code {code:#x}"),
            }
        }
    }
}

impl Frame<'_> {
    /// The stream that the frame speaks of.
    pub fn stream(&self) -> StreamId {
        match *self {
            Frame::Open { stream, .. }
            | Frame::Opened { stream, .. }
            | Frame::Data { stream, .. }
            | Frame::Written { stream, .. }
            | Frame::Credit { stream, .. }
            | Frame::Window { stream, .. }
            | Frame::Recall { stream, .. }
            | Frame::Return { stream, .. }
            | Frame::Refuse { stream, .. }
            | Frame::Fin { stream, .. }
            | Frame::Reset { stream, .. }
            | Frame::Stop { stream, .. } => stream,
        }
    }
}
