//! Kernel TCP at its best, and this machine's limits, for one workload.

use std::time::Duration;

use crate::child::Launcher;
use crate::client::{Client, RunReport};
use crate::error::Result;
use crate::limit::core_to_core::CoreToCore;
use crate::limit::pipeline::{CHUNKS, Pipeline};
use crate::rounds::Figure;
use crate::spec::{Amount, Load, RunSpec, Stack, Tool};
use crate::tcp::Tcp;

/// Write sizes that are tried for TCP's best.
pub const TCP_WRITE_SIZES: [usize; 5] = [16 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10];
/// How long each size is tried: long beside a scheduling hiccup, short beside a round.
pub const TRIAL: Duration = Duration::from_millis(200);

/// Kernel TCP against the server of `client`.
#[derive(Clone, Debug)]
pub struct TcpBaseline {
    spec: RunSpec,
    interface: Option<String>,
}

impl TcpBaseline {
    /// TCP under the load of `spec`. For bandwidth its best write size up to the application's
    /// buffer is found first, in short runs.
    pub fn prepare(client: &mut Client, spec: &RunSpec, interface: Option<String>) -> Result<Self> {
        let mut this = Self { spec: RunSpec { stack: Stack::Tcp, ..spec.clone() }, interface };
        this.spec.load.zero_copy = false;
        if spec.load.tool == Tool::Bandwidth {
            this.spec.load.write_size = this.best_write_size(client)?;
        }
        Ok(this)
    }

    fn best_write_size(&self, client: &mut Client) -> Result<usize> {
        let size = self.spec.load.size;
        let mut best = (0.0, size);
        let smaller = TCP_WRITE_SIZES.into_iter().filter(|write_size| *write_size < size);
        for write_size in smaller.chain([size]) {
            let mut trial = self.clone();
            trial.spec.load =
                Load { write_size, amount: Amount::Duration(TRIAL), ..self.spec.load.clone() };
            let gbps = trial.run(client)?.moved.gbps();
            if gbps > best.0 {
                best = (gbps, write_size);
            }
        }
        Ok(best.1)
    }

    /// Bytes of one write call.
    pub fn write_size(&self) -> usize {
        self.spec.load.write_size
    }

    /// One run.
    pub fn run(&self, client: &mut Client) -> Result<RunReport> {
        client.run(&self.spec, Box::new(Tcp::new(self.spec.tcp.clone(), self.interface.clone())))
    }
}

/// This machine without a stack, for one workload.
#[derive(Clone, Debug)]
pub enum MachineLimit {
    /// Of bandwidth.
    Pipeline(Pipeline),
    /// Of latency.
    CoreToCore(CoreToCore),
}

impl MachineLimit {
    /// The limit for `load` with `copies` copies through a ring of `window` bytes. For bandwidth
    /// the best size to hand over is found first, in short runs.
    pub fn prepare(launcher: &Launcher, load: &Load, copies: u8, window: usize) -> Result<Self> {
        if load.tool == Tool::Latency {
            return Ok(Self::CoreToCore(CoreToCore { amount: load.amount }));
        }
        let mut pipeline = Pipeline {
            size: load.size,
            window,
            chunk: load.size.min(CHUNKS[0]).min(window),
            copies,
            amount: load.amount,
        };
        pipeline.chunk = pipeline.best_chunk(launcher, TRIAL)?;
        Ok(Self::Pipeline(pipeline))
    }

    /// One run.
    pub fn run(&self, launcher: &Launcher) -> Result<Figure> {
        Ok(match self {
            Self::Pipeline(pipeline) => pipeline.run(launcher)?.into(),
            Self::CoreToCore(ping) => ping.run(launcher)?.into(),
        })
    }
}
