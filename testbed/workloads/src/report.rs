//! What `perf` prints as JSON: one form in all cases.

use serde::{Deserialize, Serialize};

use crate::client::RunReport;
use crate::faults::Failures;
use crate::polling::Polling;
use crate::rounds::{Figure, Round, Summary, median};
use crate::spec::{RunSpec, Tool};
use crate::transport::{ChannelBytes, Counters};

/// A comparison: NetChannel, this machine's limit, and kernel TCP where it was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The workload.
    pub tool: Tool,
    /// Device of the client.
    pub device: String,
    /// Why this device.
    pub reason: String,
    /// Bytes of each application buffer or message.
    pub size: usize,
    /// Streams at once.
    pub streams: u16,
    /// Channels between the two hosts.
    pub channels: u16,
    /// Class of the streams.
    pub class: String,
    /// How streams are spread over Channels.
    pub policy: String,
    /// Congestion control.
    pub congestion: String,
    /// Who polls.
    pub poller: String,
    /// What idle does.
    pub idle: String,
    /// Bytes of a stream's window, and of the ring in the limit.
    pub window: usize,
    /// Times that cores copied each byte between the two application buffers.
    pub copies: u8,
    /// NetChannel: medians over the rounds.
    pub netchannel: Figure,
    /// Kernel TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Figure>,
    /// This machine without a stack.
    pub limit: Figure,
    /// NetChannel divided by TCP: median of the ratios of each round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Figure>,
    /// NetChannel divided by the limit.
    pub limit_ratio: Figure,
    /// Best write size of TCP in bytes, or its messages' size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_write_size: Option<usize>,
    /// Stream bytes from client to server in all NetChannel rounds: those that the application wrote
    /// (bandwidth runs), or those that the Channels carried.
    pub bytes: u64,
    /// What each Channel carried of it, as completions and acknowledgements say; sums to `bytes`.
    pub per_channel: Vec<ChannelBytes>,
    /// Bytes that the client wrote to each stream in all NetChannel rounds, where they have weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_stream: Vec<StreamBytes>,
    /// Whether the applications made and used their bytes in the stack's memory.
    pub zero_copy: bool,
    /// Payload bytes that the stack copied on both sides, beside those of the next line.
    pub copied_bytes: u64,
    /// Payload bytes that posting moved into the peer's memory, where a NIC would have done it by DMA.
    pub moved_by_posting: u64,
    /// Chunks that the server placed before an earlier byte.
    pub placed_out_of_order: u64,
    /// Wake-ups of both stacks.
    pub wakeups: u64,
    /// Seconds of processor time of both processes (user and system) for 10^9 bytes: medians over
    /// the rounds, of bandwidth runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor_seconds_per_gb: Option<ProcessorPerGb>,
    /// With Channels broken on purpose: what became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
    /// Who polled on each side in the last round, where the engine was the side's own.
    pub polling: Polls,
    /// Raw figures of each round.
    pub rounds: Vec<Round>,
}

/// Who polled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Polls {
    /// Here.
    pub client: Option<Box<Polling>>,
    /// At the server.
    pub server: Option<Box<Polling>>,
}

/// What a stream got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamBytes {
    /// Its weight.
    pub weight: u8,
    /// Bytes that were written to it.
    pub bytes: u64,
}

/// Processor time of each stack.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessorPerGb {
    /// NetChannel.
    pub netchannel: f64,
    /// Kernel TCP, where it was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<f64>,
}

/// Processor time of each run, in seconds for 10^9 bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessorTimes {
    /// Of NetChannel's runs.
    pub netchannel: Vec<f64>,
    /// Of kernel TCP's.
    pub tcp: Vec<f64>,
}

impl ProcessorTimes {
    /// The medians; `None` without runs.
    pub fn per_gb(self) -> Option<ProcessorPerGb> {
        Some(ProcessorPerGb { netchannel: median(self.netchannel)?, tcp: median(self.tcp) })
    }
}

/// Channels broken on purpose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failover {
    /// Seconds between two.
    pub every_s: f64,
    /// Channels that were broken, on both sides.
    pub broken: u64,
    /// Queue pairs that were fenced: one on each side for a Channel that was broken, or broken by both
    /// sides at the same moment.
    pub failovers: u64,
    /// Stream bytes that were sent again.
    pub replayed_bytes: u64,
    /// Half of the gaps at the receiver were shorter: from the last bytes through a dead queue pair to
    /// the first after its fence, in microseconds.
    pub gap_p50_us: f64,
    /// The longest.
    pub gap_max_us: f64,
    /// Whether the receiver compared every byte; what differs ends the run with an error.
    pub verified: bool,
}

