//! A model of a link: rate, delay, a queue in front of it, loss, reordering and ECN marks. Pure: time
//! comes in and goes out as timestamps.

use netchannel_units::{Bandwidth, Duration, Timestamp};

use super::random::Random;

/// What a link does to what is sent over it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkModel {
    /// Rate; zero for no limit.
    pub rate: Bandwidth,
    /// One-way delay.
    pub delay: Duration,
    /// Bytes that may wait for the link before more are dropped; zero for no limit.
    pub queue_bytes: u64,
    /// Bytes waiting from which on marks are set; zero for never.
    pub ecn_threshold: u64,
    /// Probability that a message (or segment of 64 KiB) is lost.
    pub loss: f64,
    /// Probability that it is overtaken by its successor.
    pub reorder: f64,
}

impl Default for LinkModel {
    /// No limit, no delay, no faults.
    fn default() -> Self {
        Self {
            rate: Bandwidth::ZERO,
            delay: Duration::ZERO,
            queue_bytes: 0,
            ecn_threshold: 0,
            loss: 0.0,
            reorder: 0.0,
        }
    }
}

/// Several messages at any rate that a host reaches, and little beside a retransmission timer.
const LATENESS: Duration = Duration::from_micros(100);

/// What a link has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStatistics {
    /// Messages or segments given to it, those sent again included.
    pub transmissions: u64,
    /// Lost by chance or for want of room.
    pub drops: u64,
    /// Marked because the queue was long.
    pub marks: u64,
    /// Overtaken by their successor.
    pub reorderings: u64,
}

/// What happens to one transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// When its last byte left the queue.
    pub departure: Timestamp,
    /// When it is at the other end; `None` if it was lost.
    pub arrival: Option<Timestamp>,
    /// Whether it was marked.
    pub marked: bool,
    /// Whether its successor overtakes it.
    pub reordered: bool,
}

/// One direction of a link.
#[derive(Clone, Debug)]
pub struct Link {
    model: LinkModel,
    /// When the last byte accepted so far will have left.
    busy_until: Timestamp,
    /// Reliable transmissions arrive in order.
    last_arrival: Timestamp,
    random: Random,
    statistics: LinkStatistics,
}

impl Link {
    /// An idle link; `seed` decides its faults.
    pub fn new(model: LinkModel, seed: u64) -> Self {
        Self {
            model,
            busy_until: Timestamp::ZERO,
            last_arrival: Timestamp::ZERO,
            random: Random::new(seed),
            statistics: LinkStatistics::default(),
        }
    }

    /// What it has done so far.
    pub fn statistics(&self) -> LinkStatistics {
        self.statistics
    }

    /// One-way delay.
    pub fn delay(&self) -> Duration {
        self.model.delay
    }

    /// How long a datagram that is to be overtaken waits for its successor.
    pub fn lateness(&self) -> Duration {
        self.model.delay.max(LATENESS)
    }

    /// Time for `bytes` there and back again: a READ.
    pub fn round_trip(&self, bytes: u64) -> Duration {
        2 * self.model.delay + self.model.rate.time_for(bytes)
    }

    /// Sends `bytes` at `now`.
    pub fn transmit(&mut self, now: Timestamp, bytes: u64) -> Passage {
        let model = &self.model;
        let start = self.busy_until.max(now);
        let waiting = model.rate.bytes_in(start - now);
        self.statistics.transmissions += 1;
        if model.queue_bytes > 0 && waiting > model.queue_bytes {
            self.statistics.drops += 1;
            return Passage { departure: now, arrival: None, marked: false, reordered: false };
        }
        let departure = start + model.rate.time_for(bytes);
        let lost = model.loss > 0.0 && self.random.unit() < model.loss;
        let reordered = model.reorder > 0.0 && self.random.unit() < model.reorder;
        let marked = model.ecn_threshold > 0 && waiting >= model.ecn_threshold;
        self.busy_until = departure;
        self.statistics.drops += u64::from(lost);
        self.statistics.marks += u64::from(marked && !lost);
        self.statistics.reorderings += u64::from(reordered && !lost);
        let arrival = (!lost).then_some(departure + model.delay);
        Passage { departure, arrival, marked, reordered }
    }

    /// Sends `bytes` at `now` as a reliable connection does, which goes back and sends again after
    /// `timeout`, at most `retries` times: when they arrive, or `None` if they never do.
    pub fn transmit_reliably(
        &mut self,
        now: Timestamp,
        bytes: u64,
        timeout: Duration,
        retries: u8,
    ) -> Option<Timestamp> {
        let mut at = now;
        for _ in 0..=retries {
            let passage = self.transmit(at, bytes);
            if let Some(arrival) = passage.arrival {
                // The receiver drops what came out of order; asking for it again is a round trip.
                let again = if passage.reordered { 2 * self.model.delay } else { Duration::ZERO };
                self.last_arrival = self.last_arrival.max(arrival + again);
                return Some(self.last_arrival);
            }
            at = at.max(passage.departure) + timeout;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_nanos(1_000_000);

    fn link(model: LinkModel) -> Link {
        Link::new(model, 1)
    }

    #[test]
    fn bytes_take_their_time_and_wait_for_those_before() {
        let rate = Bandwidth::from_gbps(8);
        let delay = Duration::from_micros(10);
        let mut link = link(LinkModel { rate, delay, ..LinkModel::default() });
        let microseconds = |n| Duration::from_micros(n);
        assert_eq!(link.transmit(START, 1000).arrival, Some(START + microseconds(11)));
        assert_eq!(link.transmit(START, 1000).arrival, Some(START + microseconds(12)));
        let later = START + microseconds(100);
        assert_eq!(link.transmit(later, 1000).arrival, Some(later + microseconds(11)));
    }

    #[test]
    fn a_long_queue_marks_and_then_drops() {
        let rate = Bandwidth::from_gbps(8);
        let model =
            LinkModel { rate, queue_bytes: 3000, ecn_threshold: 2000, ..LinkModel::default() };
        let mut link = link(model);
        let passages: Vec<_> = (0..6).map(|_| link.transmit(START, 1000)).collect();
        let marks: Vec<_> = passages.iter().map(|passage| passage.marked).collect();
        assert_eq!(marks, [false, false, true, true, false, false]);
        let lost: Vec<_> = passages.iter().map(|passage| passage.arrival.is_none()).collect();
        assert_eq!(lost, [false, false, false, false, true, true]);
        let expected =
            LinkStatistics { transmissions: 6, drops: 2, marks: 2, ..LinkStatistics::default() };
        assert_eq!(link.statistics(), expected);
    }

    #[test]
    fn a_loss_is_a_delay_for_a_reliable_connection() {
        let mut link = link(LinkModel { loss: 0.5, ..LinkModel::default() });
        let timeout = Duration::from_millis(1);
        let mut last = START;
        let (mut late, mut never) = (0, 0);
        for _ in 0..1000 {
            match link.transmit_reliably(START, 1000, timeout, 6) {
                Some(arrival) => {
                    assert!(arrival >= last, "out of order");
                    late += u32::from(arrival > START);
                    last = arrival;
                }
                None => never += 1,
            }
        }
        assert!(late > 900 && never > 0 && never < 30, "{late} late, {never} never");
        let dead = LinkModel { loss: 1.0, ..LinkModel::default() };
        assert_eq!(Link::new(dead, 1).transmit_reliably(START, 1, timeout, 6), None);
    }
}
