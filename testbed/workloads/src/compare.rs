//! A whole comparison against a server: rounds of NetChannel, kernel TCP and this machine's limit.

use netchannel::Config;

use crate::baseline::{MachineLimit, TcpBaseline};
use crate::child::Launcher;
use crate::client::{Client, RunReport};
use crate::error::{Error, Result};
use crate::netchannel::NetChannel;
use crate::report::{ProcessorTimes, Report, Totals};
use crate::rounds::{Figure, Round};
use crate::spec::{RunSpec, Tool};

/// What to compare, and how.
pub struct Comparison<'a> {
    /// The workload and its settings; the stack is NetChannel.
    pub spec: RunSpec,
    /// This side's device.
    pub config: &'a Config,
    /// Whether kernel TCP runs as well.
    pub tcp: bool,
    /// Network interface that TCP is bound to.
    pub interface: Option<String>,
    /// Interleaved rounds.
    pub rounds: usize,
    /// How to start the processes of the limit.
    pub launcher: &'a Launcher,
}

impl Comparison<'_> {
    /// Runs all rounds; `on_round` hears of each.
    pub fn run(
        &self,
        client: &mut Client,
        on_round: &mut dyn FnMut(usize, &Round),
    ) -> Result<Report> {
        let tcp = self
            .tcp
            .then(|| TcpBaseline::prepare(client, &self.spec, self.interface.clone()))
            .transpose()?;
        let mut totals = Totals::default();
        let mut limit: Option<MachineLimit> = None;
        let mut rounds = Vec::new();
        let mut processor = ProcessorTimes::default();
        for number in 1..=self.rounds {
            let run = self.netchannel(client)?;
            totals.add(&run);
            processor.netchannel.push(run.processor_per_gb());
            let tcp_run = tcp.as_ref().map(|tcp| tcp.run(client)).transpose()?;
            processor.tcp.extend(tcp_run.as_ref().map(RunReport::processor_per_gb));
            // Only a run tells how often the stack copies.
            let machine = match &mut limit {
                Some(machine) => machine,
                empty => empty.insert(MachineLimit::prepare(
                    self.launcher,
                    &self.spec.load,
                    totals.copies(),
                    totals.window(),
                )?),
            };
            let round = Round {
                netchannel: figure(&run),
                tcp: tcp_run.as_ref().map(figure),
                limit: machine.run(self.launcher)?,
            };
            on_round(number, &round);
            rounds.push(round);
        }
        let write_size = tcp.map(|tcp| tcp.write_size());
        let processor = processor.per_gb().filter(|_| self.spec.load.tool == Tool::Bandwidth);
        Report::new(&self.spec, totals, write_size, rounds)
            .map(|report| Report { processor_seconds_per_gb: processor, ..report })
            .ok_or_else(|| Error::Invalid("at least 1 round is needed".into()))
    }

    fn netchannel(&self, client: &mut Client) -> Result<RunReport> {
        let transport = NetChannel::start(self.config, &self.spec.engine)?;
        client.run(&self.spec, Box::new(transport))
    }
}

fn figure(run: &RunReport) -> Figure {
    match run.half_round_trips {
        Some(times) => times.into(),
        None => run.moved.into(),
    }
}
