//! What may be written on the command line.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use netchannel::config::Controller;
use netchannel::{Class, Idle, Policy, Poller};
use netchannel_verbs::soft::LinkModel;

use crate::address::Address;
use crate::{exit, link, quantity};

/// The port where `perf` meets, as perftest's.
pub(crate) const PERF_PORT: u16 = 18515;

const EXAMPLES: &str = "\
Examples:
  netchannel devices
  netchannel demo
  netchannel recv --listen 0.0.0.0:4792 -o backup.tar     on one host, then
  netchannel send backup.tar 192.0.2.7:4792               on the other
  tar c src | netchannel send - '[2001:db8::7]:4792'
  netchannel perf bw --local --vs tcp
  netchannel perf lat 192.0.2.7 --size 64 --json
  netchannel engine --attach /run/user/1000/netchannel";

fn after_help() -> String {
    format!("{EXAMPLES}\n\n{}", exit::TABLE)
}

/// Byte streams over shared RDMA Channels, in user space.
#[derive(Debug, Parser)]
#[command(name = "netchannel", version, after_help = after_help())]
pub(crate) struct Cli {
    /// File with settings (TOML); arguments go before it
    #[arg(long, global = true, help_heading = "All commands", value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, or a filter such as netchannel=debug
    /// [default: warn]
    #[arg(long, global = true, help_heading = "All commands", value_name = "LEVEL")]
    pub(crate) log: Option<String>,

    /// Device: `soft` (the NIC in memory), an RDMA device's name, or `auto`, which prefers RDMA
    #[arg(short, long, global = true, help_heading = "All commands", value_name = "NAME")]
    pub(crate) device: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List devices, what they can do, and what the host does instead
    Devices(DevicesArgs),
    /// Move a large file between two processes here, and compare with kernel TCP
    Demo(DemoArgs),
    /// Receive one file
    Recv(RecvArgs),
    /// Send one file
    Send(SendArgs),
    /// Run an engine for the applications of other processes
    Engine(ServeArgs),
    /// Measure bandwidth or latency
    Perf(PerfArgs),
    /// One process of a measurement (started by `perf` and `demo`)
    #[command(hide = true)]
    Child { task: String },
}

/// Where the engine runs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct AttachArgs {
    /// Use the engine of another process, which `netchannel engine --attach PATH` runs; all
    /// settings but --idle are that one's
    #[arg(long, value_name = "PATH")]
    pub(crate) attach: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netchannel engine --attach /run/user/1000/netchannel       in one terminal, then
  netchannel recv --attach /run/user/1000/netchannel --listen 0.0.0.0:4792 -o log
  netchannel send --attach /run/user/1000/netchannel backup.tar 192.0.2.7:4792
  netchannel perf lat --attach /run/user/1000/netchannel --local

Applications of this user (and of root) may attach; each has memory of its own. An application that
ends, however that happens, leaves the others undisturbed. The engine runs until it is interrupted.")]
pub(crate) struct ServeArgs {
    /// Socket where applications find the engine; it is made, and removed at the end
    #[arg(long, value_name = "PATH")]
    pub(crate) attach: PathBuf,

    /// Say on standard output, as a JSON line, when applications may come
    #[arg(long)]
    pub(crate) json: bool,

    /// End with the process that started this one
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DevicesArgs {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Numbers of processors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Processors(pub(crate) Vec<u16>);

impl std::str::FromStr for Processors {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |word: &str| {
            word.trim().parse().map_err(|_| format!("`{word}` is no number of a processor"))
        };
        text.split(',').map(number).collect::<Result<_, _>>().map(Self)
    }
}

impl std::fmt::Display for Processors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.iter().map(u16::to_string).collect::<Vec<_>>().join(","))
    }
}

/// Settings of the engine.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// Channels between the two hosts for throughput streams (1 to 64) [default: 4]
    #[arg(long, value_name = "N")]
    pub(crate) channels: Option<u16>,

    /// Channels between the two hosts for latency streams (1 to 8) [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) latency_channels: Option<u16>,

    /// Groups of throughput Channels (1 to 16, at most --channels): a group is what one core can
    /// poll, and a stream stays in one [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) groups: Option<u16>,

    /// How streams are spread over Channels: least-delay, round-robin or hash
    /// [default: least-delay]
    #[arg(long)]
    pub(crate) policy: Option<Policy>,

    /// Congestion control of each Channel: off, or fixed:BYTES [default: off]
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<Controller>,

    /// Who polls: inline (the application's threads) or dedicated (polling cores)
    /// [default: dedicated for engine, else inline]
    #[arg(long)]
    pub(crate) poller: Option<Poller>,

    /// Polling cores with --poller dedicated (1 to 16); no more than groups of Channels, and
    /// spinning ones leave one processor to others [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) pollers: Option<u16>,

    /// Processors that polling cores are bound to, in turn, such as 2,3
    #[arg(long, value_name = "LIST")]
    pub(crate) pin: Option<Processors>,

    /// What idle does: spin or sleep [default: spin for perf (but isolation) and demo, else sleep]
    #[arg(long)]
    pub(crate) idle: Option<Idle>,

    /// Receive window of a stream, a power of two from 64KiB to 2MiB [default: 1MiB]
    #[arg(long, value_name = "BYTES", value_parser = quantity::size)]
    pub(crate) window: Option<usize>,

    /// Model of a link behind the NIC in memory: rate=2gbit,delay=5us, and queue=BYTES, ecn=BYTES,
    /// loss=P, reorder=P
    #[arg(long, value_name = "LINK", value_parser = link::parse)]
    pub(crate) link: Option<LinkModel>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netchannel recv --listen 0.0.0.0:4792 -o backup.tar
  netchannel recv --listen '[::]:4792' | tar x
  netchannel recv --listen 0.0.0.0:4792 -o log --keep      writes log, log.2, log.3 ...

