//! Streams share by bytes; classes by precedence and quota.

use std::collections::BTreeMap;

use netchannel_scheduler::{
    Assignment, ChannelId, ChannelView, Policy, Scheduler, SchedulerConfig, StreamKey,
};
use netchannel_units::{Bandwidth, Claim, Class, Weight};
use proptest::prelude::*;

const CHUNK: u64 = 64 * 1024;
const PLENTY: u64 = 1 << 50;

fn view(id: u16) -> ChannelView {
    ChannelView::new(ChannelId(id))
}

/// The next assignment on Channels that stand like this.
fn next_on(scheduler: &mut Scheduler, channels: &[ChannelView]) -> Option<Assignment> {
    scheduler.look(channels.iter().copied());
    scheduler.next()
}

fn config(policy: Policy) -> SchedulerConfig {
    SchedulerConfig { policy, chunk: CHUNK, ..SchedulerConfig::default() }
}

/// Assignments of whatever size the Channels take: rates from 1 to 16 Gb/s make small and large
/// ones.
#[test]
fn streams_that_always_have_bytes_get_the_same() {
    for policy in Policy::ALL {
        for count in [2, 3, 10, 100] {
            let mut scheduler = Scheduler::new(config(policy));
            for key in 0..count {
                scheduler.on_backlog(StreamKey(key), Class::Throughput, PLENTY);
            }
            // One Channel only, so that the static policy is fair, too.
            let mut got = vec![0_u64; count as usize];
            for turn in 0..20_000_u64 {
                let mut view = view(0);
                view.rate = Bandwidth::from_gbps(1 + turn * 7 % 16);
                view.window_left = 1_000 + turn * 7_919 % 100_000;
                let next = next_on(&mut scheduler, &[view]).unwrap();
                got[next.stream.0 as usize] += next.bytes;
                let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
                assert!(most - least <= 3 * CHUNK, "{policy} {count}: {least} to {most}");
            }
        }
    }
}

/// Pinned streams get no less than free ones, and those on an idle Channel may get more (nothing
/// is left unused).
#[test]
fn pinned_and_free_streams_share_a_channel() {
    let mut scheduler = Scheduler::new(config(Policy::LeastDelay));
    for key in 0..6 {
        scheduler.on_backlog(StreamKey(key), Class::Throughput, PLENTY);
    }
    for key in 0..3 {
        scheduler.pin(StreamKey(key), Some(ChannelId(0)));
    }
    let mut got = [0_u64; 6];
    for _ in 0..6_000 {
        let next = next_on(&mut scheduler, &[view(0)]).unwrap();
        got[next.stream.0 as usize] += next.bytes;
    }
    let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
    assert!(most - least <= 3 * CHUNK, "{got:?}");
}

/// A stream that waited for its Channel gets its turn, and not all that it missed.
#[test]
fn a_ring_that_waited_does_not_make_up_for_it() {
    let mut scheduler = Scheduler::new(config(Policy::LeastDelay));
    scheduler.on_backlog(StreamKey(0), Class::Throughput, PLENTY);
    scheduler.on_backlog(StreamKey(1), Class::Throughput, PLENTY);
    scheduler.pin(StreamKey(0), Some(ChannelId(0)));
    let blocked = [ChannelView { usable: false, ..view(0) }, view(1)];
    for _ in 0..1_000 {
        assert_eq!(next_on(&mut scheduler, &blocked).unwrap().stream, StreamKey(1));
    }
    let mut got = [0_u64; 2];
    for _ in 0..20 {
        let next = next_on(&mut scheduler, &[view(0)]).unwrap();
        got[next.stream.0 as usize] += next.bytes;
    }
    assert!(got[0].abs_diff(got[1]) <= 2 * CHUNK, "{got:?}");
}

