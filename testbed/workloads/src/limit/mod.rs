//! What two processes of this machine can do without any stack.
//!
//! - `segment`: memory that two processes share.
//! - `backoff`: spinning that lets others run in the end.
//! - [`copy`]: copies on one core, by working set.
//! - [`pipeline`]: a bare copy pipeline, the limit of bandwidth.
//! - [`core_to_core`]: a cache line back and forth, the limit of latency.

mod backoff;
pub mod copy;
pub mod core_to_core;
pub mod pipeline;
mod segment;

pub(crate) use backoff::Backoff;
pub use segment::Segment;
