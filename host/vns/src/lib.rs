//! VNS, the virtual network system: the streams of one session, as pure state.
//!
//! Nothing here reads a clock, touches memory or knows a queue pair. The engine feeds frames and
//! application commands in, and asks what to send and what changed:
//!
//! 1. inputs: [`Streams::open`], [`Streams::write`], [`Streams::consume`], [`Streams::on_frame`],
//!    [`Streams::on_confirmed`], ...
//! 2. outputs, until each is empty: [`Streams::poll_control`] (frames other than bytes),
//!    [`Streams::poll_backlog`] (streams whose sendable bytes changed), [`Streams::poll_touched`]
//!    (streams whose state the application should see), [`Streams::poll_incoming`].
//! 3. bytes: [`Streams::next_chunk`], then [`Streams::on_chunk_sent`].
//!
//! - [`streams`]: the table of streams and all inputs and outputs.
//! - [`send`], [`receive`]: the two halves of a stream, one state machine each.
//! - [`pool`]: receive windows, leased from slabs of remote-writable memory.
//! - [`ids`]: which stream numbers were used.
//! - [`error`]: what a peer can do wrong, and what an application can.
#![forbid(unsafe_code)]

pub mod error;
pub mod ids;
pub mod pool;
pub mod receive;
pub mod send;
mod stream;
pub mod streams;

pub use error::{ProtocolError, StreamError};
pub use pool::{Lease, SlabId, WindowPool};
pub use send::{Chunk, Form, Grant};
pub use streams::{Carried, Placement, Role, Streams, StreamsConfig};
