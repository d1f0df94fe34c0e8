//! Streams with every setting: pollers, idleness, policies, windows, memory, congestion control.

mod common;

use std::thread;
use std::time::Duration;

use common::transfers::{both_ways, many_streams, small_questions, there_and_back};
use common::{LIMIT, Pair, config, receive, send, within};
use netchannel::config::Controller;
use netchannel::{Config, Idle, Policy, Poller};

#[test]
fn every_poller_and_every_idleness() {
    let all = [Poller::Inline, Poller::Dedicated]
        .into_iter()
        .flat_map(|poller| [Idle::Spin, Idle::Sleep].map(|idle| (poller, idle)));
    for (poller, idle) in all {
        within(LIMIT, &format!("{poller} {idle}"), move || {
            let config = || Config { poller, idle, ..config() };
            let pair = Pair::of(config(), config());
            both_ways(&pair, 1, 1 << 20, 100_000);
            there_and_back(&pair, 2, 100_000, 3_000);
            small_questions(&pair, 50);
        });
    }
}

#[test]
fn an_inline_side_talks_to_a_dedicated_one() {
    within(LIMIT, "mixed pollers", || {
        let server = Config { poller: Poller::Dedicated, ..config() };
        let pair = Pair::of(server, Config { idle: Idle::Spin, ..config() });
        both_ways(&pair, 1, 1 << 20, 100_000);
        small_questions(&pair, 50);
    });
}

#[test]
fn every_policy_and_window_and_channel_count() {
    let mut settings = Vec::new();
    for policy in [Policy::StaticHash, Policy::RoundRobin, Policy::LeastDelay] {
        settings.push(Config { policy, ..config() });
    }
    for window in [64 << 10, 256 << 10, 2 << 20] {
        settings.push(Config { window, ..config() });
    }
    for channels in [1, 2, 16] {
        settings.push(Config { channels, ..config() });
    }
    settings.push(Config { chunk: 5_000, ..config() });
    settings.push(Config { congestion: "fixed:64KiB".parse::<Controller>().unwrap(), ..config() });
    for config in settings {
        within(LIMIT, &format!("{config:?}"), move || {
            let pair = Pair::of(config.clone(), config);
            both_ways(&pair, 7, 3 << 20, 500_000);
            there_and_back(&pair, 8, 200_000, 10_000);
        });
    }
}

#[test]
fn a_nic_that_takes_its_time_finds_no_source_reused() {
    for (poller, seed) in [(Poller::Inline, 1), (Poller::Dedicated, 2)] {
        within(LIMIT, "deferred", move || {
            let deferred = || {
                let mut config = Config { poller, ..config() };
                config.soft.deferred = true;
                config.soft.seed = seed;
                config
            };
            let pair = Pair::of(deferred(), deferred());
            both_ways(&pair, 1, 4 << 20, 300_000);
            there_and_back(&pair, 2, 300_000, 20_000);
            small_questions(&pair, 100);
            many_streams(&pair, 30, 3);
        });
    }
}

#[test]
fn little_memory_means_refusals_and_not_loss() {
    within(LIMIT, "little memory", || {
        let little = || Config { session_memory: 2 << 20, window: 2 << 20, ..config() };
        let pair = Pair::of(little(), little());
        // More than the session has room for is promised to so many streams.
        let streams: Vec<_> = (0..200).map(|_| pair.stream()).collect();
        thread::scope(|scope| {
            for (seed, (mut ours, mut theirs)) in streams.into_iter().enumerate() {
                let seed = seed as u64;
                scope.spawn(move || {
                    send(&mut ours, seed, 40_000, 16_000).unwrap();
                    drop(ours);
                });
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(200));
                    assert_eq!(receive(&mut theirs, seed, 16_000).unwrap(), 40_000);
                });
            }
        });
        let refused = pair.client.stats().refused;
        assert!(refused > 0, "no refusals: the test is too small");
    });
}

#[test]
fn many_streams_share_a_session() {
    for (poller, idle) in [(Poller::Inline, Idle::Sleep), (Poller::Dedicated, Idle::Sleep)] {
        within(LIMIT, "many streams", move || {
            let config = || Config { poller, idle, ..config() };
            let pair = Pair::of(config(), config());
            many_streams(&pair, 200, 4);
        });
    }
}
