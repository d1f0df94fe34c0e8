//! What the two ends of a session agreed on.

use netchannel_vns::streams::Role;

/// What a session needs that its two ends agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionTerms {
    pub(crate) role: Role,
    pub(crate) peer_slots: u32,
    pub(crate) peer_slot_bytes: u32,
    pub(crate) peer_eager_credit: u64,
    /// Both can replace Channels.
    pub(crate) failover: bool,
    /// Number of the group in the session.
    pub(crate) group: u8,
}
