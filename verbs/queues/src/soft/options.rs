//! How a NIC in memory is opened.

use super::clock::Clock;
use super::link::LinkModel;

/// Options of [`Context::open`](super::Context::open).
#[derive(Clone, Debug)]
pub struct SoftOptions {
    /// Name of the device, for people.
    pub name: String,
    /// Seed of everything drawn by chance: keys, queue pair numbers, deferred steps, losses.
    pub seed: u64,
    /// Execute requests that are not inline some polls later, in random steps, as a NIC does; sources
    /// that were changed too early are delivered as poison (bytes 0xDB) and counted.
    pub deferred: bool,
    /// Inline limit; by default all there is, or 64 bytes in deferred mode.
    pub max_inline: Option<u32>,
    /// A link behind the port, shared by all queue pairs of the device.
    pub link: Option<LinkModel>,
    /// A link for each queue pair instead: taken round robin, in the order in which they are made
    /// (in a session: the latency Channels first).
    pub links: Vec<LinkModel>,
    /// Where timers and link models take the time from.
    pub clock: Clock,
}

impl Default for SoftOptions {
    fn default() -> Self {
        Self {
            name: "soft".into(),
            seed: 0,
            deferred: false,
            max_inline: None,
            link: None,
            links: Vec::new(),
            clock: Clock::Monotonic,
        }
    }
}

impl SoftOptions {
    /// Inline limit of a deferred device: small, so that most requests are deferred.
    const DEFERRED_INLINE: u32 = 64;

    pub(super) fn inline_limit(&self) -> u32 {
        let default = if self.deferred { Self::DEFERRED_INLINE } else { u32::MAX };
        self.max_inline.unwrap_or(default)
    }
}
