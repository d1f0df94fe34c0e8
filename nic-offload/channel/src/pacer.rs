//! Departure times.
//!
//! One timestamp per Channel, as in Carousel (Saeed et al., SIGCOMM 2017, section 4.1) and the
//! earliest departure time of Linux: a message leaves at `next`, and `next` moves on by the time
//! that its bytes take at the pacing rate.

use netchannel_units::{Bandwidth, Duration, Timestamp};

/// Spreads messages over time at a rate.
///
/// ```
/// use netchannel_channel::Pacer;
/// use netchannel_units::{Bandwidth, Duration, Timestamp};
/// let mut pacer = Pacer::new(Duration::ZERO);
/// let start = Timestamp::from_nanos(1_000);
/// assert_eq!(pacer.departure(start), start);
/// pacer.on_transmit(start, 12_500, Some(Bandwidth::from_gbps(100)));
/// assert_eq!(pacer.departure(start), start + Duration::from_micros(1));
/// ```
#[derive(Clone, Debug)]
pub struct Pacer {
    burst: Duration,
    next: Timestamp,
}

impl Pacer {
    /// A pacer that lets a sender who was idle catch up with at most `burst` worth of bytes.
    pub fn new(burst: Duration) -> Self {
        Self { burst, next: Timestamp::ZERO }
    }

    /// When the next message may leave: `now` or later.
    pub fn departure(&self, now: Timestamp) -> Timestamp {
        self.next.max(now)
    }

    /// A message of `bytes` bytes leaves at `now`. `None` is no pacing.
    pub fn on_transmit(&mut self, now: Timestamp, bytes: u64, rate: Option<Bandwidth>) {
        let Some(rate) = rate else { return };
        let burst = u64::try_from(self.burst.as_nanos()).unwrap_or(u64::MAX);
        let earliest = Timestamp::from_nanos(now.as_nanos().saturating_sub(burst));
        self.next = self.next.max(earliest) + rate.time_for(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_counts_up_to_the_burst_only() {
        let rate = Some(Bandwidth::from_gbps(8)); // one byte per nanosecond
        let mut pacer = Pacer::new(Duration::from_nanos(100));
        let now = Timestamp::from_nanos(10_000);
        pacer.on_transmit(now, 100, rate);
        assert_eq!(pacer.departure(now), now);
        pacer.on_transmit(now, 100, rate);
        assert_eq!(pacer.departure(now), Timestamp::from_nanos(10_100));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut pacer = Pacer::new(Duration::ZERO);
        pacer.on_transmit(Timestamp::ZERO, u64::MAX, None);
        assert_eq!(pacer.departure(Timestamp::ZERO), Timestamp::ZERO);
    }
}
