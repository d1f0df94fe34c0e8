//! Points in time.

use core::ops::{Add, Sub};
pub use core::time::Duration;

/// A point in time in nanoseconds since an origin that the caller chose (boot, or the start of a
/// simulation). Pure code receives timestamps; it never reads a clock.
///
/// ```
/// use netchannel_units::{Duration, Timestamp};
/// let start = Timestamp::from_nanos(1_000);
/// assert_eq!(start + Duration::from_nanos(500) - start, Duration::from_nanos(500));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin.
    pub const ZERO: Self = Self(0);
    /// Later than every other timestamp; stands for "never".
    pub const MAX: Self = Self(u64::MAX);

    /// `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`, zero if `earlier` is in fact later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Timestamp {
    type Output = Duration;
    /// Saturates at zero: clocks of two cores may disagree by a few nanoseconds.
    fn sub(self, rhs: Self) -> Duration {
        self.saturating_since(rhs)
    }
}
