//! Memory, rings and wake-ups that two processes share without trusting each other.
//!
//! Everything here assumes that the other party may write anything, at any time, to the memory they
//! share, and may stop at any instruction. No function hands out a `&[u8]` over shared memory, no index
//! is believed before it was checked, and nothing blocks for ever on a descriptor of the other party.

pub mod atomics;
mod error;
pub mod memory;
pub mod passing;
pub mod ring;
pub mod wake;

pub use error::Error;
