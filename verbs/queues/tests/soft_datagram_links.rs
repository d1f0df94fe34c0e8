//! Datagrams over links of the NIC in memory, in virtual time and therefore exact.

mod datagrams;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datagrams::{SLOT, SLOTS, Side, acquainted, way};
use netchannel_units::Bandwidth;
use netchannel_verbs::error::PostFailure;
use netchannel_verbs::soft::{self, Clock, LinkModel, SoftOptions};
use netchannel_verbs::{Ecn, Grh, WorkCompletion};

/// Two sides; the first one sends over `link`. Time stands still until the test moves it.
struct Timed {
    time: Arc<AtomicU64>,
    nic: soft::Context,
    a: Side,
    b: Side,
}

impl Timed {
    /// Sides that know each other already.
    fn new(link: LinkModel) -> Self {
        let time = Arc::new(AtomicU64::new(1));
        let options = SoftOptions { clock: Clock::Virtual(time.clone()), ..SoftOptions::default() };
        let (nic, mut a, b, _) = acquainted(options);
        a.queue_pair.set_link(link);
        Self { time, nic, a, b }
    }

    /// Polls both sides at every microsecond of the next ones; what arrived at B when.
    fn run(&mut self, microseconds: u64) -> Vec<(u64, WorkCompletion)> {
        let mut arrived = Vec::new();
        for microsecond in 0..microseconds {
            arrived.extend(self.b.poll().into_iter().map(|completion| (microsecond, completion)));
            self.a.poll();
            self.time.fetch_add(1000, Ordering::AcqRel);
        }
        arrived
    }
}

fn numbers(arrived: &[(u64, WorkCompletion)]) -> Vec<u32> {
    arrived.iter().map(|(_, completion)| completion.immediate.unwrap()).collect()
}

#[test]
fn a_link_takes_its_time_and_holds_back_completions() {
    // 1000 bytes with header at 8 Gb/s are 1 us.
    let rate = Bandwidth::from_gbps(8);
    let link = LinkModel { rate, delay: Duration::from_micros(5), ..LinkModel::default() };
    let mut timed = Timed::new(link);
    let to_b = way(&timed.nic, &timed.b, 0);
    let mut posted = 0;
    (0..SLOTS).for_each(|slot| timed.b.receive(slot, SLOT));
    let refusal = loop {
        match timed.a.send(&to_b, posted, 960) {
            Ok(()) => posted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal.reason, PostFailure::QueueFull), "{refusal}");
    assert_eq!(posted, SLOTS as u32, "the first has not left yet");
    let arrived = timed.run(100);
    assert_eq!(numbers(&arrived), (0..posted).collect::<Vec<_>>());
    let times: Vec<_> = arrived.iter().map(|(time, _)| *time).collect();
    assert_eq!(times, (6..6 + u64::from(posted)).collect::<Vec<_>>());
}

#[test]
fn a_long_queue_marks_those_who_take_marks() {
    let link =
        LinkModel { rate: Bandwidth::from_gbps(8), ecn_threshold: 10_000, ..LinkModel::default() };
    for (traffic_class, marked) in [
        (0x28, Ecn::NotCapable),
        (0x28 | 1, Ecn::CongestionExperienced),
        (0x28 | 2, Ecn::CongestionExperienced),
    ] {
        let mut timed = Timed::new(link);
        let to_b = way(&timed.nic, &timed.b, traffic_class);
        for i in 0..30 {
            timed.b.receive(i, SLOT);
            timed.a.send(&to_b, i as u32, 960).unwrap();
        }
        let arrived = timed.run(100);
        assert_eq!(numbers(&arrived), (0..30).collect::<Vec<_>>(), "marked, not lost");
        for i in 0..30 {
            let grh = timed.b.grh(i);
            // The eleventh is the first that finds 10,000 bytes before it.
            let expected = if i < 10 { Ecn::of(traffic_class) } else { marked };
            assert_eq!((grh.ecn(), grh.dscp()), (expected, 10), "datagram {i}");
        }
    }
}

#[test]
fn what_a_link_loses_is_lost() {
    let full =
        LinkModel { rate: Bandwidth::from_gbps(8), queue_bytes: 20_000, ..LinkModel::default() };
    for link in [LinkModel { loss: 0.3, ..LinkModel::default() }, full] {
        let mut timed = Timed::new(link);
        let to_b = way(&timed.nic, &timed.b, 0);
        let mut all = Vec::new();
        (0..SLOTS).for_each(|slot| timed.b.receive(slot, SLOT));
        for round in 0..10 {
            for i in 0..50 {
                timed.a.send(&to_b, 50 * round + i, 960).unwrap();
            }
            let arrived = timed.run(100);
            arrived.iter().for_each(|(_, done)| timed.b.receive(done.id as usize, SLOT));
            all.extend(numbers(&arrived));
        }
        let statistics = timed.a.queue_pair.link_statistics().unwrap();
        assert_eq!(statistics.transmissions, 500, "nothing is sent again");
        assert!((50..450).contains(&statistics.drops), "{statistics:?}");
        assert_eq!(all.len() as u64, 500 - statistics.drops);
        assert!(all.is_sorted_by(|a, b| a < b), "in order, and none twice: {all:?}");
    }
}

#[test]
fn a_link_reorders() {
    let delay = Duration::from_micros(5);
    let link = LinkModel { delay, reorder: 0.3, ..LinkModel::default() };
    let mut timed = Timed::new(link);
    let to_b = way(&timed.nic, &timed.b, 0);
    for i in 0..SLOTS {
        timed.b.receive(i, SLOT);
        timed.a.fill(0, 100, i as u8);
        timed.a.send(&to_b, i as u32, 100).unwrap();
    }
    let arrived = timed.run(200);
    let mut numbers = numbers(&arrived);
    let swapped = numbers.windows(2).filter(|pair| pair[0] > pair[1]).count();
    let statistics = timed.a.queue_pair.link_statistics().unwrap();
    assert!((5..=statistics.reorderings as usize).contains(&swapped), "{swapped}: {numbers:?}");
    for (_, completion) in &arrived {
        let payload = &timed.b.bytes(completion.id as usize, Grh::LEN + 100)[Grh::LEN..];
        assert_eq!(payload, [completion.immediate.unwrap() as u8; 100]);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..SLOTS as u32).collect::<Vec<_>>(), "all of them, once");
}

#[test]
fn the_last_of_all_is_late_and_not_lost() {
    let delay = Duration::from_micros(500);
    let mut timed = Timed::new(LinkModel { delay, reorder: 1.0, ..LinkModel::default() });
    let to_b = way(&timed.nic, &timed.b, 0);
    timed.b.receive(0, SLOT);
    timed.a.send(&to_b, 9, 100).unwrap();
    let arrived = timed.run(2000);
    assert_eq!(arrived.iter().map(|(time, _)| *time).collect::<Vec<_>>(), [1000]);
}
