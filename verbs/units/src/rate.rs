//! Bandwidth.

use core::fmt;
use core::time::Duration;

/// A rate in bits per second.
///
/// ```
/// use netchannel_units::{Bandwidth, Duration};
/// let link = Bandwidth::from_gbps(400);
/// assert_eq!(link.time_for(65_536), Duration::from_nanos(1_310));
/// assert_eq!(link.bytes_in(Duration::from_micros(1)), 50_000);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bandwidth(u64);

impl Bandwidth {
    /// No bandwidth at all.
    pub const ZERO: Self = Self(0);

    /// `bits` bits per second.
    pub const fn from_bits_per_second(bits: u64) -> Self {
        Self(bits)
    }

    /// `gbps` gigabits (10^9) per second.
    pub const fn from_gbps(gbps: u64) -> Self {
        Self(gbps * 1_000_000_000)
    }

    /// The rate at which `bytes` bytes went in `elapsed`; zero if `elapsed` is zero.
    pub fn from_transfer(bytes: u64, elapsed: Duration) -> Self {
        let nanos = elapsed.as_nanos();
        if nanos == 0 {
            return Self::ZERO;
        }
        let bits = u128::from(bytes) * 8 * 1_000_000_000 / nanos;
        Self(u64::try_from(bits).unwrap_or(u64::MAX))
    }

    /// Bits per second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }

    /// Gigabits (10^9) per second.
    pub fn gbps(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// How long `bytes` bytes take, rounded down; zero at zero bandwidth (which means "no limit").
    pub fn time_for(self, bytes: u64) -> Duration {
        if self.0 == 0 {
            return Duration::ZERO;
        }
        let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Whole bytes that fit into `time`.
    pub fn bytes_in(self, time: Duration) -> u64 {
        let bytes = u128::from(self.0) * time.as_nanos() / 8 / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} Gb/s", self.gbps())
    }
}
