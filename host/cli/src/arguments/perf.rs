//! Arguments of `perf`.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use netchannel::{Class, Idle, Poller, Weight};

use crate::arguments::class;
use crate::arguments::engine::{AttachArgs, EngineArgs};
use crate::quantity;

/// The port where `perf` meets, as perftest's.
const PERF_PORT: u16 = 18515;

#[derive(Debug, Args)]
pub(crate) struct PerfArgs {
    #[command(subcommand)]
    pub(crate) tool: PerfTool,
}

const PERF_HELP: &str = "\
Examples:
  netchannel perf bw                          the server, on port 18515
  netchannel perf bw 192.0.2.7                the client
  netchannel perf bw --local --vs tcp         both here, beside kernel TCP
  netchannel perf bw --local --zero-copy      applications work in the stack's memory
  netchannel perf lat --local --idle sleep --json
  netchannel perf bw --local --link rate=10gbit --weights 1,3  streams share by weight
  netchannel perf bw --local --fail-channel-every 1s -D 60     streams outlive their queue pairs

Without HOST this is the server: it serves one client and ends. The client's settings of the
workload and of the engine hold on both sides; each side chooses its own device. Streams use
ports that the server's system chooses.

With --local, --attach is for the client: the server process has an engine of its own, so that the figures
show what the way through another process costs.

On a machine with other work, `chrt -f 50 netchannel perf ...` keeps that out of the figures.";

#[derive(Debug, Subcommand)]
pub(crate) enum PerfTool {
    /// Bytes per second that the receiving application reads
    #[command(after_help = PERF_HELP)]
    Bw(MeasureArgs),
    /// Half of the round trip of a message
    #[command(after_help = PERF_HELP)]
    Lat(MeasureArgs),
    /// What this machine can do without a stack: copies, a pipeline of two processes, core to core
    #[command(after_help = LIMITS_HELP)]
    Limits(LimitsArgs),
    /// A latency stream alone, and beside bulk streams
    #[command(after_help = ISOLATION_HELP)]
    Isolation(IsolationArgs),
}

const ISOLATION_HELP: &str = "\
Examples:
  netchannel perf isolation --local --link rate=2gbit,delay=5us
  netchannel perf isolation --local --link rate=2gbit,delay=5us --vs tcp --json

Between two processes of this host, over the NIC in memory with a model of a link: half round trips
of a latency stream, first alone, then beside bulk streams of 10 MB writes to the same host. In
JSON each stack has `alone` and `beside`, each with p50_us, p99_us, p999_us, bulk_gbps, and what the
latency stream itself sent: pings, ping_gbps.

The latency stream sends a message every --interval, as an application does that asks now and then;
with --interval 0 it asks again as soon as it is answered, and takes a part of the link that bulk
streams cannot have. The two processes stand for two hosts, so each runs on half of the processors,
and a polling core of each drives the stack for its threads; --poller, --idle and
--share-processors say otherwise.

--vs tcp gives kernel TCP a link of the same rate: a network namespace with a pair of virtual
interfaces, shaped with `tc`. That needs root; it is gone when the command ends, however it ends. A
kernel without netem gives it no delay, and the output says so.";

#[derive(Clone, Debug, Args)]
pub(crate) struct IsolationArgs {
    /// Measure between two processes of this host
    #[arg(long, required = true)]
    pub(crate) local: bool,

    /// Bytes of a message of the latency stream
    #[arg(short, long, value_name = "BYTES", default_value = "4KiB", value_parser = quantity::size)]
    pub(crate) size: usize,

    /// Bulk streams, a thread each
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) bulk_streams: u16,

    /// Seconds of each of the two measurements
    #[arg(short = 'D', long, value_name = "SECONDS", default_value = "3", value_parser = quantity::seconds)]
    pub(crate) duration: Duration,

    /// Time from one message of the latency stream to the next: 1ms, 200us; 0us is without a pause
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = quantity::delay)]
    pub(crate) interval: Duration,

    /// Let both processes run on all processors
    #[arg(long)]
    pub(crate) share_processors: bool,

    /// Compare with the kernel's TCP on a link of the same rate (needs root)
    #[arg(long, value_name = "STACK")]
    pub(crate) vs: Option<Peer>,

    /// Print the result as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

const LIMITS_HELP: &str = "\
Examples:
  netchannel perf limits
  netchannel perf limits --size 64KiB --json

Three limits: copies on one core by working set, from the first cache to memory; a bare pipeline of
two processes that move --size buffers through a ring of --window bytes with one and with two copies
of each byte; half a round trip of a cache line between two cores. The processes take one of the
first two processors each. Rates are in gigabits per second, as those of `perf bw`.";

