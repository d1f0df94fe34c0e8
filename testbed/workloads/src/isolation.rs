//! A latency stream alone, then beside bulk streams, over one stack: what the bulk streams do to its
//! tail, and what they get themselves.

use serde::{Deserialize, Serialize};

use crate::client::{Client, RunReport};
use crate::error::{Error, Result};
use crate::spec::{Amount, Bulk, Load, RunSpec};
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
    /// Round trips that were measured.
    pub pings: u64,
    /// Gigabits per second that the latency stream sent in each direction.
    pub ping_gbps: f64,
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
    /// What all payload got of it, that of the latency stream included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_share: Option<f64>,
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
        let alone = Figures::of(&run(None)?, &spec.load, false)?;
        let beside = Figures::of(&run(Some(bulk))?, &spec.load, true)?;
        Ok(Self {
            alone,
            beside,
            p99_ratio: beside.p99_us / alone.p99_us,
            bulk_share: link_gbps.map(|link| beside.bulk_gbps / link),
            link_share: link_gbps.map(|link| (beside.bulk_gbps + beside.ping_gbps) / link),
        })
    }
}

impl Figures {
    fn of(run: &RunReport, load: &Load, bulk: bool) -> Result<Self> {
        let (Some(times), Amount::Duration(duration)) = (run.half_round_trips, load.amount) else {
            return Err(Error::Invalid("an isolation run measures latency for a time".into()));
        };
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let ping_bits = (times.count * load.size as u64) as f64 * 8.0;
        Ok(Self {
            p50_us: micros(times.p50_ns),
            p99_us: micros(times.p99_ns),
            p999_us: micros(times.p999_ns),
            bulk_gbps: if bulk { run.moved.gbps() } else { 0.0 },
            pings: times.count,
            ping_gbps: ping_bits / duration.as_secs_f64() / 1e9,
        })
    }
}
