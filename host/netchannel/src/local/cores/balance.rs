//! Groups move between polling cores by load.

use std::sync::atomic::Ordering;

use netchannel_scheduler::cores::{Balancer, CoresConfig, GroupLoad};
use netchannel_units::{Duration, Timestamp};

use crate::local::RuntimeInner;
use crate::local::group::Group;

/// How often loads are looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// What was counted at the last look.
pub(super) struct Balance {
    balancer: Balancer,
    last: Timestamp,
    /// By group.
    busy: Vec<u64>,
    loads: Vec<GroupLoad>,
}

impl Balance {
    pub(super) fn new(groups: usize) -> Self {
        Self {
            balancer: Balancer::new(CoresConfig::default()),
            last: Timestamp::ZERO,
            busy: vec![0; groups],
            loads: Vec::with_capacity(groups),
        }
    }

    /// What part of the time since the last look each group kept its core busy.
    fn look(&mut self, now: Timestamp, groups: &[Group]) {
        let time = ((now - std::mem::replace(&mut self.last, now)).as_nanos() as u64).max(1);
        self.loads.clear();
        for (group, before) in groups.iter().zip(&mut self.busy) {
            let total = group.busy.value();
            let busy = total - std::mem::replace(before, total);
            let Some(core) = group.core() else { continue };
            let load = (busy.saturating_mul(1_000) / time).min(1_000) as u32;
            self.loads.push(GroupLoad { group: group.id(), core, load });
        }
    }
}

impl RuntimeInner {
    /// Moves a group, if that is due. Called by every polling core before every pass.
    #[inline]
    pub(super) fn balance(&self, now: Timestamp) {
        if now.as_nanos() >= self.cores.next_look.load(Ordering::Relaxed) {
            self.look_at_loads(now);
        }
    }

    #[cold]
    fn look_at_loads(&self, now: Timestamp) {
        let cores = &self.cores;
        // One of them looks; the others need not wait.
        let Ok(mut balance) = cores.balance.try_lock() else { return };
        let balance = &mut *balance;
        cores.next_look.store((now + INTERVAL).as_nanos(), Ordering::Relaxed);
        if now - balance.last < INTERVAL {
            return;
        }
        balance.look(now, &self.groups);
        if cores.count() < 2 {
            return;
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
    use crate::clock::now;
    use crate::config::{Config, Idle, Poller};
    use crate::runtime::Runtime;

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
        let mut look = |per_mille: [u64; 3]| {
            for (group, per_mille) in inner.groups.iter().zip(per_mille) {
                group.busy.add(INTERVAL.as_nanos() as u64 * per_mille / 1_000);
            }
            time = time + INTERVAL;
            inner.balance(time);
            [0, 1, 2].map(|group: usize| inner.groups[group].core())
        };
        for _ in 0..20 {
            assert_eq!(look([10, 90, 90]), [Some(0); 3], "busy is another thing");
        }
        let mut cores = [Some(0); 3];
        for _ in 0..20 {
            cores = look([10, 450, 400]);
        }
        assert_eq!(cores.iter().filter(|core| **core == Some(1)).count(), 1, "{cores:?}");
        assert_eq!(cores[0], Some(0), "the idle one stays");
        assert_eq!(runtime.stats().moves, before + 1);
    }
}