#[derive(Clone, Debug, Args)]
pub(crate) struct LimitsArgs {
    /// Bytes of each application buffer in the pipeline
    #[arg(short, long, value_name = "BYTES", default_value = "1MiB", value_parser = quantity::size)]
    pub(crate) size: usize,

    /// Bytes of the ring in the pipeline
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = quantity::size)]
    pub(crate) window: usize,

    /// Seconds for each figure
    #[arg(short = 'D', long, value_name = "SECONDS", default_value = "0.5", value_parser = quantity::seconds)]
    pub(crate) duration: Duration,

    /// Print the result as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

/// A stack to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    Tcp,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct MeasureArgs {
    /// Server to measure against; none to be the server
    #[arg(value_name = "HOST", conflicts_with = "local")]
    pub(crate) host: Option<String>,

    /// Measure between two processes of this host
    #[arg(long)]
    pub(crate) local: bool,

    /// Port where client and server meet
    #[arg(short, long, default_value_t = PERF_PORT, conflicts_with = "local")]
    pub(crate) port: u16,

    /// Bytes of each application buffer (bw) or message (lat) [default: 1MiB, 64]
    #[arg(short, long, value_name = "BYTES", value_parser = quantity::size)]
    pub(crate) size: Option<usize>,

    /// Seconds of each run [default: 1]
    #[arg(short = 'D', long, value_name = "SECONDS", value_parser = quantity::seconds)]
    pub(crate) duration: Option<Duration>,

    /// Buffers or round trips of each run, instead of a time
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) iters: Option<u64>,

    /// Streams at once, a thread each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) streams: u16,

    /// Weights of the streams, 1 to 16, in turn, such as 1,3: what share of the link each gets while
    /// all of them write; at least as many streams as weights (bw) [default: 1]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) weights: Vec<Weight>,

    /// Class of the streams: throughput or latency [default: throughput for bw, latency for lat]
    #[arg(long, value_parser = class)]
    pub(crate) class: Option<Class>,

    /// Compare with the kernel's TCP as well: cubic, 1 MiB buffers, its best write size, and busy
    /// polling for latency with --idle spin
    #[arg(long, value_name = "STACK")]
    pub(crate) vs: Option<Peer>,

    /// Interleaved rounds; medians count [default: 1, with --vs 9]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,

    /// Network interface that TCP is bound to, on this side
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,

    /// Make and use the bytes in NetChannel's memory, without a copy by either side (bw)
    #[arg(long)]
    pub(crate) zero_copy: bool,

    /// Compare every byte at the receiver (costs bandwidth)
    #[arg(long)]
    pub(crate) verify: bool,

    /// Break a Channel this often while it runs, in turn on both sides (1s, 200ms): its queue pair is
    /// moved to error. Implies --verify; the result tells the failovers and the gaps
    #[arg(long, value_name = "TIME", value_parser = quantity::period)]
    pub(crate) fail_channel_every: Option<Duration>,

    /// Print the result as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,

    /// Be the server of a --local run
    #[arg(long, hide = true, conflicts_with_all = ["host", "local"])]
    pub(crate) with_parent: bool,

    /// Where that server listens
    #[arg(long, hide = true, default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,

    #[command(flatten)]
    pub(crate) attach: AttachArgs,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

impl PerfTool {
    /// The engine's arguments, where there is one.
    pub(super) fn engine(&self) -> Option<&EngineArgs> {
        match self {
            Self::Bw(measure) | Self::Lat(measure) => Some(&measure.engine),
            Self::Isolation(isolation) => Some(&isolation.engine),
            Self::Limits(_) => None,
        }
    }

    /// The engine's process, if it may be another and is.
    pub(super) fn attach(&self) -> Option<&Path> {
        match self {
            Self::Bw(measure) | Self::Lat(measure) => measure.attach.attach.as_deref(),
            Self::Isolation(_) | Self::Limits(_) => None,
        }
    }

    /// What idle does if nobody says.
    pub(super) fn default_idle(&self) -> Idle {
        match self {
            // More threads than processors, as a rule: who spins takes time from who works.
            Self::Isolation(_) => Idle::Sleep,
            _ => Idle::Spin,
        }
    }

    /// Who polls if nobody says.
    pub(super) fn default_poller(&self) -> Poller {
        match self {
            // A thread that drives both classes while it waits for one stops when that is there.
            Self::Isolation(_) => Poller::Dedicated,
            _ => Poller::Inline,
        }
    }
}
