//! Applications apart from the engine: two processes, one socket between them for what is rare, and
//! shared memory for the rest.
//!
//! The engine's process:
//! - [`server`]: the thread that takes applications in. [`socket`]: where they find it.
//! - [`guest`]: one application's conversation. [`operations`]: what it asks for; [`hearsay`]: of
//!   hearing of streams.
//!
//! The application's process:
//! - [`link`]: the conversation's other end, and the thread that listens to the engine; [`pending`]:
//!   answers under way.
//! - [`attachment`]: what streams ask of an engine elsewhere. [`ports`]: how its threads talk to it;
//!   [`memory`]: what the engine passes.
//!
//! [`convert`]: errors and counters on their way between the two.

pub(crate) mod attachment;
mod convert;
mod guest;
mod hearsay;
mod link;
mod memory;
mod operations;
mod pending;
mod ports;
pub(crate) mod server;
mod socket;
