//! Scheduler and Channels together: who carries how much, and how long it takes.

mod network;

use netchannel_scheduler::{Policy, Scheduler, SchedulerConfig, StreamKey};
use netchannel_units::{Bandwidth, Class, Duration};
use network::Network;

const MS: Duration = Duration::from_millis(1);
/// More than any run sends.
const PLENTY: u64 = 1 << 50;

fn scheduler(config: SchedulerConfig) -> Scheduler {
    let mut scheduler = Scheduler::new(config);
    scheduler.on_backlog(StreamKey(1), Class::Throughput, PLENTY);
    scheduler
}

fn share(network: &Network, link: usize) -> f64 {
    network.links[link].bytes as f64 / network.bytes() as f64
}

fn gbps(network: &Network, time: Duration) -> f64 {
    Bandwidth::from_transfer(network.bytes(), time).gbps()
}

#[test]
fn a_slow_channel_carries_what_it_can_and_delays_nothing() {
    for (fast, slow) in [(10, 1), (50, 5), (100, 10)] {
        for chunk in [64 * 1024, 256 * 1024] {
            for seed in 0..5 {
                let config = SchedulerConfig { seed, chunk, ..SchedulerConfig::default() };
                let target = config.target_delay.unwrap();
                let mut scheduler = scheduler(config);
                let mut network = Network::new(&[fast, fast, fast, slow], &[0, 1, 2, 3], seed);
                network.saturate(&mut scheduler, 20 * MS);
                network.forget();
                network.saturate(&mut scheduler, 50 * MS);

                let case = format!("{fast}/{slow} Gb/s, chunk {chunk}, seed {seed}");
                let (share, rate) = (share(&network, 3), gbps(&network, 50 * MS));
                assert!((share * 31.0 - 1.0).abs() < 0.2, "{case}: share 1/{}", 1.0 / share);
                let all = (3 * fast + slow) as f64;
                assert!(rate > 0.97 * all, "{case}: {rate} Gb/s of {all}");
                // The smallest assignments take longer than the target at 1 Gb/s.
                let floor = Bandwidth::from_gbps(slow).time_for(2 * config.min_chunk);
                let bound = 2 * target.max(floor);
                for link in &network.links {
                    assert!(link.longest < bound, "{case}: {:?}", link.longest);
                }
            }
        }
    }
}

#[test]
fn even_the_first_bytes_do_not_flood_a_slow_channel() {
    let config = SchedulerConfig::default();
    let mut scheduler = scheduler(config);
    let mut network = Network::new(&[100, 100, 100, 1], &[0, 1, 2, 3], 1);
    network.saturate(&mut scheduler, 50 * MS);
    assert!(network.links[3].most_outstanding <= config.explore);
}

#[test]
fn a_channel_that_becomes_fast_or_slow_is_noticed() {
    let mut scheduler = scheduler(SchedulerConfig::default());
    let mut network = Network::new(&[50, 50, 50, 5], &[0, 1, 2, 3], 3);
    for (rate, expected) in [(5, 31.0), (50, 4.0), (5, 31.0)] {
        network.ports[3].rate = Bandwidth::from_gbps(rate);
        network.saturate(&mut scheduler, 10 * MS);
        network.forget();
        network.saturate(&mut scheduler, 30 * MS);
        let share = share(&network, 3);
        assert!((share * expected - 1.0).abs() < 0.2, "{rate} Gb/s: share 1/{}", 1.0 / share);
    }
}

/// At a tenth of the load the fast Channels alone would do, and do nearly everything; the slow one
/// is tried now and then.
#[test]
fn light_load_avoids_the_slow_channel_but_probes_it() {
    let mut scheduler = scheduler(SchedulerConfig::default());
    let mut network = Network::new(&[100, 100, 100, 10], &[0, 1, 2, 3], 5);
    network.saturate(&mut scheduler, 10 * MS);
    scheduler.on_backlog(StreamKey(1), Class::Throughput, 0);
    network.saturate(&mut scheduler, MS);
    network.forget();
    let mut credit = 0.0;
    let end = network.now + 100 * MS;
    while network.now < end {
        let before = network.now;
        network.pass(&mut scheduler, |_, _| ());
        credit += (network.now - before).as_nanos() as f64 * 30.0 / 8.0;
        if credit > 32_768.0 {
            credit -= 32_768.0;
            scheduler.on_backlog(StreamKey(1), Class::Throughput, 32_768);
        }
    }
    let slow = &network.links[3];
    assert!(slow.assignments >= 2, "never probed");
    assert!(share(&network, 3) < 0.005, "share {}", share(&network, 3));
    for link in &network.links[..3] {
        assert!(link.longest < Duration::from_micros(15), "{:?}", link.longest);
    }
}

/// Four Channels over one port fill it together, hold the target delay's worth, and come to equal
/// shares whatever they began with.
#[test]
fn channels_that_share_a_port_fill_it_evenly() {
    for seed in 0..5 {
        let config = SchedulerConfig { seed, ..SchedulerConfig::default() };
        let target = config.target_delay.unwrap();
        let mut scheduler = scheduler(config);
        let mut network = Network::new(&[100], &[0, 0, 0, 0], seed);
        network.saturate(&mut scheduler, 50 * MS);
        network.forget();
        network.saturate(&mut scheduler, 50 * MS);
        assert!(gbps(&network, 50 * MS) > 99.0);
        for (i, link) in network.links.iter().enumerate() {
            let share = share(&network, i);
            assert!((share - 0.25).abs() < 0.02, "seed {seed}: share {share}");
            assert!(link.longest.as_nanos() < target.as_nanos() * 12 / 10, "{:?}", link.longest);
        }
    }
}

#[test]
fn a_seed_reproduces_a_run() {
    let trace = |seed, policy| {
        let config = SchedulerConfig { seed, policy, ..SchedulerConfig::default() };
        let mut scheduler = Scheduler::new(config);
        for key in 0..20 {
            scheduler.on_backlog(StreamKey(key * 77), Class::Throughput, PLENTY);
        }
        let mut network = Network::new(&[100, 100, 100, 10], &[0, 1, 2, 3], 1);
        let mut trace = Vec::new();
        for _ in 0..3_000 {
            network.pass(&mut scheduler, |_, assignment| trace.push(assignment));
        }
        trace
    };
    for policy in Policy::ALL {
        assert_eq!(trace(1, policy), trace(1, policy));
    }
    assert_ne!(trace(1, Policy::LeastDelay), trace(2, Policy::LeastDelay));
}

/// What the baselines lose, so that the default is worth its cost: round robin fills the slow
/// Channel up to the peer's slots.
#[test]
fn baselines_hold_more_on_a_slow_channel() {
    let longest = |policy| {
        let mut scheduler = scheduler(SchedulerConfig { policy, ..SchedulerConfig::default() });
        let mut network = Network::new(&[100, 100, 100, 10], &[0, 1, 2, 3], 1);
        network.saturate(&mut scheduler, 50 * MS);
        network.forget();
        network.saturate(&mut scheduler, 50 * MS);
        network.links[3].longest
    };
    let (best, turns) = (longest(Policy::LeastDelay), longest(Policy::RoundRobin));
    assert!(turns > 20 * best, "{turns:?} and {best:?}");
}
