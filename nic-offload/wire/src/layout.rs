//! The bytes of headers and frame bodies: unaligned, little endian, no padding. Field order here
//! is byte order on the wire; `docs/wire.md` has the tables.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of a message.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) version: u8,
    pub(crate) flags: u8,
    pub(crate) frames: U16,
    pub(crate) sequence: U32,
    pub(crate) acknowledged: U32,
    pub(crate) credit: U32,
}

/// First bytes of a frame.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) length: U16,
    pub(crate) stream: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Open {
    pub(crate) limit: U64,
    pub(crate) service: U16,
    pub(crate) class: u8,
    pub(crate) weight: u8,
}

/// Body of the kinds that say one offset: Opened, Credit, Fin.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Offset {
    pub(crate) offset: U64,
}

/// Body of the kinds that say one number: Recall, Return (a grant), Reset, Stop (a code).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Number {
    pub(crate) value: U32,
}

/// What stands before the bytes of a Data frame.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Data {
    pub(crate) offset: U64,
    pub(crate) backlog: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Written {
    pub(crate) start: U64,
    pub(crate) end: U64,
    pub(crate) grant: U32,
    pub(crate) backlog: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Window {
    pub(crate) address: U64,
    pub(crate) from: U64,
    pub(crate) limit: U64,
    pub(crate) key: U32,
    pub(crate) grant: U32,
    pub(crate) log2_size: u8,
    pub(crate) reserved: [u8; 3],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Refuse {
    pub(crate) start: U64,
    pub(crate) end: U64,
}
