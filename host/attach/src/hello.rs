//! The first packet of each side: magic, version (little endian), then CBOR that only the same
//! version reads.

use minicbor::{Decode, Encode};

use crate::codec::{self, clean, in_range};
use crate::error::AttachError;

/// First bytes of the first packet.
pub const MAGIC: [u8; 4] = *b"NCAP";
/// Version of every message of this crate; both sides must have the same.
pub const VERSION: u16 = 1;
/// Bytes of magic and version.
const HEAD: usize = 6;
/// Bytes of the longest name.
const MAX_NAME: usize = 128;
/// Bytes of the longest text for people.
const MAX_TEXT: usize = 512;

/// From the application.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// What it calls itself, for the engine's log.
    #[n(0)]
    pub name: String,
}

/// From the engine: the application may go on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// Number of the application in the engine.
    #[n(0)]
    pub application: u32,
    /// Name of the device.
    #[n(1)]
    pub device: String,
    /// Number of the device's provider.
    #[n(2)]
    pub provider: Provider,
    /// Why this device.
    #[n(3)]
    pub reason: String,
    /// Channel groups of the engine.
    #[n(4)]
    pub groups: u8,
    /// Bytes of the largest receive window and send buffer of a stream.
    #[n(5)]
    pub window: u64,
    /// Name of the policy that spreads streams over Channels.
    #[n(6)]
    pub policy: String,
    /// Doorbells in a ring.
    #[n(7)]
    pub ring: u32,
}

/// Who drives a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Provider {
    /// The NIC in memory.
    #[n(0)]
    Soft,
    /// libibverbs.
    #[n(1)]
    Rdma,
}

/// The engine's first packet.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reception {
    /// Come in.
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    /// Stay out, and why.
    #[n(1)]
    Refusal(#[n(0)] String),
}

impl Hello {
    /// Cuts `name` to what may be sent.
    pub fn new(name: &str) -> Self {
        Self { name: clean(name, MAX_NAME) }
    }

    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        with_head(VERSION, self)
    }

    /// From a packet.
    ///
    /// # Errors
    /// [`AttachError::Magic`], [`AttachError::Version`], [`AttachError::Malformed`],
    /// [`AttachError::OutOfRange`].
    pub fn decode(packet: &[u8]) -> Result<Self, AttachError> {
        let hello: Self = codec::decode(behind_head(packet)?, "a hello")?;
        in_range("length of the name", hello.name.len() as u64, 0..=MAX_NAME as u64)?;
        Ok(Self { name: clean(&hello.name, MAX_NAME) })
    }
}

impl Reception {
    /// No, and why.
    pub fn refusal(text: &str) -> Self {
        Self::Refusal(clean(text, MAX_TEXT))
    }

    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        with_head(VERSION, self)
    }

    /// From a packet.
    ///
    /// # Errors
    /// As [`Hello::decode`].
    pub fn decode(packet: &[u8]) -> Result<Self, AttachError> {
        let reception: Self = codec::decode(behind_head(packet)?, "the engine's answer to hello")?;
        if let Self::Welcome(welcome) = &reception {
            welcome.check()?;
        }
        Ok(reception)
    }
}

impl Welcome {
    fn check(&self) -> Result<(), AttachError> {
        in_range("number of the application", self.application.into(), 1..=u32::MAX.into())?;
        in_range("groups", self.groups.into(), 1..=u8::MAX.into())?;
        in_range("window", self.window, 1 << 12..=1 << 21)?;
        in_range("doorbells in a ring", self.ring.into(), 1..=1 << 16)?;
        for (field, text) in [("device", &self.device), ("policy", &self.policy)] {
            in_range(field, text.len() as u64, 0..=MAX_NAME as u64)?;
        }
        in_range("reason", self.reason.len() as u64, 0..=MAX_TEXT as u64)
    }
}

/// A first packet of a version, for tests of what becomes of other versions.
pub fn with_head<T: Encode<()>>(version: u16, body: &T) -> Vec<u8> {
    let mut packet = MAGIC.to_vec();
    packet.extend_from_slice(&version.to_le_bytes());
    codec::encode(body, &mut packet);
    packet
}

fn behind_head(packet: &[u8]) -> Result<&[u8], AttachError> {
    let Some((head, body)) = packet.split_first_chunk::<HEAD>() else {
        return Err(AttachError::Magic { start: packet.to_vec() });
    };
    let [magic @ .., low, high] = *head;
    if magic != MAGIC {
        return Err(AttachError::Magic { start: head.to_vec() });
    }
    match u16::from_le_bytes([low, high]) {
        VERSION => Ok(body),
        theirs => Err(AttachError::Version { theirs, ours: VERSION }),
    }
}
