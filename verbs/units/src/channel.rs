//! Names of Channels.

/// Number of a Channel in its session; both hosts use the same number for the same queue pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u16);

/// Number of a Channel group: the Channels that share queues, a class and a place where they are
/// polled, and the streams on them. Each host numbers its own; a session numbers its groups from
/// zero, the same on both hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u8);
