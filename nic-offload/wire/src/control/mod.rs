//! The control protocol: what two hosts say to each other over the TCP connection of their session,
//! before any Channel exists and beside the Channels afterwards.
//!
//! - [`connection`]: one end of it, as a state machine without I/O: [`Connection`].
//! - [`state`]: its states, with diagram and transition table.
//! - [`event`]: what it reports. [`keepalive`]: who asks when, and when a peer is dead.
//! - [`negotiation`]: what the two sides agree on.
//! - [`message`], [`parameters`]: what is said. [`channel`]: of a queue pair that died.
//!   [`reason`]: why not.
//! - [`record`]: messages to bytes and back; `outbox`: those to be sent. [`error`]: what can be wrong.

pub mod channel;
pub mod connection;
pub mod error;
pub mod event;
pub mod keepalive;
pub mod message;
pub mod negotiation;
mod outbox;
pub mod parameters;
pub mod reason;
pub mod record;
pub mod state;

pub use channel::{ChannelEpoch, ChannelMessage, ChannelNews};
pub use connection::Connection;
pub use error::ControlError;
pub use event::{ControlEvent, Negotiated};
pub use keepalive::Path;
pub use message::{Accept, ChannelOffer, ControlMessage, Farewell, Hello, MessageKind, SessionId};
pub use negotiation::Configuration;
pub use parameters::{Features, Parameters, VersionRange};
pub use reason::Reason;
pub use state::{Role, State};

/// The TCP port of control connections, unless configured otherwise.
pub const DEFAULT_PORT: u16 = 4792;
