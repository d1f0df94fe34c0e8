//! Which bytes go to which Channel when.
//!
//! Pure policies: the engine says what each stream could send and how each Channel stands, and
//! gets back one [`Assignment`] at a time. Nothing here does I/O or reads a clock, and a seed
//! reproduces every choice.
//!
//! - [`scheduler`]: [`Scheduler`], the queue of ready streams and the decision.
//! - [`view`]: what the decision sees of a Channel, and what it answers.
//! - [`policy`], [`config`]: which Channel; sizes and bounds.
//! - [`streams`]: ready streams of a class in turn by bytes (deficit round robin).
//! - [`room`]: how much a Channel may take before work waits in its stream.
//! - [`gather`]: small pieces wait while the Channels are busy.
//! - [`choice`]: which of several Channels with room.
//! - [`quota`]: latency first, within limits.
//! - [`budget`]: how many bytes may stand in front of a latency message at a port.
//! - [`cores`]: which polling core has which Channel groups.
//! - [`index`], [`random`]: keys to places; a seeded generator.
#![forbid(unsafe_code)]

pub mod budget;
pub mod choice;
pub mod config;
pub mod cores;
pub mod gather;
pub mod index;
pub mod policy;
pub mod quota;
pub mod random;
pub mod room;
pub mod scheduler;
pub mod streams;
pub mod view;

pub use config::SchedulerConfig;
pub use policy::{Policy, UnknownPolicy};
pub use scheduler::Scheduler;
pub use view::{Assignment, ChannelId, ChannelView, StreamKey};
