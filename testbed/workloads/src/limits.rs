//! What this machine can do without any stack: copies on one core, a copy pipeline between two
//! processes, a cache line from core to core and back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::baseline::TRIAL;
use crate::child::Launcher;
use crate::error::Result;
use crate::limit::copy::{self, CopyRate};
use crate::limit::core_to_core::CoreToCore;
use crate::limit::pipeline::{CHUNKS, Pipeline};
use crate::rounds::Figure;
use crate::spec::Amount;

/// What `perf limits` prints as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Name of the processor.
    pub processor: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// Copies on one core, by working set.
    pub copy: Vec<CopyRate>,
    /// Copy pipelines between two processes.
    pub pipeline: Vec<PipelineRate>,
    /// Half a round trip of a cache line between two cores, in microseconds.
    pub core_to_core: Figure,
}

/// A copy pipeline between two processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineRate {
    /// Copies of each byte.
    pub copies: u8,
    /// Bytes of each application's buffer.
    pub size: usize,
    /// Bytes of the ring between them.
    pub window: usize,
    /// Bytes handed over at once, the best of those tried.
    pub chunk: usize,
    /// Gigabits (10^9) per second that the receiving application got.
    pub gbps: f64,
}

/// Measures each limit for `each`.
pub fn measure(launcher: &Launcher, size: usize, window: usize, each: Duration) -> Result<Limits> {
    let amount = Amount::Duration(each);
    let pipeline = |copies| {
        let chunk = size.min(CHUNKS[0]).min(window);
        let mut pipeline = Pipeline { size, window, chunk, copies, amount };
        if size > CHUNKS[0] && window >= CHUNKS[CHUNKS.len() - 1] {
            pipeline.chunk = pipeline.best_chunk(launcher, TRIAL.min(each))?;
        }
        let gbps = pipeline.run(launcher)?.gbps();
        Ok(PipelineRate { copies, size, window, chunk: pipeline.chunk, gbps })
    };
    Ok(Limits {
        processor: processor(),
        processors: std::thread::available_parallelism().map_or(1, |count| count.get()),
        copy: copy::measure(each),
        pipeline: [1, 2].into_iter().map(pipeline).collect::<Result<_>>()?,
        core_to_core: CoreToCore { amount }.run(launcher)?.into(),
    })
}

/// The processor's name.
pub fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(": ")).map(|(_, name)| name.trim());
    name.unwrap_or("unknown").to_owned()
}
