//! Traffic classes (they travel on the wire and bound what may stand in front of a message).

use core::fmt;

/// What a stream asks of the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Short messages that must not wait behind bulk bytes.
    Latency = 0,
    /// Bulk bytes: as many per second as the link gives.
    #[default]
    Throughput = 1,
}

impl Class {
    /// Every class, in order of precedence.
    pub const ALL: [Self; 2] = [Self::Latency, Self::Throughput];

    /// The class with this number on the wire, if there is one.
    pub const fn from_wire(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Latency),
            1 => Some(Self::Throughput),
            _ => None,
        }
    }

    /// The number of this class on the wire.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Latency => "latency",
            Self::Throughput => "throughput",
        })
    }
}
