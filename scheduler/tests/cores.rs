//! Groups that move between cores: bounded, to an end, and never for nothing.

use netchannel_scheduler::cores::{Balancer, CoresConfig, GroupLoad};
use netchannel_units::{Duration, GroupId, Timestamp};
use proptest::prelude::*;

fn groups(loads: &[(usize, u32)]) -> Vec<GroupLoad> {
    let group = |(id, (core, load)): (usize, &(usize, u32))| GroupLoad {
        group: GroupId(id as u8),
        core: *core,
        load: *load,
    };
    loads.iter().enumerate().map(group).collect()
}

fn highest(cores: usize, loads: &[GroupLoad]) -> u32 {
    let sum = |core| loads.iter().filter(|l| l.core == core).map(|l| l.load).sum::<u32>();
    (0..cores).map(sum).max().unwrap_or(0)
}

proptest! {
    /// Under an unchanging load moves end, none makes the busiest core busier, and each is between
    /// cores that exist.
    #[test]
    fn an_unchanging_load_comes_to_rest(
        cores in 1usize..6,
        loads in prop::collection::vec((0usize..6, 0u32..1_000), 0..12),
    ) {
        let mut loads = groups(&loads);
        loads.iter_mut().for_each(|load| load.core %= cores);
        let mut balancer = Balancer::new(CoresConfig::default());
        let mut moves = 0;
        for tick in 1..2_000u64 {
            let now = Timestamp::ZERO + Duration::from_millis(10 * tick);
            let Some(change) = balancer.decide(now, cores, &loads) else { continue };
            let before = highest(cores, &loads);
            prop_assert!(change.from < cores && change.to < cores && change.from != change.to);
            let moved = loads.iter_mut().find(|load| load.group == change.group).unwrap();
            prop_assert_eq!(moved.core, change.from);
            moved.core = change.to;
            prop_assert!(highest(cores, &loads) <= before);
            moves += 1;
            prop_assert!(tick < 1_500, "still moving");
        }
        prop_assert!(moves <= 100);
    }

    /// However loads jump, moves are no more frequent than the pause allows.
    #[test]
    fn moves_are_bounded(
        observations in prop::collection::vec(
            prop::collection::vec((0usize..4, 0u32..1_000), 6), 1..300),
        step in 1u64..50,
    ) {
        let config = CoresConfig { patience: 1, ..CoresConfig::default() };
        let mut balancer = Balancer::new(config);
        let mut last: Option<Timestamp> = None;
        for (tick, loads) in (1u64..).zip(&observations) {
            let now = Timestamp::ZERO + Duration::from_millis(step * tick);
            if balancer.decide(now, 4, &groups(loads)).is_some() {
                if let Some(last) = last {
                    prop_assert!(now - last >= config.pause);
                }
                last = Some(now);
            }
        }
    }
}

#[test]
fn idle_or_balanced_cores_keep_what_they_have() {
    let mut balancer = Balancer::new(CoresConfig { patience: 1, ..CoresConfig::default() });
    let now = Timestamp::ZERO + Duration::from_secs(1);
    for loads in [
        groups(&[(0, 200), (0, 200), (1, 0)]),
        groups(&[(0, 900), (1, 800)]),
        groups(&[(0, 900), (1, 0)]),
        groups(&[]),
    ] {
        assert_eq!(balancer.decide(now, 2, &loads), None, "{loads:?}");
    }
}

#[test]
fn one_busy_moment_moves_nothing() {
    let mut balancer = Balancer::new(CoresConfig::default());
    let (busy, quiet) = (groups(&[(0, 600), (0, 600)]), groups(&[(0, 100), (0, 100)]));
    for tick in 1..100 {
        let now = Timestamp::ZERO + Duration::from_millis(10 * tick);
        let loads = if tick % 3 == 0 { &quiet } else { &busy };
        assert_eq!(balancer.decide(now, 2, loads), None);
    }
}
