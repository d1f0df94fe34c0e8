//! Groups move between polling cores by load.

use netchannel_scheduler::cores::{Balancer, CoresConfig, GroupLoad};
use netchannel_units::{Duration, Timestamp};

use crate::runtime::RuntimeInner;

/// How often loads are looked at.
const INTERVAL: Duration = Duration::from_millis(10);
/// Fewer passes than this in an interval say nothing about a core: it slept, or had no processor.
const PASSES: u64 = 100;

/// What was counted at the last look.
pub(super) struct Balance {
    balancer: Balancer,
    last: Timestamp,
    passes: Vec<u64>,
    busy: Vec<u64>,
    loads: Vec<GroupLoad>,
}

impl Balance {
    pub(super) fn new(groups: usize) -> Self {
        Self {
            balancer: Balancer::new(CoresConfig::default()),
            last: Timestamp::ZERO,
            passes: vec![0; super::MAX_CORES],
            busy: vec![0; groups],
            loads: Vec::with_capacity(groups),
        }
    }
}

impl RuntimeInner {
    /// Moves a group, if that is due. Called by every polling core before every pass.
    pub(super) fn balance(&self, now: Timestamp) {
        let cores = &self.cores;
        if cores.count() < 2 {
            return;
        }
        // One of them looks; the others need not wait.
        let Ok(mut balance) = cores.balance.try_lock() else { return };
        let balance = &mut *balance;
        if now - balance.last < INTERVAL {
            return;
        }
        balance.last = now;
        let mut passes = [0; super::MAX_CORES];
        for (number, core) in cores.running().iter().enumerate() {
            let total = core.passes.value();
            passes[number] = total - std::mem::replace(&mut balance.passes[number], total);
        }
        balance.loads.clear();
        for (group, before) in self.groups.iter().zip(&mut balance.busy) {
            let total = group.busy.value();
            let busy = total - std::mem::replace(before, total);
            let Some(core) = group.core() else { continue };
            let passes = passes.get(core).copied().unwrap_or(0);
            let load = if passes < PASSES { 0 } else { (busy * 1_000 / passes).min(1_000) as u32 };
            balance.loads.push(GroupLoad { group: group.id(), core, load });
        }
        if let Some(change) = balance.balancer.decide(now, cores.count(), &balance.loads) {
            tracing::debug!(?change, "a Channel group moves");
            // Whoever changes the cores at this moment assigns all groups anew.
            if let Ok(_state) = cores.state.try_lock()
                && let Some(group) = self.groups.get(usize::from(change.group.0))
                && change.to < cores.count()
            {
                self.hand_over(group, Some(change.to));
                cores.moves.add_shared(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Idle, Poller};
    use crate::runtime::{Runtime, now};

    #[test]
    fn two_groups_that_keep_one_core_busy_are_spread_over_two() {
        let runtime = Runtime::start(Config {
            device: "soft".into(),
            groups: 2,
            poller: Poller::Dedicated,
            idle: Idle::Sleep,
            polling_cores: 2,
            ..Config::default()
        })
        .unwrap();
        if runtime.poller().unwrap().cores < 2 {
            println!("skipped: {}", runtime.poller().unwrap().reason);
            return;
        }
        let inner = &runtime.keeper("be tested").unwrap().inner;
        for group in 0..3 {
            runtime.move_group(group, 0).unwrap();
        }
        let before = runtime.stats().moves;
        // Times to come are for this test alone: the cores themselves look at the clock.
        let mut time = now() + Duration::from_secs(60);
        let mut look = |busy: [u64; 3]| {
            inner.cores.running()[0].passes.add(100_000);
            for (group, busy) in inner.groups.iter().zip(busy) {
                group.busy.add(busy);
            }
            time = time + INTERVAL;
            inner.balance(time);
            [0, 1, 2].map(|group: usize| inner.groups[group].core())
        };
        for _ in 0..20 {
            assert_eq!(look([1_000, 9_000, 9_000]), [Some(0); 3], "busy is another thing");
        }
        let mut cores = [Some(0); 3];
        for _ in 0..20 {
            cores = look([1_000, 70_000, 60_000]);
        }
        assert_eq!(cores.iter().filter(|core| **core == Some(1)).count(), 1, "{cores:?}");
        assert_eq!(cores[0], Some(0), "the idle one stays");
        assert_eq!(runtime.stats().moves, before + 1);
    }
}