impl Failover {
    fn of(spec: &RunSpec, failures: &Failures) -> Option<Self> {
        let every = spec.load.fail_channel_every?;
        let mut gaps = failures.gaps_ns.clone();
        gaps.sort_unstable();
        let micros = |index: usize| gaps.get(index).map_or(0.0, |ns| *ns as f64 / 1e3);
        Some(Self {
            every_s: every.as_secs_f64(),
            broken: failures.broken,
            failovers: failures.failovers,
            replayed_bytes: failures.replayed_bytes,
            gap_p50_us: micros(gaps.len() / 2),
            gap_max_us: micros(gaps.len().saturating_sub(1)),
            verified: spec.load.verify,
        })
    }
}

/// What the stack counted over several runs, on both sides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    device: String,
    reason: String,
    window: usize,
    per_channel: Vec<ChannelBytes>,
    per_stream: Vec<u64>,
    copied_bytes: u64,
    moved_by_posting: u64,
    /// Stream bytes in both directions.
    stream_bytes: u64,
    placed_out_of_order: u64,
    wakeups: u64,
    polling: Polls,
    failures: Failures,
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, run: &RunReport) {
        self.device.clone_from(&run.here.device);
        self.reason.clone_from(&run.here.reason);
        self.window = run.here.window;
        for channel in &run.here.per_channel {
            match self.per_channel.iter_mut().find(|sum| sum.channel == channel.channel) {
                Some(sum) => sum.add(channel),
                None => self.per_channel.push(*channel),
            }
        }
        self.per_stream.resize(self.per_stream.len().max(run.sent.len()), 0);
        for (sum, sent) in self.per_stream.iter_mut().zip(&run.sent) {
            *sum += sent;
        }
        let bytes = |side: &Counters| side.per_channel.iter().map(|c| c.bytes).sum::<u64>();
        self.stream_bytes += bytes(&run.here) + bytes(&run.there);
        self.copied_bytes += run.here.copied_bytes + run.there.copied_bytes;
        self.moved_by_posting += run.here.moved_by_posting + run.there.moved_by_posting;
        self.placed_out_of_order += run.there.placed_out_of_order;
        self.wakeups += run.here.wakeups + run.there.wakeups;
        self.polling.client.clone_from(&run.here.polling);
        self.polling.server.clone_from(&run.there.polling);
        self.failures.add(&run.there.failures);
        // Gaps are the receiver's.
        self.failures.add(&Failures { gaps_ns: Vec::new(), ..run.here.failures.clone() });
    }

    /// Bytes of the largest window of a stream.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Stream bytes that the client sent: what its application wrote, where that is counted, so that the sum
    /// over the Channels can be held against it.
    pub fn bytes(&self) -> u64 {
        match self.per_stream[..] {
            [] => self.per_channel.iter().map(|channel| channel.bytes).sum(),
            ref streams => streams.iter().sum(),
        }
    }

    /// How often each stream byte was copied by a core, rounded, and at least once, because
    /// there is no pipeline between two processes without a copy.
    pub fn copies(&self) -> u8 {
        let moved = self.copied_bytes + self.moved_by_posting;
        let copies = moved as f64 / self.stream_bytes.max(1) as f64;
        copies.round().clamp(1.0, 3.0) as u8
    }
}

fn by_weight(spec: &RunSpec, bytes: &[u64]) -> Vec<StreamBytes> {
    if spec.load.weights.is_empty() {
        return Vec::new();
    }
    let weight = |stream| spec.load.weight_of(stream).get();
    let streams = (0..).zip(bytes);
    streams.map(|(stream, bytes)| StreamBytes { weight: weight(stream), bytes: *bytes }).collect()
}

impl Report {
    /// Puts a report together.
    pub fn new(
        spec: &RunSpec,
        totals: Totals,
        tcp_write_size: Option<usize>,
        rounds: Vec<Round>,
    ) -> Option<Self> {
        let summary = Summary::of(&rounds)?;
        let engine = spec.engine.clone();
        Some(Self {
            tool: spec.load.tool,
            size: spec.load.size,
            streams: spec.load.streams,
            channels: totals.per_channel.len() as u16,
            class: engine.class,
            policy: engine.policy,
            congestion: engine.congestion,
            poller: engine.poller,
            idle: engine.idle,
            window: totals.window,
            copies: totals.copies(),
            netchannel: summary.netchannel,
            tcp: summary.tcp,
            limit: summary.limit,
            ratio: summary.ratio,
            limit_ratio: summary.limit_ratio,
            tcp_write_size,
            bytes: totals.bytes(),
            device: totals.device,
            reason: totals.reason,
            per_channel: totals.per_channel,
            per_stream: by_weight(spec, &totals.per_stream),
            zero_copy: spec.load.zero_copy,
            copied_bytes: totals.copied_bytes,
            moved_by_posting: totals.moved_by_posting,
            placed_out_of_order: totals.placed_out_of_order,
            wakeups: totals.wakeups,
            processor_seconds_per_gb: None,
            failover: Failover::of(spec, &totals.failures),
            polling: totals.polling,
            rounds,
        })
    }
}
