//! How a file travels over one stream.
//!
//! - [`mod@format`]: what is on the stream. [`blocks`]: buffers that go round between two threads.
//! - [`sender`], [`receiver`]: the two sides, over anything that reads and writes.
//! - [`destination`]: where the receiver's bytes go, and what they are called until they are whole.

mod blocks;
pub(crate) mod destination;
pub(crate) mod format;
pub(crate) mod receiver;
pub(crate) mod sender;

#[cfg(test)]
mod tests;
