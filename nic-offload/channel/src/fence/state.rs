//! States of a Channel between the death of a queue pair and the use of the next.
//!
//! ```text
//!            it failed here, or the peer says Fence                      drained, destroyed:
//!  Up ------------------------------------------------------> Draining   says Fenced
//!   ^                                                          ^     |
//!   | the peer says Renewed                                    |     +------> Fenced
//!   |                                                          |     |          |
//!  Connected ----------------------- it failed ----------------+     |          | the peer
//!   ^                                                          |     |          | says Fenced
//!   | connected: says Renewed                                  |     |          |
//!  Connecting ---------------------- it failed ----------------+     v          v
//!   ^                                                          |    Down <------+
//!   | the peer says Renew                                      |     |  (the peer had said
//!  Offered ------------------------- it failed ----------------+     |   Fenced already)
//!   ^                                                                |
//!   +------------------- made: says Renew ---------------------------+
//! ```
//!
//! In Down the epoch counts up. A peer whose queue pair of the new epoch fails before this side has
//! made its own finds nothing to drain here: `Down` goes to `Fenced` at once.

/// Where a Channel's queue pair stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Messages travel.
    Up,
    /// In error; what had arrived is being taken.
    Draining,
    /// Drained and destroyed on this side; the peer has not said the same.
    Fenced,
    /// Fenced on both sides; there is no queue pair.
    Down,
    /// A new one is made, and the peer knows.
    Offered,
    /// The peer's is known, too: they are being connected.
    Connecting,
    /// Connected on this side; the peer has not said the same.
    Connected,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Up,
        Self::Draining,
        Self::Fenced,
        Self::Down,
        Self::Offered,
        Self::Connecting,
        Self::Connected,
    ];

    /// Whether there is a queue pair that can fail.
    pub fn has_queue_pair(self) -> bool {
        matches!(self, Self::Up | Self::Offered | Self::Connecting | Self::Connected)
    }
}
