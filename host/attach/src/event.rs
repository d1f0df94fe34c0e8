//! What the engine says, asked and unasked.

use std::net::SocketAddr;

use minicbor::{Decode, Encode};
use netchannel_units::{Class, Weight};

use crate::codec::{self, in_range};
use crate::error::AttachError;
use crate::failure::Failure;

/// Channels whose counters fit into one answer.
pub const MAX_CHANNELS: usize = 512;

/// A packet of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// To the request of this number.
    #[n(0)]
    Answer(#[n(0)] u32, #[n(1)] Answer),
    /// A peer opened a stream to a listener of this port.
    #[n(1)]
    Incoming(#[n(0)] u16, #[n(1)] StreamOffer),
    /// A region is gone, and no stream that is left has bytes in it: unmap it.
    #[n(2)]
    Forget(#[n(0)] u32),
    /// The engine ends.
    #[n(3)]
    Farewell(#[n(0)] Failure),
    /// A region that the next messages name: its number, bytes, and whether the application may
    /// write; with its memory.
    #[n(4)]
    Region(#[n(0)] u32, #[n(1)] u64, #[n(2)] bool),
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// It did not happen.
    #[n(0)]
    Failed(#[n(0)] Failure),
    /// To Connect.
    #[n(1)]
    Stream(#[n(0)] StreamOffer),
    /// To Listen: the address, with the port that was chosen.
    #[n(2)]
    Listening(#[n(0)] SocketAddr),
    /// To Port: its number, with a socket that wakes the thread and the engine.
    #[n(3)]
    Port(#[n(0)] u32),
    /// To Ring, with its memory.
    #[n(4)]
    Ring,
    /// To Region: bytes, and whether the application may write, with its memory.
    #[n(5)]
    Region(#[n(0)] u64, #[n(1)] bool),
    /// To Statistics.
    #[n(6)]
    Statistics(#[n(0)] Statistics),
    /// To Unfinished.
    #[n(7)]
    Unfinished(#[n(0)] u64),
    /// To Descriptor: its number among those of the stream, with the two ends of a socket: the one to
    /// wait on, and the one that makes it readable.
    #[n(8)]
    Descriptor(#[n(0)] u8),
    /// To List: its number.
    #[n(9)]
    List(#[n(0)] u32),
    /// To ListRing, with its memory.
    #[n(10)]
    ListRing,
}

/// A stream for the application.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StreamOffer {
    /// Its number.
    #[n(0)]
    pub stream: u64,
    /// Place of its cell: region (plus one) and offset.
    #[n(1)]
    pub cell: u64,
    /// The peer's control address.
    #[n(2)]
    pub peer: SocketAddr,
    /// Channels that its bytes may take.
    #[n(3)]
    pub channels: u16,
    /// Its class.
    #[cbor(n(4), with = "codec::class")]
    pub class: Class,
    /// Its weight.
    #[cbor(n(5), with = "codec::weight")]
    pub weight: Weight,
}

/// Counters of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Statistics {
    /// Of each Channel.
    #[n(0)]
    pub channels: Vec<ChannelCounters>,
    /// Payload bytes that the engine's processors copied.
    #[n(1)]
    pub copied_bytes: u64,
    /// Payload bytes that posting moved.
    #[n(2)]
    pub moved_by_posting: u64,
    /// Bytes placed in receive windows.
    #[n(3)]
    pub placed_bytes: u64,
    /// Chunks placed while earlier bytes were missing.
    #[n(4)]
    pub placed_out_of_order: u64,
    /// Eager chunks that peers refused.
    #[n(5)]
    pub refused: u64,
    /// Times that a thread of the engine returned from sleep.
    #[n(6)]
    pub wakeups: u64,
    /// Poll passes.
    #[n(7)]
    pub polls: u64,
    /// Streams alive.
    #[n(8)]
    pub streams: u64,
    /// Sessions alive.
    #[n(9)]
    pub sessions: u64,
    /// Queue pairs that died and were fenced.
    #[n(10)]
    pub failovers: u64,
    /// Stream bytes that were sent again for that.
    #[n(11)]
    pub replayed_bytes: u64,
    /// The newest gaps that this left, in nanoseconds.
    #[n(12)]
    pub failover_gaps: Vec<u64>,
}

/// Counters of a Channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ChannelCounters {
    /// Number of the session.
    #[n(0)]
    pub session: u32,
    /// Number of the Channel in it.
    #[n(1)]
    pub id: u16,
    /// Class of its group, as on the wire.
    #[n(2)]
    pub class: Option<u8>,
    /// Number of the queue pair.
    #[n(3)]
    pub queue_pair: u32,
    /// Stream bytes sent.
    #[n(4)]
    pub bytes_sent: u64,
    /// Stream bytes that arrived.
    #[n(5)]
    pub bytes_received: u64,
    /// Bytes completed by the device.
    #[n(6)]
    pub bytes_completed: u64,
    /// Messages posted.
    #[n(7)]
    pub messages_sent: u64,
    /// Messages that arrived.
    #[n(8)]
    pub messages_received: u64,
    /// Smoothed completion time in nanoseconds.
    #[n(9)]
    pub completion_time: Option<u64>,
    /// Measured delivery rate in bits per second; zero if unknown.
    #[n(10)]
    pub rate: u64,
    /// UDP source port of its packets, where they are UDP.
    #[n(11)]
    pub source_port: Option<u16>,
}

impl Event {
    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut packet = Vec::new();
        codec::encode(self, &mut packet);
        packet
    }

    /// From a packet.
    ///
    /// # Errors
    /// [`AttachError::Malformed`], [`AttachError::TooLong`], [`AttachError::OutOfRange`].
    pub fn decode(packet: &[u8]) -> Result<Self, AttachError> {
        let event = codec::decode(packet, "an event of the engine")?;
        Ok(match event {
            Self::Answer(number, Answer::Failed(failure)) => {
                Self::Answer(number, Answer::Failed(failure.cleaned()))
            }
            Self::Farewell(failure) => Self::Farewell(failure.cleaned()),
            Self::Answer(_, Answer::Statistics(ref statistics)) => {
                let channels = statistics.channels.len() as u64;
                in_range("channels", channels, 0..=MAX_CHANNELS as u64)?;
                event
            }
            other => other,
        })
    }
}
