//! Completion queues.

use std::os::fd::BorrowedFd;

use crate::error::Error;
use crate::work::WorkCompletion;

/// Where work requests end.
///
/// Waiting without a race: [`arm`](Self::arm), [`poll`](Self::poll) once more, and only if that
/// found nothing wait for [`event_fd`](Self::event_fd); then
/// [`drain_events`](Self::drain_events).
pub trait CompletionQueue: Send {
    /// Moves completions into `out` from its front; returns how many.
    ///
    /// # Errors
    /// [`Error::Os`] if the queue itself broke (overflow, device gone): no request that completes
    /// on it will be reported any more.
    fn poll(&mut self, out: &mut [WorkCompletion]) -> Result<usize, Error>;

    /// Asks for one event when the next completion arrives.
    ///
    /// # Errors
    /// [`Error::Os`] if the driver refuses.
    fn arm(&mut self) -> Result<(), Error>;

    /// The same for the next *solicited* completion: that of a message whose sender asked for it
    /// ([`SendRequest::solicited`](crate::SendRequest)), or of a failure. A device may wake for
    /// more.
    ///
    /// # Errors
    /// [`Error::Os`] if the driver refuses.
    fn arm_solicited(&mut self) -> Result<(), Error>;

    /// Becomes readable when an armed queue gets a completion. Non-blocking; for `poll`/`epoll`.
    fn event_fd(&self) -> BorrowedFd<'_>;

    /// Takes the events off the descriptor, so that it blocks again.
    ///
    /// # Errors
    /// [`Error::Os`] if the descriptor broke.
    fn drain_events(&mut self) -> Result<(), Error>;
}
