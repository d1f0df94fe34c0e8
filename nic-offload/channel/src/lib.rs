//! The state of one Channel: one queue pair of a reliable service between two engines.
//!
//! Everything here is a plain state machine. Events come in with a [`Timestamp`], answers go out
//! as return values and [`Channel::next_timeout`]; no clock is read, nothing is posted.
//!
//! - [`channel`]: [`Channel`], what the engine holds per queue pair.
//! - [`config`]: sizes and the acknowledgement policy.
//! - [`state`]: open, receiving or failed, and which event does what in which state.
//! - [`fence`]: the life of a Channel's queue pairs: fencing and replacement, as both sides agree.
//! - [`flow`]: sequence numbers, acknowledgements and credit; why two Channels never wait for
//!   each other.
//! - [`ack`]: when a message that only acknowledges is due.
//! - [`delivery`]: delivery rate and queue-free completion time, from send completions.
//! - [`congestion`]: congestion control, one file per algorithm.
//! - [`pacer`]: departure times.
//! - [`stats`], [`error`].
//!
//! [`Timestamp`]: netchannel_units::Timestamp
#![forbid(unsafe_code)]

pub mod ack;
pub mod channel;
pub mod config;
pub mod congestion;
pub mod delivery;
pub mod error;
pub mod fence;
pub mod flow;
pub mod pacer;
pub mod state;
pub mod stats;

pub use ack::AckNeed;
pub use channel::{Channel, Kind};
pub use config::{AckPolicy, ChannelConfig};
pub use congestion::{CongestionControl, Controller};
pub use error::ChannelError;
pub use fence::Fence;
pub use flow::CONTROL_RESERVE;
pub use netchannel_wire::MessageHeader;
pub use pacer::Pacer;
pub use state::State;
pub use stats::ChannelStats;
