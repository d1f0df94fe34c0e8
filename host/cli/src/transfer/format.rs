//! What is on the stream of a file: a header, blocks, an empty block, the checksum of all bytes;
//! and back, one byte: the verdict. Integers are little endian.
//!
//! ```text
//! header   magic "NCFILE" 0 1 | u64 length, or 2^64-1 if it is not known
//! block    u32 bytes, at most 2^20 | bytes
//! end      u32 0 | BLAKE3 of the bytes of all blocks (32 bytes)
//! verdict  1: the same checksum, 2: another
//! ```
//!
//! A side that cannot go on resets the stream with one of the codes here.

use std::io;

use netchannel::Error as StackError;
use netchannel_vns::StreamError;

/// First bytes of every transfer: name and version.
pub(crate) const MAGIC: [u8; 8] = *b"NCFILE\x00\x01";
/// Bytes of the header.
pub(crate) const HEADER: usize = 16;
/// Bytes before each block.
pub(crate) const PREFIX: usize = 4;
/// Most bytes of a block: one write call, and about a tenth of a millisecond of hashing.
pub(crate) const MAX_BLOCK: usize = 1 << 20;
/// Length in the header of what has no known length.
pub(crate) const UNKNOWN: u64 = u64::MAX;
/// The verdict on bytes that arrived as they were sent.
pub(crate) const SAME: u8 = 1;
/// The verdict on others.
pub(crate) const DIFFERENT: u8 = 2;

/// Why a side resets the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum GiveUp {
    /// The receiver's file system is full.
    Full = 0x4e43_0001,
    /// The receiver cannot write for another reason.
    CannotWrite = 0x4e43_0002,
    /// The sender cannot read its file to the end.
    CannotRead = 0x4e43_0003,
    /// What arrives is no file.
    Foreign = 0x4e43_0004,
}

impl GiveUp {
    /// What the other side says about it.
    pub(crate) fn of(code: u32) -> Option<&'static str> {
        [
            (Self::Full, "its file system is full"),
            (Self::CannotWrite, "it cannot write its file"),
            (Self::CannotRead, "it cannot read its file to the end"),
            (Self::Foreign, "what arrived there was no file of `netchannel send`"),
        ]
        .into_iter()
        .find(|(reason, _)| *reason as u32 == code)
        .map(|(_, text)| text)
    }
}

/// The header for a file of `length` bytes.
pub(crate) fn header(length: Option<u64>) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..].copy_from_slice(&length.unwrap_or(UNKNOWN).to_le_bytes());
    bytes
}

/// The length in a header; an error text for what is no header.
pub(crate) fn parse_header(bytes: &[u8; HEADER]) -> Result<Option<u64>, String> {
    let (magic, length) = bytes.split_at(8);
    if magic[..7] != MAGIC[..7] {
        return Err("it does not begin like a file".into());
    }
    if magic != MAGIC {
        return Err(format!("it has version {}, this side version {}", magic[7], MAGIC[7]));
    }
    let length = u64::from_le_bytes(length.try_into().map_err(|_| "a short header")?);
    Ok((length != UNKNOWN).then_some(length))
}

/// Why the other side reset the stream, if that is what `error` says.
pub(crate) fn given_up(error: &io::Error) -> Option<&'static str> {
    match error.get_ref()?.downcast_ref::<StackError>()? {
        StackError::Stream(StreamError::Reset(code) | StreamError::Stopped(code)) => {
            GiveUp::of(*code)
        }
        _ => None,
    }
}
