//! Names of Channels.

/// Number of a Channel in its session; both hosts use the same number for the same queue pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u16);
