//! Which polling core has which Channel groups.
//!
//! A core polls its groups in turn; the load of a group is the share of time that its core spent on it
//! when there was something to do. A group moves from the busiest core to the idlest one when that makes the busier of the
//! two clearly less busy, was so for some observations in a row, and the last move is long enough
//! ago. Every move lowers the higher of two loads by the gain that is asked for, so that under an
//! unchanging load moves come to an end.

use netchannel_units::{Duration, GroupId, Timestamp};

/// When groups move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoresConfig {
    /// A core below this load (per mille) gives nothing away.
    pub busy: u32,
    /// The busier of both cores must become less busy by this much (per mille).
    pub gain: u32,
    /// Observations in a row that must propose the same move.
    pub patience: u32,
    /// Least time between two moves: moves per second are bounded by its inverse.
    pub pause: Duration,
}

impl Default for CoresConfig {
    /// A move costs two cores a cold cache, tens of microseconds: ten a second are nothing, and
    /// soon enough for an application to notice only once.
    fn default() -> Self {
        Self { busy: 500, gain: 150, patience: 3, pause: Duration::from_millis(100) }
    }
}

/// How busy a group kept its core since the last observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLoad {
    /// The group.
    pub group: GroupId,
    /// Its core.
    pub core: usize,
    /// Per mille of the time that the core spent on it in passes that moved something.
    pub load: u32,
}

/// A group is to be polled by another core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The group.
    pub group: GroupId,
    /// Its core.
    pub from: usize,
    /// The core that gets it.
    pub to: usize,
}

/// Decides on moves.
///
/// ```
/// use netchannel_scheduler::cores::{Balancer, CoresConfig, GroupLoad, Move};
/// use netchannel_units::{Duration, GroupId, Timestamp};
///
/// let mut balancer = Balancer::new(CoresConfig { patience: 1, ..CoresConfig::default() });
/// let loads = [1, 2].map(|id| GroupLoad { group: GroupId(id), core: 0, load: 700 });
/// let now = Timestamp::ZERO + Duration::from_secs(1);
/// assert_eq!(balancer.decide(now, 2, &loads), Some(Move { group: GroupId(1), from: 0, to: 1 }));
/// ```
#[derive(Clone, Debug)]
pub struct Balancer {
    config: CoresConfig,
    last_move: Option<Timestamp>,
    /// What was proposed last, and how often in a row.
    proposed: Option<(Move, u32)>,
}

impl Balancer {
    /// No observation yet.
    pub fn new(config: CoresConfig) -> Self {
        Self { config, last_move: None, proposed: None }
    }

    /// Takes an observation of all groups on `cores` cores; returns the move to make, if any.
    /// Groups on other cores are ignored.
    pub fn decide(&mut self, now: Timestamp, cores: usize, loads: &[GroupLoad]) -> Option<Move> {
        let best = self.best(cores, loads);
        let streak = match (best, self.proposed) {
            (Some(best), Some((same, streak))) if best == same => streak.saturating_add(1),
            _ => 1,
        };
        self.proposed = best.map(|best| (best, streak));
        let rested = self.last_move.is_none_or(|last| now - last >= self.config.pause);
        if streak < self.config.patience || !rested {
            return None;
        }
        let (chosen, _) = self.proposed.take()?;
        self.last_move = Some(now);
        Some(chosen)
    }

    /// The move with the largest gain.
    fn best(&self, cores: usize, loads: &[GroupLoad]) -> Option<Move> {
        let sum = |core: usize| -> u32 {
            let own = loads.iter().filter(|load| load.core == core);
            own.fold(0, |sum, load| sum.saturating_add(load.load))
        };
        // The first of equals, so that observations of the same load propose the same.
        let from = (0..cores).rev().max_by_key(|core| sum(*core))?;
        let to = (0..cores).min_by_key(|core| sum(*core))?;
        let (high, low) = (sum(from), sum(to));
        if from == to || high < self.config.busy {
            return None;
        }
        let after = |load: &GroupLoad| (high - load.load).max(low.saturating_add(load.load));
        let own = loads.iter().filter(|load| load.core == from && load.load > 0);
        let chosen = own.min_by_key(|load| after(load))?;
        let gain = high.saturating_sub(after(chosen));
        (gain >= self.config.gain.max(1)).then_some(Move { group: chosen.group, from, to })
    }
}
