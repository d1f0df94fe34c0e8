//! The two states of a Channel.
//!
//! ```text
//!            fail
//!   Open ------------> Failed
//!    ^ |                ^  |
//!    +-+ all others     +--+ everything
//! ```
//!
//! A failed Channel takes no message, sends none and has no timeout; what the peer confirmed
//! before may still be polled, and flushed sends are still counted. There is no way back: the driver makes a new Channel for the queue
//! pair after a reset.

/// Whether a Channel carries messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Messages travel.
    Open,
    /// The queue pair is dead or the peer broke the rules.
    Failed,
}
