//! Errors of the driver.

use netchannel_verbs::{Error, PostError};

/// What can go wrong in a group.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A control operation failed.
    #[error("{what}: {source}")]
    Queue {
        /// What was being done.
        what: &'static str,
        /// What came back.
        source: Error,
    },
    /// Requests could not be posted though there was room for them.
    #[error("posting to the {queue} failed: {source}")]
    Post {
        /// Which queue.
        queue: &'static str,
        /// What came back.
        source: PostError,
    },
    /// The group's queues have no room for another Channel.
    #[error(
        "no room for another Channel: the shared receive queue holds {capacity} requests; close sessions or use fewer slots per Channel"
    )]
    Full {
        /// Size of the shared receive queue.
        capacity: u32,
    },
}

impl DriverError {
    pub(crate) fn queue(what: &'static str) -> impl FnOnce(Error) -> Self {
        move |source| Self::Queue { what, source }
    }

    pub(crate) fn post(queue: &'static str) -> impl FnOnce(PostError) -> Self {
        move |source| Self::Post { queue, source }
    }
}
