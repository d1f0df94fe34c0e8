//! What an application asks of the engine.

use std::net::SocketAddr;

use minicbor::{Decode, Encode};
use netchannel_units::{Class, Weight};

use crate::codec;
use crate::error::AttachError;

/// A packet of the application.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// Comes back with the answer.
    #[n(0)]
    pub number: u32,
    /// What is asked.
    #[n(1)]
    pub operation: Operation,
}

/// What is asked. Streams, ports and regions are numbers that the engine gave.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    /// Open a stream.
    #[n(0)]
    Connect {
        /// To this listener.
        #[n(0)]
        peer: SocketAddr,
        /// Of this class.
        #[cbor(n(1), with = "codec::class")]
        class: Class,
        /// With this weight.
        #[cbor(n(2), with = "codec::weight")]
        weight: Weight,
    },
    /// Take streams that peers open.
    #[n(1)]
    Listen {
        /// Here.
        #[n(0)]
        address: SocketAddr,
    },
    /// Take no more of them. No answer.
    #[n(2)]
    Unlisten {
        /// Port of the listener.
        #[n(0)]
        service: u16,
    },
    /// The last byte was written. No answer.
    #[n(3)]
    Finish {
        /// The stream.
        #[n(0)]
        stream: u64,
    },
    /// Give up sending. No answer.
    #[n(4)]
    Reset {
        /// The stream.
        #[n(0)]
        stream: u64,
        /// Why.
        #[n(1)]
        code: u32,
    },
    /// Read no more. No answer.
    #[n(5)]
    Stop {
        /// The stream.
        #[n(0)]
        stream: u64,
        /// Why.
        #[n(1)]
        code: u32,
    },
    /// Let go of a stream. No answer.
    #[n(6)]
    Release {
        /// The stream.
        #[n(0)]
        stream: u64,
    },
    /// A wake-up for one of the application's threads.
    #[n(7)]
    Port,
    /// A ring of doorbells from that thread to a group.
    #[n(8)]
    Ring {
        /// The port.
        #[n(0)]
        port: u32,
        /// The group.
        #[n(1)]
        group: u8,
    },
    /// The thread is gone. No answer.
    #[n(9)]
    ClosePort {
        /// The port.
        #[n(0)]
        port: u32,
    },
    /// The descriptor of a region that a cell names.
    #[n(10)]
    Region {
        /// The region.
        #[n(0)]
        number: u32,
    },
    /// Counters of the engine.
    #[n(11)]
    Statistics,
    /// How many streams are left that the application let go and whose bytes are not all confirmed.
    #[n(12)]
    Unfinished,
    /// Why the session of a stream is over.
    #[n(13)]
    Fate {
        /// The stream.
        #[n(0)]
        stream: u64,
    },
    /// A descriptor that becomes readable when the stream is ready.
    #[n(14)]
    Descriptor {
        /// The stream.
        #[n(0)]
        stream: u64,
    },
    /// A ready list.
    #[n(15)]
    List,
    /// A ring from a group to that list.
    #[n(16)]
    ListRing {
        /// The list.
        #[n(0)]
        list: u32,
        /// The group.
        #[n(1)]
        group: u8,
    },
    /// The list is gone. No answer.
    #[n(17)]
    CloseList {
        /// The list.
        #[n(0)]
        list: u32,
    },
    /// Tell of a stream. No answer.
    #[n(18)]
    Watch {
        /// The stream.
        #[n(0)]
        stream: u64,
        /// When it can be written to, else when it can be read.
        #[n(1)]
        writing: bool,
        /// How.
        #[n(2)]
        by: Means,
    },
}

/// How an application hears of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Means {
    /// By the descriptor of this number of the stream.
    #[n(0)]
    Descriptor(#[n(0)] u8),
    /// By this ready list, under this name.
    #[n(1)]
    List(#[n(0)] u32, #[n(1)] u64),
}

impl Operation {
    /// Whether an answer follows.
    pub fn wants_answer(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Listen { .. }
            | Self::Port
            | Self::Ring { .. }
            | Self::Region { .. }
            | Self::Statistics
            | Self::Unfinished
            | Self::Fate { .. }
            | Self::Descriptor { .. }
            | Self::List
            | Self::ListRing { .. } => true,
            Self::Unlisten { .. }
            | Self::Finish { .. }
            | Self::Reset { .. }
            | Self::Stop { .. }
            | Self::Release { .. }
            | Self::ClosePort { .. }
            | Self::CloseList { .. }
            | Self::Watch { .. } => false,
        }
    }
}

impl Request {
    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut packet = Vec::new();
        codec::encode(self, &mut packet);
        packet
    }

    /// From a packet.
    ///
    /// # Errors
    /// [`AttachError::Malformed`], [`AttachError::TooLong`].
    pub fn decode(packet: &[u8]) -> Result<Self, AttachError> {
        codec::decode(packet, "a request")
    }
}
