//! Names of streams.

use netchannel_units::GroupId;
use netchannel_wire::StreamId;

/// Sessions that an engine can name.
pub(crate) const MAX_SESSIONS: u32 = 1 << 24;

/// Name of a stream in its runtime: engine (8 bits), session in the engine (24), number (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamKey(pub(crate) u64);

impl StreamKey {
    pub(crate) fn new(group: GroupId, session: u32, stream: StreamId) -> Self {
        debug_assert!(session < MAX_SESSIONS);
        Self(u64::from(group.0) << 56 | u64::from(session) << 32 | u64::from(stream.0))
    }

    /// The engine.
    pub(crate) fn group(self) -> GroupId {
        GroupId((self.0 >> 56) as u8)
    }

    /// The session's slot in the engine.
    pub(crate) fn session(self) -> u32 {
        (self.0 >> 32) as u32 & (MAX_SESSIONS - 1)
    }

    pub(crate) fn stream(self) -> StreamId {
        StreamId(self.0 as u32)
    }
}
