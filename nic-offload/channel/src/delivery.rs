//! Delivery rate and queue-free completion time, from send completions alone.
//!
//! A queue pair completes in order, so it is a queue with one server. While its queue was not
//! empty, the bytes completed over the time between completions are its service rate; this is the
//! delivery rate sample of BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM
//! Queue 2016; draft-cheng-iccrg-delivery-rate-estimation) for a server that acknowledges in
//! order. The rate is the highest sample of the last one or two milliseconds. When the queue had
//! run empty, the time includes a latency and the sample is a lower bound only: it may raise the
//! rate and never lowers it (BBR's "application limited").
//!
//! A sample spans at least the time that its last message was in the queue: queues that share a
//! port may be served in turns of a whole queue each, and the rate is that of whole turns.
//!
//! Completions are seen in batches, one per poll pass. All completions with the same timestamp
//! are one sample.

use netchannel_units::{Bandwidth, Duration, Timestamp};

/// A busy sample spans at least this. Completions are seen up to a poll pass late (about a
/// microsecond); over 50 us that is an error of a few per cent.
const MIN_SPAN_NANOS: u64 = 50_000;
/// A lower bound is taken from this many bytes on; the time of fewer is all latency.
const MIN_LOWER_BOUND: u64 = 16 * 1024;
/// The maximum is over the current and the previous period of this length: some hundred round
/// trips, so that the rate follows when queues share a port or part from it.
const PERIOD_NANOS: u64 = 1_000_000;
/// Gain of the smoothed completion time, as for the smoothed round-trip time of RFC 6298.
const SMOOTHING: u64 = 8;

/// Measures one queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delivery {
    /// The last completion, if there was one.
    previous: Option<Timestamp>,
    /// Nobody polled for a while since then.
    gap: bool,
    batch: Batch,
    busy_nanos: u64,
    busy_bytes: u64,
    /// `busy_nanos` and `busy_bytes` have made a sample.
    sampled: bool,
    peaks: Peaks,
    completion_nanos: Option<u64>,
}

/// The completions seen at one time.
#[derive(Clone, Debug, Default)]
struct Batch {
    /// From when on the server worked on it.
    nanos: u64,
    bytes: u64,
    /// The queue was not empty before it.
    busy: bool,
    /// Its time says nothing.
    void: bool,
    /// The smoothed completion time before it.
    completion_nanos: Option<u64>,
}

impl Delivery {
    /// `bytes` bytes completed, the oldest of them posted at `posted`. Returns the completion
    /// time of the batch so far without queueing.
    pub(crate) fn on_completion(
        &mut self,
        now: Timestamp,
        posted: Timestamp,
        bytes: u64,
    ) -> Option<Duration> {
        if self.previous != Some(now) || self.gap {
            self.start_batch(now, posted);
        }
        self.batch.bytes += bytes;
        if self.batch.void {
            return None;
        }
        if self.batch.busy {
            self.busy_bytes += bytes;
            let sojourn = now.as_nanos().saturating_sub(posted.as_nanos());
            if self.busy_nanos >= sojourn.max(MIN_SPAN_NANOS) {
                self.sampled = true;
                self.peaks.on_sample(now, rate_of(self.busy_bytes, self.busy_nanos));
            }
        } else if self.batch.bytes >= MIN_LOWER_BOUND {
            let bound = rate_of(self.batch.bytes, self.batch.nanos);
            if bound > self.peaks.highest() {
                self.peaks.on_sample(now, bound);
            }
        }
        self.on_completion_time()
    }

    /// Nobody looked for a while: when the next completions happened is not known.
    pub(crate) fn on_poll_gap(&mut self) {
        self.gap = true;
    }

    fn start_batch(&mut self, now: Timestamp, posted: Timestamp) {
        if core::mem::take(&mut self.sampled) {
            self.busy_nanos = 0;
            self.busy_bytes = 0;
        }
        let busy = self.previous.is_some_and(|previous| posted <= previous);
        let from = self.previous.unwrap_or(posted).max(posted);
        let nanos = now.as_nanos().saturating_sub(from.as_nanos());
        let void = core::mem::take(&mut self.gap);
        if busy && !void {
            self.busy_nanos += nanos;
        }
        self.batch = Batch { nanos, bytes: 0, busy, void, completion_nanos: self.completion_nanos };
        self.previous = Some(now);
    }

    fn on_completion_time(&mut self) -> Option<Duration> {
        let rate = self.peaks.highest();
        if rate == 0 {
            return None;
        }
        let service = nanos_for(self.batch.bytes, rate);
        let sample = self.batch.nanos.saturating_sub(service);
        let smoothed = match self.batch.completion_nanos {
            None => sample,
            Some(before) => before - before / SMOOTHING + sample / SMOOTHING,
        };
        self.completion_nanos = Some(smoothed);
        Some(Duration::from_nanos(sample))
    }

    /// The measured rate; zero is unknown.
    pub(crate) fn rate(&self) -> Bandwidth {
        Bandwidth::from_bits_per_second(self.peaks.highest())
    }

    /// The smoothed completion time without queueing.
    pub(crate) fn completion_time(&self) -> Option<Duration> {
        self.completion_nanos.map(Duration::from_nanos)
    }
}

