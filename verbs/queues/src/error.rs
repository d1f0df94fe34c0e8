//! Errors of the queue interface.

use std::io;

/// What a control operation (anything but posting and polling) may answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The provider has no device, and why.
    #[error("no RDMA device: {reason}")]
    NoDevice {
        /// What was looked for and what came back.
        reason: String,
    },
    /// There is no device of this name.
    #[error("unknown device `{name}`; known devices: {known}")]
    UnknownDevice {
        /// The name asked for.
        name: String,
        /// The names there are, separated by commas.
        known: String,
    },
    /// The operating system or the driver refused.
    #[error("{operation} failed: {source}{hint}")]
    Os {
        /// The call, in the provider's words (`ibv_create_qp`).
        operation: &'static str,
        /// What it answered.
        source: io::Error,
        /// What to do about it, or empty; begins with "; ".
        hint: &'static str,
    },
    /// The device cannot do this.
    #[error("{device} cannot {what}")]
    Unsupported {
        /// The device.
        device: String,
        /// What was asked for.
        what: &'static str,
    },
    /// An argument is outside of what the device or the interface allows.
    #[error("{operation}: {reason}")]
    Invalid {
        /// The call.
        operation: &'static str,
        /// What is wrong with which argument, with the limit.
        reason: String,
    },
    /// A peer's endpoint is not one of this provider, or is damaged.
    #[error("the peer's queue pair endpoint is unusable: {reason}")]
    BadEndpoint {
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// `operation` failed with the current `errno`.
    pub fn last_os(operation: &'static str) -> Self {
        Self::Os { operation, source: io::Error::last_os_error(), hint: "" }
    }

    /// `operation` failed with `errno` (positive).
    pub fn errno(operation: &'static str, errno: i32) -> Self {
        Self::Os { operation, source: io::Error::from_raw_os_error(errno), hint: "" }
    }
}

/// Why posting stopped. Requests before `posted` are on the queue, the others are not.
#[derive(Debug, thiserror::Error)]
#[error("posted {posted} of the requests, then: {reason}")]
pub struct PostError {
    /// How many requests from the front of the list were accepted.
    pub posted: usize,
    /// Why the next one was not.
    pub reason: PostFailure,
}

/// Why a work request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum PostFailure {
    /// The queue is full: backpressure, not failure. Poll, then post again.
    #[error("the queue is full; poll completions and post again")]
    QueueFull,
    /// The queue pair is not in a state that takes this request.
    #[error("the queue pair is not connected or in error")]
    WrongState,
    /// The request itself is malformed (too many slices, inline above the limit, ...).
    #[error("invalid work request: {0}")]
    Invalid(&'static str),
    /// The driver refused.
    #[error("the driver answered: {0}")]
    Os(io::Error),
}
