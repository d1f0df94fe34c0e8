//! A latency stream alone, then beside bulk streams, over one stack: what the bulk streams do to its
//! tail, and what they get themselves.

use serde::{Deserialize, Serialize};

use crate::client::{Client, RunReport};
use crate::error::{Error, Result};
use crate::rounds::Figure;
use crate::spec::{Bulk, Load, RunSpec};
use crate::transport::Transport;

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Half round trip of the latency stream in microseconds: median.
    pub p50_us: f64,
    /// 99 of 100 were not longer.
    pub p99_us: f64,
    /// 999 of 1000 were not longer.
    pub p999_us: f64,
    /// Gigabits (10^9) per second that the applications at the end of the bulk streams read.
    pub bulk_gbps: f64,
}

/// One stack.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Isolation {
    /// The latency stream alone.
    pub alone: Figures,
    /// The same beside the bulk streams.
    pub beside: Figures,
    /// The 99 % value beside them divided by that alone.
    pub p99_ratio: f64,
    /// What the bulk streams got of the link's rate, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk_share: Option<f64>,
}

impl Isolation {
    /// Runs both against a server; `start` makes this side's end of the stack, of which each run
    /// has its own. `link_gbps` is the rate of the link, if it has one.
    pub fn measure(
        client: &mut Client,
        spec: &RunSpec,
        bulk: Bulk,
        link_gbps: Option<f64>,
        start: &dyn Fn() -> Result<Box<dyn Transport>>,
    ) -> Result<Self> {
        let mut run = |bulk| {
            let load = Load { bulk, ..spec.load.clone() };
            client.run(&RunSpec { load, ..spec.clone() }, start()?)
        };
        let alone = Figures::of(&run(None)?, false)?;
        let beside = Figures::of(&run(Some(bulk))?, true)?;
        Ok(Self {
            alone,
            beside,
            p99_ratio: beside.p99_us / alone.p99_us,
            bulk_share: link_gbps.map(|link| beside.bulk_gbps / link),
        })
    }
}

impl Figures {
    fn of(run: &RunReport, bulk: bool) -> Result<Self> {
        let times = run.half_round_trips.map(Figure::from);
        let Some(Figure::Latency { p50_us, p99_us, p999_us }) = times else {
            return Err(Error::Invalid("an isolation run measures latency".into()));
        };
        let bulk_gbps = if bulk { run.moved.gbps() } else { 0.0 };
        Ok(Self { p50_us, p99_us, p999_us, bulk_gbps })
    }
}
