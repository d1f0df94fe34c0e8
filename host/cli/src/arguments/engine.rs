//! Arguments that set an engine up, or name another process's.

use std::path::PathBuf;

use clap::Args;
use netchannel::config::Controller;
use netchannel::{Idle, Policy, Poller};
use netchannel_verbs::soft::LinkModel;

use crate::{link, quantity};

/// Where the engine runs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct AttachArgs {
    /// Use the engine of another process, which `netchannel engine --attach PATH` runs; all
    /// settings but --idle are that one's
    #[arg(long, value_name = "PATH")]
    pub(crate) attach: Option<PathBuf>,
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

    /// Receive window of a stream, a power of two from 64KiB to 2MiB [default: 1MiB, on
    /// SoftRoCE 2MiB]
    #[arg(long, value_name = "BYTES", value_parser = quantity::size)]
    pub(crate) window: Option<usize>,

    /// Model of a link behind the NIC in memory: rate=2gbit,delay=5us, and queue=BYTES, ecn=BYTES,
    /// loss=P, reorder=P
    #[arg(long, value_name = "LINK", value_parser = link::parse)]
    pub(crate) link: Option<LinkModel>,
}
