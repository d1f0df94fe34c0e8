//! The states of a Channel's messages.
//!
//! ```text
//!    open                      fail
//!   +----- Receiving -----------------------> Failed
//!   |        ^                                 ^  |
//!   v        | receive_only                    +--+ everything
//!  Open -----+                                 |
//!   +------------------------- fail -----------+
//! ```
//!
//! A Channel that only receives takes messages and what they acknowledge, and sends none: its queue
//! pair is in error and what arrived before is being taken, or it is new and the peer has not
//! connected its own. A failed Channel takes no message, sends none and has no timeout; what the peer
//! confirmed before may still be polled, and flushed sends are still counted. There is no way back:
//! the driver makes a new Channel for the next queue pair. When which of this happens is the
//! business of [`fence`](crate::fence).

/// Whether a Channel carries messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Messages travel.
    Open,
    /// Messages are taken, none leaves.
    Receiving,
    /// The queue pair is dead or the peer broke the rules.
    Failed,
}
