//! The one door through which this crate's rings reach atomics, so that loom can take their place.
//!
//! With `--cfg loom` these are loom's types: the ring code that ships is the code that loom explores.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