/// The highest sample of the current and of the previous period.
#[derive(Clone, Debug, Default)]
struct Peaks {
    started: Timestamp,
    current: u64,
    previous: u64,
}

impl Peaks {
    fn on_sample(&mut self, now: Timestamp, rate: u64) {
        if now.as_nanos() - self.started.as_nanos() >= PERIOD_NANOS {
            self.started = now;
            self.previous = self.current;
            self.current = rate;
        } else {
            self.current = self.current.max(rate);
        }
    }

    fn highest(&self) -> u64 {
        self.current.max(self.previous)
    }
}

const BITS_PER_BYTE_NANOS: u64 = 8 * 1_000_000_000;

/// Bits per second; 64-bit arithmetic where it fits, because this runs per completion.
fn rate_of(bytes: u64, nanos: u64) -> u64 {
    match bytes.checked_mul(BITS_PER_BYTE_NANOS) {
        Some(bits) => bits / nanos.max(1),
        None => {
            Bandwidth::from_transfer(bytes, Duration::from_nanos(nanos.max(1))).bits_per_second()
        }
    }
}

/// Nanoseconds that `bytes` take at `rate` bits per second, which is not zero.
fn nanos_for(bytes: u64, rate: u64) -> u64 {
    match bytes.checked_mul(BITS_PER_BYTE_NANOS) {
        Some(bits) => bits / rate,
        None => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    /// A completion of 10,000 bytes at `nanos`, 40 us after they were posted.
    fn complete(delivery: &mut Delivery, nanos: u64) {
        delivery.on_completion(at(nanos), at(nanos.saturating_sub(40_000)), 10_000);
    }

    /// A server of one byte per nanosecond (8 Gb/s) and 3 us latency, always busy.
    #[test]
    fn a_busy_queue_shows_its_rate() {
        let mut delivery = Delivery::default();
        for i in 1..=20 {
            complete(&mut delivery, 3_000 + i * 10_000);
        }
        assert_eq!(delivery.rate(), Bandwidth::from_gbps(8));
        assert!(delivery.completion_time().unwrap() < Duration::from_micros(1));
    }

    #[test]
    fn completions_seen_in_batches_make_one_sample() {
        let mut delivery = Delivery::default();
        for batch in 1..=10 {
            for _ in 0..5 {
                let now = batch * 50_000;
                delivery.on_completion(at(now), at(now.saturating_sub(60_000)), 10_000);
            }
        }
        assert_eq!(delivery.rate(), Bandwidth::from_gbps(8));
    }

    /// A port serves two queues in turns of 100 us: half its rate, though each turn shows all of
    /// it.
    #[test]
    fn turns_of_a_whole_queue_are_one_sample() {
        let mut delivery = Delivery::default();
        for turn in 1..50 {
            for i in 1..=10 {
                let now = turn * 200_000 + i * 10_000;
                delivery.on_completion(at(now), at(now - 200_000), 10_000);
            }
        }
        assert_eq!(delivery.rate(), Bandwidth::from_gbps(4));
    }

    #[test]
    fn an_idle_queue_gives_a_lower_bound_and_its_latency() {
        let mut delivery = Delivery::default();
        for i in 0..20 {
            let start = i * 1_000_000;
            delivery.on_completion(at(start + 63_000), at(start), 60_000);
        }
        let bound = delivery.rate();
        assert!(bound < Bandwidth::from_gbps(8) && bound > Bandwidth::from_gbps(7), "{bound}");
        for i in 1..=20 {
            complete(&mut delivery, 30_000_000 + i * 10_000);
        }
        for i in 31..=90 {
            let start = i * 1_000_000;
            delivery.on_completion(at(start + 63_000), at(start), 60_000);
        }
        assert_eq!(delivery.rate(), Bandwidth::from_gbps(8), "not lowered by the idle queue");
        let time = delivery.completion_time().unwrap();
        assert!(time.abs_diff(Duration::from_micros(3)) < Duration::from_nanos(50), "{time:?}");
    }

    #[test]
    fn the_rate_falls_when_the_server_slows_down() {
        let mut delivery = Delivery::default();
        let mut now = 0;
        for step in [10_000, 40_000] {
            for _ in 0..200 {
                now += step;
                complete(&mut delivery, now);
            }
        }
        assert_eq!(delivery.rate(), Bandwidth::from_gbps(2));
    }

    #[test]
    fn a_poll_gap_leaves_no_trace() {
        let mut delivery = Delivery::default();
        let mut now = 0;
        for _ in 0..20 {
            now += 10_000;
            complete(&mut delivery, now);
        }
        let (rate, time) = (delivery.rate(), delivery.completion_time());
        now += 5_000_000;
        delivery.on_poll_gap();
        assert_eq!(delivery.on_completion(at(now), at(0), 10_000), None);
        assert_eq!((delivery.rate(), delivery.completion_time()), (rate, time));
        for _ in 0..200 {
            now += 10_000;
            complete(&mut delivery, now);
        }
        assert_eq!(delivery.rate(), rate);
    }

    #[test]
    fn small_messages_alone_say_nothing() {
        let mut delivery = Delivery::default();
        for i in 0..100 {
            delivery.on_completion(at(i * 10_000 + 2_000), at(i * 10_000), 64);
        }
        assert_eq!(delivery.rate(), Bandwidth::ZERO);
        assert_eq!(delivery.completion_time(), None);
    }
}
