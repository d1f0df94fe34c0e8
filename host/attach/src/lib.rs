//! What an application and an engine in another process say to each other, as pure messages.
//!
//! They meet at a unix socket of packets (`SOCK_SEQPACKET`): one packet is one message, with at
//! most [two](MAX_DESCRIPTORS) descriptors. The first packet of each side has a fixed head, so that programs of any two
//! versions can tell that they do not match. Bytes of streams never pass here: they lie in memory
//! whose descriptors do.
//!
//! ```text
//! application                         engine
//!   Hello  ------------------------->
//!          <-------------------------  Welcome, or Farewell and the end
//!   Request (number, operation)  --->
//!          <-------------------------  Answer (number), in any order
//!          <-------------------------  Incoming, Region, Forget, Farewell: unasked
//! ```
//! The engine believes nothing that it hears. [`Hearing`] is its ear: it takes packets and gives
//! operations whose values are in range, or an error that ends the conversation; whether a stream,
//! a port or a region belongs to this application is for the engine to look up.
//!
//! - [`hello`]: the first packet of each side. [`request`], [`event`]: the others.
//! - [`failure`]: errors on their way from the engine to the application.
//! - [`hearing`]: the engine's side of the order of things.
//! - [`error`]: what the other side can do wrong.
//! - [`fuzzing`], [`samples`]: what must hold for any bytes; one message of each kind.
#![forbid(unsafe_code)]

mod codec;
pub mod error;
pub mod event;
pub mod failure;
pub mod fuzzing;
pub mod hearing;
pub mod hello;
pub mod request;
pub mod samples;

pub use error::AttachError;
pub use event::{Answer, Event, StreamOffer};
pub use failure::{Failure, FailureKind};
pub use hearing::{Heard, Hearing};
pub use hello::{Hello, VERSION, Welcome};
pub use request::{Means, Operation, Request};

/// Bytes of the largest packet: the counters of 512 Channels. A unix socket takes several of them.
pub const MAX_PACKET: usize = 64 << 10;

/// Descriptors that a packet of the engine has at most.
pub const MAX_DESCRIPTORS: usize = 2;
