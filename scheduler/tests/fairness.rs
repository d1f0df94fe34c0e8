//! Streams share by bytes; classes by precedence and quota.

use std::collections::BTreeMap;

use netchannel_scheduler::{ChannelId, ChannelView, Policy, Scheduler, SchedulerConfig, StreamKey};
use netchannel_units::{Bandwidth, Class};

const CHUNK: u64 = 64 * 1024;
const PLENTY: u64 = 1 << 50;

fn view(id: u16) -> ChannelView {
    ChannelView::new(ChannelId(id))
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
                let next = scheduler.next(&[view]).unwrap();
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
        let next = scheduler.next(&[view(0)]).unwrap();
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
        assert_eq!(scheduler.next(&blocked).unwrap().stream, StreamKey(1));
    }
    let mut got = [0_u64; 2];
    for _ in 0..20 {
        let next = scheduler.next(&[view(0)]).unwrap();
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
            let next = scheduler.next(&[view(0)]).unwrap();
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
            let next = scheduler.next(&[view(0), view(1)]).unwrap();
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
        assert_eq!(scheduler.next(&[view(0)]).unwrap().stream, StreamKey(0));
        for _ in 0..3 {
            assert_eq!(scheduler.next(&[view(0)]).unwrap().stream, StreamKey(1));
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
        assert_eq!(scheduler.next(&views).unwrap().stream, StreamKey(0));
    }
    for key in 0..20_000 {
        scheduler.remove(StreamKey(key));
    }
    assert_eq!(scheduler.next(&[view(0), view(1)]), None);
}
