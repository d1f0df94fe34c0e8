//! How many bytes may stand in front of a latency message at a port.
//!
//! Whatever a NIC holds of bulk bytes a latency message may have to wait for. So the bytes
//! outstanding on all throughput Channels of a port together are bounded by what its rate carries in
//! a target delay; a chunk is at most half of that. The bound must still keep the port busy: if it
//! runs dry though bytes wait, the bound grows, within limits, and shrinks again in calm times.
//!
//! Latency bytes are bounded, too, while bulk waits: queues are first in, first out, so that bytes
//! outstanding in proportion `1 - share : share` give bulk its share of the link.

use netchannel_units::{Bandwidth, Duration, Timestamp};

/// Least bytes of a chunk, a page: below, headers would cost more than they save.
const MIN_CHUNK: u64 = 4_096;
/// The budget grows to at most this many times the target: beyond that, what makes the port run dry
/// is something else.
const MOST: u64 = 4;
/// After this many times the time of a whole budget without a dry moment it shrinks.
const CALM: u32 = 64;

/// The rules of a port. Amounts are bytes.
///
/// ```
/// use netchannel_scheduler::budget::BulkBudget;
/// use netchannel_units::{Bandwidth, Duration};
///
/// let port = BulkBudget::new(Bandwidth::from_gbps(8), Duration::from_micros(50)).unwrap();
/// assert_eq!(port.least(), 50_000);
/// assert_eq!(port.chunk(), 25_000);
/// assert!(port.after_dry(port.least()) > port.least());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkBudget {
    rate: Bandwidth,
    least: u64,
}

impl BulkBudget {
    /// The rules for a port of this rate; `None` if the rate is unknown or there is no target.
    pub fn new(rate: Bandwidth, target: Duration) -> Option<Self> {
        if rate == Bandwidth::ZERO || target == Duration::ZERO {
            return None;
        }
        Some(Self { rate, least: rate.bytes_in(target).max(2 * MIN_CHUNK) })
    }

    /// The budget to begin with.
    pub fn least(&self) -> u64 {
        self.least
    }

    /// Most bytes of a chunk.
    pub fn chunk(&self) -> u64 {
        self.least / 2
    }

    /// Chunks smaller than this wait for more room.
    pub fn grain(&self) -> u64 {
        self.least / 4
    }

    /// Whether a dry moment after `gap` without a look may be blamed on the budget: within a longer
    /// one even the largest runs out.
    pub fn blames(&self, gap: Duration) -> bool {
        gap <= self.rate.time_for(self.least.saturating_mul(MOST))
    }

    /// The budget after the port ran dry under `budget` though bytes waited.
    pub fn after_dry(&self, budget: u64) -> u64 {
        (budget + budget / 4).min(self.least.saturating_mul(MOST))
    }

    /// The budget after a calm time.
    pub fn after_calm(&self, budget: u64) -> u64 {
        budget - budget.saturating_sub(self.least).div_ceil(8)
    }

    /// When a time without dry moments that began at `since` is a calm one.
    pub fn calm_at(&self, since: Timestamp, budget: u64) -> Timestamp {
        since + self.rate.time_for(budget) * CALM
    }

    /// Bytes of latency streams that may be outstanding while bulk waits and is to have `share` per
    /// cent of the port.
    pub fn latency(&self, budget: u64, share: u8) -> u64 {
        let share = u64::from(share.clamp(1, 99));
        budget.saturating_mul(100 - share) / share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> BulkBudget {
        BulkBudget::new(Bandwidth::from_gbps(2), Duration::from_micros(50)).unwrap()
    }

    #[test]
    fn nothing_is_bounded_without_a_rate_or_a_target() {
        assert_eq!(BulkBudget::new(Bandwidth::ZERO, Duration::from_micros(50)), None);
        assert_eq!(BulkBudget::new(Bandwidth::from_gbps(2), Duration::ZERO), None);
    }

    #[test]
    fn a_slow_port_still_takes_pages() {
        let slow =
            BulkBudget::new(Bandwidth::from_bits_per_second(1_000_000), Duration::from_micros(1));
        assert_eq!(slow.unwrap().chunk(), MIN_CHUNK);
    }

    #[test]
    fn dry_moments_raise_the_budget_to_a_bound_and_calm_ones_lower_it_to_the_target() {
        let port = port();
        let mut budget = port.least();
        for _ in 0..100 {
            let next = port.after_dry(budget);
            assert!(next >= budget && next <= MOST * port.least());
            budget = next;
        }
        assert_eq!(budget, MOST * port.least());
        for _ in 0..200 {
            let next = port.after_calm(budget);
            assert!(next <= budget && next >= port.least());
            budget = next;
        }
        assert_eq!(budget, port.least());
    }

    #[test]
    fn a_long_gap_is_not_the_budgets_fault() {
        let port = port();
        assert!(port.blames(Duration::from_micros(100)));
        assert!(!port.blames(Duration::from_millis(4)));
    }

    #[test]
    fn a_share_of_a_fifth_is_four_times_the_budget_for_the_others() {
        assert_eq!(port().latency(1_000, 20), 4_000);
        assert_eq!(port().latency(1_000, 0), 99_000, "never nothing");
    }
}
