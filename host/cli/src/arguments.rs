//! What may be written on the command line.

mod engine;
mod perf;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use netchannel::{Class, Idle, Poller};

use crate::address::Address;
use crate::exit;

pub(crate) use engine::{AttachArgs, EngineArgs, Processors};
pub(crate) use perf::{IsolationArgs, LimitsArgs, MeasureArgs, Peer, PerfArgs, PerfTool};

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

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netchannel recv --listen 0.0.0.0:4792 -o backup.tar
  netchannel recv --listen '[::]:4792' | tar x
  netchannel recv --listen 0.0.0.0:4792 -o log --keep      writes log, log.2, log.3 ...

The bytes are in FILE.partial until their checksum has been compared; there they stay if the
stream breaks (exit code 5). Then they replace FILE, if there is one.")]
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

    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
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

    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
}

/// What both ends of a transfer take.
#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
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
            Self::Recv(recv) => Some(&recv.transfer.engine),
            Self::Send(send) => Some(&send.transfer.engine),
            Self::Engine(serve) => Some(&serve.engine),
            Self::Perf(perf) => perf.tool.engine(),
            Self::Devices(_) | Self::Child { .. } => None,
        }
    }

    /// The engine's process, if it is another.
    pub(crate) fn attach(&self) -> Option<&Path> {
        match self {
            Self::Recv(recv) => recv.transfer.attach.attach.as_deref(),
            Self::Send(send) => send.transfer.attach.attach.as_deref(),
            Self::Perf(perf) => perf.tool.attach(),
            Self::Engine(_) | Self::Demo(_) | Self::Devices(_) | Self::Child { .. } => None,
        }
    }

    /// Who polls if nobody says. The helper thread could drive an engine that has applications in
    /// other processes alone, but it has other things to do as well.
    pub(crate) fn default_poller(&self) -> Poller {
        match self {
            Self::Engine(_) => Poller::Dedicated,
            Self::Perf(perf) => perf.tool.default_poller(),
            _ => Poller::Inline,
        }
    }

    /// What idle does if nobody says.
    pub(crate) fn default_idle(&self) -> Idle {
        match self {
            Self::Perf(perf) => perf.tool.default_idle(),
            Self::Demo(_) => Idle::Spin,
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
