//! Where the NIC in memory takes the time from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use netchannel_units::Timestamp;
use rustix::time::ClockId;

/// The time of a NIC. Read only while a receiver-not-ready timer or a link model runs.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// `CLOCK_MONOTONIC`: one origin for all processes of a host.
    #[default]
    Monotonic,
    /// Nanoseconds that a test moves on by itself; both ends of a connection share it, so it works
    /// within one process.
    Virtual(Arc<AtomicU64>),
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Monotonic => {
                let time = rustix::time::clock_gettime(ClockId::Monotonic);
                let nanos = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
                Timestamp::from_nanos(nanos)
            }
            Self::Virtual(nanos) => Timestamp::from_nanos(nanos.load(Ordering::Acquire)),
        }
    }
}