/// A stream that refills in small pieces is served between the large ones and never by-passes
/// them.
#[test]
fn small_pieces_and_bulk_both_go_on() {
    for pinned in [false, true] {
        let mut scheduler = Scheduler::new(config(Policy::LeastDelay));
        scheduler.on_backlog(StreamKey(1), Class::Throughput, PLENTY);
        if pinned {
            scheduler.pin(StreamKey(1), Some(ChannelId(0)));
        }
        let mut got = BTreeMap::from([(0, (0_u64, 0_u64)), (1, (0, 0))]);
        for _ in 0..10_000 {
            scheduler.on_backlog(StreamKey(0), Class::Throughput, 1_000);
            let next = next_on(&mut scheduler, &[view(0)]).unwrap();
            let (times, bytes) = got.get_mut(&next.stream.0).unwrap();
            *times += 1;
            *bytes += next.bytes;
        }
        assert!(got[&0].0 > 1_000, "{got:?}");
        assert!(got[&1].1 + 2 * CHUNK >= got[&0].1, "{got:?}");
    }
}

#[test]
fn latency_goes_first_and_leaves_its_share() {
    for share in [0, 10, 20, 50] {
        let mut scheduler = Scheduler::new(SchedulerConfig {
            throughput_share: share,
            ..config(Policy::LeastDelay)
        });
        scheduler.on_backlog(StreamKey(0), Class::Latency, PLENTY);
        scheduler.on_backlog(StreamKey(1), Class::Throughput, PLENTY);
        let mut got = [0_u64; 2];
        for _ in 0..10_000 {
            let next = next_on(&mut scheduler, &[view(0), view(1)]).unwrap();
            got[next.stream.0 as usize] += next.bytes;
        }
        let percent = got[1] as f64 * 100.0 / (got[0] + got[1]) as f64;
        assert!((percent - f64::from(share)).abs() < 0.5, "{percent} of {share}");
    }
}

/// A few latency bytes are served before bulk that was there first, every time.
#[test]
fn little_latency_never_waits_for_bulk() {
    let mut scheduler = Scheduler::new(config(Policy::LeastDelay));
    scheduler.on_backlog(StreamKey(1), Class::Throughput, PLENTY);
    for _ in 0..1_000 {
        scheduler.on_backlog(StreamKey(0), Class::Latency, 64);
        assert_eq!(next_on(&mut scheduler, &[view(0)]).unwrap().stream, StreamKey(0));
        for _ in 0..3 {
            assert_eq!(next_on(&mut scheduler, &[view(0)]).unwrap().stream, StreamKey(1));
        }
    }
}

/// Thousands of streams bound to a Channel that is full cost nothing for the others.
#[test]
fn streams_that_wait_are_not_looked_at() {
    let mut scheduler = Scheduler::new(config(Policy::LeastDelay));
    for key in 1..20_000 {
        scheduler.on_backlog(StreamKey(key), Class::Throughput, PLENTY);
        scheduler.pin(StreamKey(key), Some(ChannelId(0)));
    }
    scheduler.on_backlog(StreamKey(0), Class::Throughput, PLENTY);
    let views = [ChannelView { usable: false, ..view(0) }, view(1)];
    for _ in 0..200_000 {
        assert_eq!(next_on(&mut scheduler, &views).unwrap().stream, StreamKey(0));
    }
    for key in 0..20_000 {
        scheduler.remove(StreamKey(key));
    }
    assert_eq!(next_on(&mut scheduler, &[view(0), view(1)]), None);
}

/// A stream that asks for this weight.
fn weighted(weight: u8) -> Claim {
    Claim { class: Class::Throughput, weight: Weight::new(weight).unwrap() }
}

