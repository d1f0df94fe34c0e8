//! All cases.
//!
//! - [`copy`]: copies of payload, and [`nic`]: the NIC in memory, to be taken off what the stack costs.
//! - [`ring`]: rings between an application and the engine.
//! - [`wire`]: message headers and frames.
//! - [`scheduler`]: its decisions.
//! - [`channel`]: events of a Channel, and congestion control.
//! - [`stack`]: chunks and messages through the whole stack, one side at a time.

pub mod channel;
pub mod copy;
pub mod nic;
pub mod ring;
pub mod scheduler;
pub mod stack;
pub mod wire;

use crate::case::Case;

/// All cases, in the order of the layers.
pub fn all() -> Vec<Case> {
    [
        ring::CASES,
        wire::CASES,
        scheduler::CASES,
        channel::CASES,
        copy::CASES,
        nic::CASES,
        stack::CASES,
    ]
    .into_iter()
    .flatten()
    .map(|case| Case { ..*case })
    .collect()
}
