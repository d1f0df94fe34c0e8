//! Latency first, within limits.
//!
//! Every latency byte that is sent while throughput streams wait is a debt of `share / (100 -
//! share)` bytes to them. When the debt reaches a chunk they go first. In integers: latency adds
//! `bytes x share`, throughput takes off `bytes x (100 - share)`.

use netchannel_units::Class;

/// The debt of latency to throughput.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    share: u64,
    debt: u64,
    /// The debt of one chunk.
    due: u64,
}

impl Quota {
    /// `share` per cent for throughput, at most 99.
    pub(crate) fn new(share: u8, chunk: u64) -> Self {
        let share = u64::from(share.min(99));
        Self { share, debt: 0, due: chunk.saturating_mul(100 - share) }
    }

    /// The class to try first if both are ready.
    #[inline]
    pub(crate) fn first(&self) -> Class {
        if self.debt >= self.due { Class::Throughput } else { Class::Latency }
    }

    /// Bytes of `class` were assigned; `waiting`: throughput streams were ready.
    #[inline]
    pub(crate) fn on_assigned(&mut self, class: Class, bytes: u64, waiting: bool) {
        self.debt = match class {
            // The bound forgets what throughput could not use because its Channels were full.
            Class::Latency if waiting => {
                let debt = self.debt.saturating_add(bytes.saturating_mul(self.share));
                debt.min(self.due.saturating_mul(2))
            }
            Class::Latency => 0,
            Class::Throughput if self.debt == 0 => 0,
            Class::Throughput => self.debt.saturating_sub(bytes.saturating_mul(100 - self.share)),
        };
    }
}
