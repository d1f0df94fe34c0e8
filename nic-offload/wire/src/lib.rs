//! What travels between two hosts, byte for byte: `docs/wire.md` is the specification.
//!
//! - [`frame`]: the messages of the data path: one header and a list of frames in each SEND.
//! - [`kind`]: numbers and sizes of the frames.
//! - [`control`]: the protocol of a session's control connection.
//! - [`encode`], [`decode`]: frames to bytes and back. [`error`]: what can be wrong with them.
#![forbid(unsafe_code)]

pub mod control;
pub mod decode;
pub mod encode;
pub mod error;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod kind;
mod layout;
#[doc(hidden)]
pub mod samples;

pub use decode::{Frames, parse};
pub use encode::{DATA_OVERHEAD, MAX_DATA, MessageDraft, MessageWriter};
pub use error::{NoRoom, WireError};
pub use frame::{Frame, GrantId, MessageHeader, StreamId};
pub use kind::FrameKind;
