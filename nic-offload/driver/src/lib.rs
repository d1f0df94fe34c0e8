//! The NetDriver: what binds Channels to queue pairs.
//!
//! A [`Group`] is a receive queue, two completion queues and the Channels on them; it is used by
//! one thread at a time. Messages are drafted frame by frame in a Channel's send slot and leave in
//! one post list: the WRITEs of bulk bytes first, then the SEND that announces them.
//!
//! - [`group`]: the group and its poll.
//! - [`mod@fencing`]: the end of a queue pair, and the next one.
//! - [`rc_channel`]: one Channel over a reliable connection. `draft`: the message that it sends next;
//!   `send_queue`: what it has posted.
//! - [`receive_slots`]: memory and bookkeeping of the shared receive queue.
//! - [`mod@offload_plan`]: what the device does and what the host does.

mod draft;
pub mod error;
pub mod fencing;
pub mod group;
pub mod offload_plan;
pub mod rc_channel;
pub mod receive_slots;
mod send_queue;

pub use draft::{Source, Target};
pub use error::DriverError;
pub use group::{ChannelKey, Event, Group, GroupConfig};
pub use offload_plan::{PlanRow, Worker, offload_plan};
pub use rc_channel::RcChannel;
