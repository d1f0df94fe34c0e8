//! Why a session is refused or ended.

use core::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder};

/// The code in Refuse and Goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The work is done.
    Done,
    /// No common version of the protocol.
    Version,
    /// The queue pairs of different providers cannot be connected.
    Provider,
    /// Too many sessions; try again later.
    Busy,
    /// A message could not be read, or a value in it is out of range.
    Malformed,
    /// Authentication is wanted, and there is none in this version.
    Authentication,
    /// A step of the handshake took too long, or the peer fell silent.
    Timeout,
    /// Queue pairs or memory could not be made or connected.
    Resources,
    /// The host's stack is being stopped.
    Shutdown,
    /// A message of a later version.
    NotSupported,
    /// A message at the wrong time.
    OutOfOrder,
    /// A number that this version does not know.
    Unknown(u16),
}

impl Reason {
    /// Every reason that has a name, by number.
    pub const ALL: [Self; 11] = [
        Self::Done,
        Self::Version,
        Self::Provider,
        Self::Busy,
        Self::Malformed,
        Self::Authentication,
        Self::Timeout,
        Self::Resources,
        Self::Shutdown,
        Self::NotSupported,
        Self::OutOfOrder,
    ];

    /// The reason with this number on the wire.
    pub fn from_wire(value: u16) -> Self {
        Self::ALL.get(usize::from(value)).copied().unwrap_or(Self::Unknown(value))
    }

    /// The number on the wire.
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::Done => 0,
            Self::Version => 1,
            Self::Provider => 2,
            Self::Busy => 3,
            Self::Malformed => 4,
            Self::Authentication => 5,
            Self::Timeout => 6,
            Self::Resources => 7,
            Self::Shutdown => 8,
            Self::NotSupported => 9,
            Self::OutOfOrder => 10,
            Self::Unknown(value) => value,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Version => "no common version",
            Self::Provider => "different providers",
            Self::Busy => "busy",
            Self::Malformed => "malformed message",
            Self::Authentication => "authentication",
            Self::Timeout => "timeout",
            Self::Resources => "out of resources",
            Self::Shutdown => "shutting down",
            Self::NotSupported => "not supported",
            Self::OutOfOrder => "message out of order",
            Self::Unknown(value) => return write!(f, "reason {value}"),
        })
    }
}

impl<C> Encode<C> for Reason {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u16(self.to_wire())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Reason {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.u16().map(Self::from_wire)
    }
}
