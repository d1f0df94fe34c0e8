//! What a measurement is, from arguments.

use std::time::Duration;

use netchannel::{Class, Idle};
use netchannel_workloads::spec::{
    Amount, DEFAULT_BUFFER, EngineSettings, Load, RunSpec, Stack, TcpSettings, Tool,
};

use crate::arguments::{MeasureArgs, Peer};
use crate::config::Settings;

/// Bytes of a message of a latency run.
const MESSAGE: usize = 64;
/// Time of one run.
const RUN: Duration = Duration::from_secs(1);
/// Rounds of a comparison: enough for a median that one disturbed round does not move.
const ROUNDS: usize = 9;

/// A measurement.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What runs.
    pub(crate) spec: RunSpec,
    /// Whether kernel TCP runs as well.
    pub(crate) tcp: bool,
    /// Interface that TCP is bound to.
    pub(crate) interface: Option<String>,
    /// Interleaved rounds.
    pub(crate) rounds: usize,
    /// This side's settings.
    pub(crate) settings: Settings,
}

impl Plan {
    /// What the arguments ask for.
    pub(crate) fn new(tool: Tool, arguments: &MeasureArgs, settings: Settings) -> Self {
        let mut plan = Self::standard(tool, settings);
        let load = &mut plan.spec.load;
        if let Some(size) = arguments.size {
            (load.size, load.write_size) = (size, size);
        }
        load.amount = match (arguments.iters, arguments.duration) {
            (Some(count), _) => Amount::Iterations(count),
            (None, Some(time)) => Amount::Duration(time),
            (None, None) => load.amount,
        };
        load.weights = arguments.weights.iter().map(|weight| weight.get()).collect();
        load.streams = arguments.streams.max(arguments.weights.len() as u16);
        load.verify = arguments.verify || arguments.fail_channel_every.is_some();
        load.zero_copy = arguments.zero_copy;
        load.fail_channel_every = arguments.fail_channel_every;
        if let Some(class) = arguments.class {
            plan.spec.engine.class = class.to_string();
        }
        plan.tcp = arguments.vs == Some(Peer::Tcp);
        plan.interface.clone_from(&arguments.interface);
        plan.rounds = match arguments.rounds {
            Some(rounds) => rounds as usize,
            None if plan.tcp => ROUNDS,
            None => 1,
        };
        plan
    }

    /// One stream, one round, the usual size.
    pub(crate) fn standard(tool: Tool, settings: Settings) -> Self {
        let (size, class) = match tool {
            Tool::Bandwidth => (DEFAULT_BUFFER, Class::Throughput),
            Tool::Latency => (MESSAGE, Class::Latency),
        };
        // TCP gets what NetChannel gets: a thread that spins, or one that sleeps. Bulk bytes are
        // fastest with calls that block.
        let spin = tool == Tool::Latency && settings.stack.idle == Idle::Spin;
        let spec = RunSpec {
            stack: Stack::NetChannel,
            load: Load::new(tool, size, Amount::Duration(RUN)),
            engine: EngineSettings::of(&settings.stack, class),
            tcp: TcpSettings { spin, ..TcpSettings::default() },
        };
        Self { spec, tcp: false, interface: None, rounds: 1, settings }
    }
}