proptest! {
    /// However large the assignments are, and whether streams are free or bound to Channels, at any
    /// moment each has got bytes in proportion to its weight, but for a few chunks.
    #[test]
    fn bytes_go_by_weight(
        weights in proptest::collection::vec((1..=Weight::MAX, any::<bool>()), 2..12),
        sizes in proptest::collection::vec(1_000_u64..=CHUNK, 1..40),
        policy in proptest::sample::select(Policy::ALL.to_vec()),
    ) {
        let mut scheduler = Scheduler::new(config(policy));
        for (key, (weight, pinned)) in (0..).zip(&weights) {
            scheduler.on_backlog(StreamKey(key), weighted(*weight), PLENTY);
            if *pinned {
                scheduler.pin(StreamKey(key), Some(ChannelId(0)));
            }
        }
        let mut got = vec![0_u64; weights.len()];
        for turn in 0..4_000 {
            let mut view = view(0);
            view.window_left = sizes[turn % sizes.len()];
            let next = next_on(&mut scheduler, &[view]).unwrap();
            got[next.stream.0 as usize] += next.bytes;
            // What a stream of weight 1 would have got. A turn is a chunk, and may be overdrawn by one.
            let shares = got.iter().zip(&weights);
            let share = |(bytes, (weight, _)): (&u64, &(u8, bool))| bytes / u64::from(*weight);
            let least = shares.clone().map(share).min().unwrap();
            let most = shares.map(share).max().unwrap();
            prop_assert!(most - least <= 3 * CHUNK, "{} to {}: {:?}", least, most, got);
        }
    }

    /// A stream that runs dry after every piece, and has the next one after some turns of the other,
    /// gets no more than its weight beside one that never does, whatever the size of the pieces.
    #[test]
    fn who_runs_dry_gets_no_more(
        piece in 1_000_u64..3 * CHUNK,
        heavy in 1..=Weight::MAX,
        light in 1..=Weight::MAX,
        pause in 0..6,
    ) {
        let mut scheduler = Scheduler::new(config(Policy::LeastDelay));
        scheduler.on_backlog(StreamKey(0), weighted(heavy), PLENTY);
        let (mut left, mut dry) = (0, 0);
        let mut got = [0_u64; 2];
        for _ in 0..10_000 {
            if left == 0 {
                dry += 1;
            }
            if dry > pause {
                (left, dry) = (piece, 0);
                scheduler.on_backlog(StreamKey(1), weighted(light), piece);
            }
            let next = next_on(&mut scheduler, &[view(0)]).unwrap();
            got[next.stream.0 as usize] += next.bytes;
            if next.stream == StreamKey(1) {
                left = next.left;
            }
        }
        let share = |at: usize, weight: u8| got[at] / u64::from(weight);
        prop_assert!(share(1, light) <= share(0, heavy) + 3 * CHUNK, "{:?}", got);
        prop_assert!(got[1] >= 10 * piece, "starved: {:?}", got);
    }
}

/// A heavy stream's turns are spread: nobody waits for all of them at once.
#[test]
fn turns_of_a_heavy_stream_are_spread() {
    let mut scheduler = Scheduler::new(config(Policy::LeastDelay));
    scheduler.on_backlog(StreamKey(0), weighted(8), PLENTY);
    for key in 1..=8 {
        scheduler.on_backlog(StreamKey(key), weighted(1), PLENTY);
    }
    let mut in_a_row = 0;
    for turn in 0..1_000 {
        let next = next_on(&mut scheduler, &[view(0)]).unwrap();
        in_a_row = if next.stream == StreamKey(0) { in_a_row + 1 } else { 0 };
        // The light ones began together, so they are served together; so between two of their turns
        // come at most the eight that the heavy one has meanwhile.
        assert!(in_a_row <= 8, "{in_a_row} at turn {turn}");
    }
}

#[test]
fn a_weight_may_change_while_bytes_wait() {
    let mut scheduler = Scheduler::new(config(Policy::LeastDelay));
    for key in [0, 1] {
        scheduler.on_backlog(StreamKey(key), weighted(1), PLENTY);
    }
    for (weight, expected) in [(1, 1.0), (4, 4.0), (16, 16.0), (1, 1.0)] {
        scheduler.on_backlog(StreamKey(0), weighted(weight), PLENTY);
        let mut got = [0_u64; 2];
        for _ in 0..1_700 {
            let next = next_on(&mut scheduler, &[view(0)]).unwrap();
            got[next.stream.0 as usize] += next.bytes;
        }
        let ratio = got[0] as f64 / got[1] as f64;
        assert!((ratio / expected - 1.0).abs() < 0.05, "weight {weight}: {ratio}");
    }
}