The bytes are in FILE.partial until their checksum has been compared; there they stay if the
stream breaks (exit code 5).")]
pub(crate) struct RecvArgs {
    #[arg(
        long,
        value_name = "ADDR",
        help = "Where to listen: host:port or [v6]:port; port 0 takes a free one and says which"
    )]
    pub(crate) listen: Address,

    /// Where to write; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,

    /// Serve on after the first file
    #[arg(long)]
    pub(crate) keep: bool,

    /// Print the address and the result as JSON lines on standard output
    #[arg(long)]
    pub(crate) json: bool,

    /// End with the process that started this one
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,

    #[command(flatten)]
    pub(crate) attach: AttachArgs,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netchannel send backup.tar 192.0.2.7:4792
  tar c src | netchannel send - '[2001:db8::7]:4792'")]
pub(crate) struct SendArgs {
    /// What to send; - is standard input
    pub(crate) file: PathBuf,

    #[arg(value_name = "ADDR", help = "Where `netchannel recv` listens: host:port or [v6]:port")]
    pub(crate) address: Address,

    /// Class of the stream: throughput or latency
    #[arg(long, default_value = "throughput", value_parser = class)]
    pub(crate) class: Class,

    /// Print the result as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,

    /// End with the process that started this one
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,

    #[command(flatten)]
    pub(crate) attach: AttachArgs,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netchannel demo
  netchannel demo --input /var/tmp/large.bin --channels 8")]
pub(crate) struct DemoArgs {
    /// File to move [default: a tar of the Rust toolchain's lib, about 500 MB]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,

    /// Rounds of each measurement
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,

    /// Leave out the measurements
    #[arg(long)]
    pub(crate) quick: bool,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

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
  netchannel perf bw --local --fail-channel-every 1s -D 60     streams outlive their queue pairs

Without HOST this is the server: it serves one client and ends. The client's settings of the
workload and of the engine hold on both sides; each side chooses its own device. Streams use
ports that the server's system chooses.

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
JSON each stack has `alone` and `beside`, each with p50_us, p99_us, p999_us and bulk_gbps.

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
    #[arg(short, long, default_value_t = PERF_PORT)]
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

fn class(text: &str) -> Result<Class, String> {
    let named = |class: &Class| class.to_string() == text;
    let unknown = || format!("no class `{text}`; there are throughput and latency");
    Class::ALL.into_iter().find(named).ok_or_else(unknown)
}

impl Command {
    /// The engine's arguments, where the command has any.
    pub(crate) fn engine(&self) -> Option<&EngineArgs> {
        match self {
            Self::Demo(demo) => Some(&demo.engine),
            Self::Recv(recv) => Some(&recv.engine),
            Self::Send(send) => Some(&send.engine),
            Self::Engine(serve) => Some(&serve.engine),
            Self::Perf(perf) => match &perf.tool {
                PerfTool::Bw(measure) | PerfTool::Lat(measure) => Some(&measure.engine),
                PerfTool::Isolation(isolation) => Some(&isolation.engine),
                PerfTool::Limits(_) => None,
            },
            Self::Devices(_) | Self::Child { .. } => None,
        }
    }

    /// The engine's process, if it is another.
    pub(crate) fn attach(&self) -> Option<&Path> {
        let attach = match self {
            Self::Recv(recv) => &recv.attach,
            Self::Send(send) => &send.attach,
            Self::Perf(perf) => match &perf.tool {
                PerfTool::Bw(measure) | PerfTool::Lat(measure) => &measure.attach,
                PerfTool::Isolation(_) | PerfTool::Limits(_) => return None,
            },
            Self::Engine(_) | Self::Demo(_) | Self::Devices(_) | Self::Child { .. } => return None,
        };
        attach.attach.as_deref()
    }

    /// Who polls if nobody says. The helper thread could drive an engine that has applications in
    /// other processes alone, but it has other things to do as well.
    pub(crate) fn default_poller(&self) -> Poller {
        match self {
            Self::Engine(_) => Poller::Dedicated,
            _ => Poller::Inline,
        }
    }

    /// What idle does if nobody says.
    pub(crate) fn default_idle(&self) -> Idle {
        match self {
            // More threads than processors, as a rule: who spins takes time from who works.
            Self::Perf(PerfArgs { tool: PerfTool::Isolation(_) }) => Idle::Sleep,
            Self::Demo(_) | Self::Perf(_) => Idle::Spin,
            _ => Idle::Sleep,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
