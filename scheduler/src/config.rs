//! Settings of a scheduler.

use netchannel_units::Duration;

use crate::policy::Policy;

/// Settings of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// How a Channel is chosen.
    pub policy: Policy,
    /// For the random choices of [`Policy::LeastDelay`] and the hash of [`Policy::StaticHash`].
    pub seed: u64,
    /// Most bytes in one assignment, and the quantum of a stream's turn.
    pub chunk: u64,
    /// [`Policy::LeastDelay`] keeps at most this much time of work outstanding on a Channel, and
    /// one assignment takes at most half of it, so that two always overlap and what was sent on a
    /// slow Channel is not missed for long. Must be longer than the completion time of an idle
    /// queue, or the Channel is never full. `None` is no bound.
    pub target_delay: Option<Duration>,
    /// The target delay makes no assignment smaller than this: below, the cost per message would
    /// lower the measured rate, which would lower the assignments. It is also what a Channel may
    /// hold beyond the target delay.
    pub min_chunk: u64,
    /// While the Channels are busy, fewer bytes than this wait for more; see [`gather`](crate::gather).
    /// Zero is never.
    pub gather: u64,
    /// Most bytes outstanding on a Channel of unknown rate with a target delay. Its first
    /// completion makes the rate known; until then a very slow Channel may hold this much.
    /// `u64::MAX` is no bound.
    pub explore: u64,
    /// Per cent of the bytes that latency streams leave to throughput streams that wait.
    pub throughput_share: u8,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            policy: Policy::LeastDelay,
            seed: 0,
            chunk: 256 * 1024,
            target_delay: Some(Duration::from_micros(100)),
            min_chunk: 16 * 1024,
            gather: 0,
            explore: 512 * 1024,
            throughput_share: 20,
        }
    }
}
