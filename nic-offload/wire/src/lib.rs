//! What travels between two hosts, byte for byte: `docs/wire.md` is the specification.
//!
//! - [`frame`]: the messages of the data path: one header and a list of frames in each SEND.
#![forbid(unsafe_code)]

pub mod frame;

pub use frame::{Frame, MessageHeader, StreamId};
