//! Who polled in a run, and how busy it was: one side of a report.

use netchannel::{BulkStats, CoreStats, GroupStats, Runtime, Stats};
use serde::{Deserialize, Serialize};

/// One side's polling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Polling {
    /// Who polls: `inline` or `dedicated`.
    pub poller: String,
    /// What idle does.
    pub idle: String,
    /// Why it is so, also where it is not what was asked for.
    pub reason: String,
    /// Each polling core.
    pub cores: Vec<CoreLoad>,
    /// Each Channel group.
    pub groups: Vec<GroupLoad>,
    /// Times that a Channel group changed its core.
    pub moves: u64,
    /// What bounds bulk bytes in front of latency messages; nothing where the port's rate is unknown.
    pub bulk_budget: Option<BulkBudget>,
}

/// A polling core.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoreLoad {
    /// Its number.
    pub number: usize,
    /// The processor that it is bound to, if it is to one.
    pub processor: Option<u16>,
    /// Passes over its groups.
    pub passes: u64,
    /// Seconds that it spent where something moved.
    pub busy_s: f64,
}

/// A Channel group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupLoad {
    /// Its number.
    pub number: u8,
    /// Its class.
    pub class: String,
    /// The polling core that had it last; none if applications' threads poll.
    pub core: Option<usize>,
    /// Poll passes.
    pub passes: u64,
    /// Seconds that polling cores spent on it in passes that moved something.
    pub busy_s: f64,
}

/// The bulk budget of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkBudget {
    /// Bytes of throughput streams that may be outstanding at a time.
    pub bytes: u64,
    /// Times that the port ran dry though bytes waited.
    pub dry: u64,
}

impl Polling {
    /// Of a runtime with these counters; nothing if the engine is another process's.
    pub fn of(runtime: &Runtime, stats: &Stats) -> Option<Self> {
        let report = runtime.poller().ok()?;
        Some(Self {
            poller: report.poller.to_string(),
            idle: report.idle.to_string(),
            reason: report.reason,
            cores: stats.cores.iter().map(CoreLoad::from).collect(),
            groups: stats.groups.iter().map(GroupLoad::from).collect(),
            moves: stats.moves,
            bulk_budget: stats.bulk.as_ref().map(BulkBudget::from),
        })
    }
}

impl From<&CoreStats> for CoreLoad {
    fn from(core: &CoreStats) -> Self {
        let CoreStats { number, processor, passes, busy } = *core;
        Self { number, processor, passes, busy_s: busy.as_secs_f64() }
    }
}

impl From<&GroupStats> for GroupLoad {
    fn from(group: &GroupStats) -> Self {
        Self {
            number: group.id,
            class: group.class.to_string(),
            core: group.core,
            passes: group.polls,
            busy_s: group.busy.as_secs_f64(),
        }
    }
}

impl From<&BulkStats> for BulkBudget {
    fn from(bulk: &BulkStats) -> Self {
        Self { bytes: bulk.budget, dry: bulk.dry }
    }
}
