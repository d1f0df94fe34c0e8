//! Ping-pong: half of the round trip of a message.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::bandwidth::{Merge, pattern, per_thread};
use crate::error::{Context, Error, Result};
use crate::spec::{Amount, Load};
use crate::transport::Connection;

/// Round trips before the first that counts: caches, branch predictors, sleeping cores.
const WARM_UP: u64 = 1000;
/// The same where every one begins a set time after the one before.
const PACED_WARM_UP: u64 = 100;
/// Longest half round trip that is told apart, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// Half round trips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HalfRoundTrips {
    /// How many were measured.
    pub count: u64,
    /// Shortest, in nanoseconds.
    pub min_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99 of 100 were not longer.
    pub p99_ns: u64,
    /// 999 of 1000 were not longer.
    pub p999_ns: u64,
    /// Longest.
    pub max_ns: u64,
}

impl From<&Histogram<u64>> for HalfRoundTrips {
    fn from(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            min_ns: histogram.min(),
            p50_ns: histogram.value_at_quantile(0.5),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
        }
    }
}

/// A histogram for half round trips.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are valid")
}

impl Merge for Histogram<u64> {
    fn merge(mut self, other: Self) -> Self {
        self.add(other).expect("both histograms have the same bounds");
        self
    }
}

impl Merge for u64 {
    fn merge(self, other: Self) -> Self {
        self + other
    }
}

/// Sends a message and waits for its return, until the load's amount is reached, on every
/// connection.
pub fn ping(connections: Vec<Box<dyn Connection>>, load: &Load) -> Result<HalfRoundTrips> {
    let all = per_thread(connections, |connection, stream| ping_one(connection, stream, load))?;
    Ok(HalfRoundTrips::from(&all))
}

/// Sends every message back, until the end of each connection; returns the bytes read.
pub fn echo(connections: Vec<Box<dyn Connection>>, load: &Load) -> Result<u64> {
    per_thread(connections, |connection, _| echo_one(connection, load.size))
}

/// When a latency run begins to count and when it ends.
pub(crate) struct Schedule {
    warm_up: u64,
    amount: Amount,
    counted_from: Option<Instant>,
    counted: u64,
}

impl Schedule {
    pub(crate) fn new(amount: Amount) -> Self {
        Self::after(WARM_UP, amount)
    }

    /// Begins to count after `warm_up` round trips.
    fn after(warm_up: u64, amount: Amount) -> Self {
        let warm_up = match amount {
            Amount::Iterations(count) => warm_up.min(count),
            Amount::Duration(_) => warm_up,
        };
        Self { warm_up, amount, counted_from: None, counted: 0 }
    }

    /// A round trip ended at `now`: whether it counts, or `None` if the run is over.
    pub(crate) fn on_round_trip(&mut self, now: Instant) -> Option<bool> {
        let Some(since) = self.counted_from else {
            self.warm_up = self.warm_up.saturating_sub(1);
            if self.warm_up == 0 {
                self.counted_from = Some(now);
            }
            return Some(false);
        };
        let over = match self.amount {
            Amount::Iterations(count) => self.counted >= count,
            Amount::Duration(duration) => now - since >= duration,
        };
        self.counted += 1;
        (!over).then_some(true)
    }
}

/// Nanoseconds of half of `round_trip`.
pub(crate) fn half(round_trip: Duration) -> u64 {
    u64::try_from(round_trip.as_nanos() / 2).unwrap_or(LONGEST).clamp(1, LONGEST)
}

fn ping_one(
    mut connection: Box<dyn Connection>,
    stream: usize,
    load: &Load,
) -> Result<Histogram<u64>> {
    let mut message = pattern(load.size);
    let mut answer = vec![0; load.size];
    let mut histogram = histogram();
    let paced = !load.interval.is_zero();
    let mut schedule = Schedule::after(if paced { PACED_WARM_UP } else { WARM_UP }, load.amount);
    let stamp = load.size.min(8);
    let mut sequence = 0u64;
    let mut before = Instant::now();
    let mut last = None;
    loop {
        if paced {
            before = pause(before + load.interval);
        }
        sequence += 1;
        message[..stamp].copy_from_slice(&sequence.to_le_bytes()[..stamp]);
        connection.write_all(&message).context("write to the stream")?;
        // While the answer is on its way.
        record(&mut histogram, last.take());
        connection.read_exact(&mut answer).context("read from the stream")?;
        let now = Instant::now();
        if answer[..stamp] != message[..stamp] || (load.verify && answer != message) {
            return Err(Error::Corrupted { stream, offset: (sequence - 1) * load.size as u64 });
        }
        match schedule.on_round_trip(now) {
            Some(true) => last = Some(now - before),
            Some(false) => {}
            None => break,
        }
        if !paced {
            before = now;
        }
    }
    record(&mut histogram, last);
    connection.finish().context("finish the stream")?;
    connection.close().context("close the stream")?;
    Ok(histogram)
}

fn record(histogram: &mut Histogram<u64>, round_trip: Option<Duration>) {
    if let Some(round_trip) = round_trip {
        histogram.saturating_record(half(round_trip));
    }
}

/// Sleeps until `due`, if that is still to come; returns the time.
fn pause(due: Instant) -> Instant {
    let rest = due.saturating_duration_since(Instant::now());
    if !rest.is_zero() {
        std::thread::sleep(rest);
    }
    Instant::now()
}

fn echo_one(mut connection: Box<dyn Connection>, size: usize) -> Result<u64> {
    let mut message = vec![0; size];
    let mut bytes = 0;
    loop {
        let first = connection.read(&mut message).context("read from the stream")?;
        if first == 0 {
            break;
        }
        connection.read_exact(&mut message[first..]).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::PeerGone(source),
            _ => Error::Io { what: "read from the stream".into(), source },
        })?;
        connection.write_all(&message).context("write to the stream")?;
        bytes += size as u64;
    }
    connection.close().context("close the stream")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_counts_after_its_warm_up() {
        let mut schedule = Schedule::new(Amount::Iterations(3));
        let now = Instant::now();
        let seen: Vec<_> = std::iter::from_fn(|| schedule.on_round_trip(now)).collect();
        assert_eq!(seen, [false, false, false, true, true, true]);
    }

    #[test]
    fn half_of_a_round_trip_in_nanoseconds() {
        assert_eq!(half(Duration::from_micros(10)), 5000);
        assert_eq!(half(Duration::ZERO), 1);
    }
}
