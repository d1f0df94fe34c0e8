//! What a run is. Travels to the other side of a run as JSON.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use netchannel::{Class, Config, Weight};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Bytes of the kernel's socket buffers, and of the application's buffers by default: 1 MiB on both
/// sides, so that kernel TCP is not held back by its small defaults.
pub const DEFAULT_BUFFER: usize = 1 << 20;

/// One run of one workload over one stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// What carries the bytes.
    pub stack: Stack,
    /// What is measured.
    pub load: Load,
    /// Settings of the NetChannel engine; both sides use them.
    pub engine: EngineSettings,
    /// Settings of kernel TCP.
    pub tcp: TcpSettings,
}

/// What carries the bytes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stack {
    /// NetChannel.
    NetChannel,
    /// The kernel's TCP.
    Tcp,
}

/// What is measured, with how much of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The workload.
    pub tool: Tool,
    /// Bytes of each application buffer ([`Tool::Bandwidth`]) or message ([`Tool::Latency`]).
    pub size: usize,
    /// Bytes of one write call; at most `size`.
    pub write_size: usize,
    /// When the run ends.
    pub amount: Amount,
    /// Streams at once, a thread each.
    pub streams: u16,
    /// Weights of NetChannel's streams, in turn; none is the usual weight for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<u8>,
    /// Whether the receiver compares every byte.
    pub verify: bool,
    /// A message begins this long after the one before, or as soon as that is answered if it takes longer
    /// (latency); zero is without a pause.
    #[serde(default)]
    pub interval: Duration,
    /// Whether NetChannel's applications make and use their bytes in the stack's memory (bandwidth).
    #[serde(default)]
    pub zero_copy: bool,
    /// Streams that write as fast as they can beside those of a latency run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk: Option<Bulk>,
    /// Break a NetChannel Channel this often, in turn on both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_channel_every: Option<Duration>,
}

/// Bulk streams beside a latency run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulk {
    /// Streams, a thread each.
    pub streams: u16,
    /// Bytes of one write.
    pub size: usize,
}

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// Bytes per second that the receiving application reads.
    #[serde(rename = "bw")]
    Bandwidth,
    /// Half of the round trip of a message.
    #[serde(rename = "lat")]
    Latency,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Amount {
    /// After this time.
    Duration(Duration),
    /// After this many buffers or round trips per stream.
    Iterations(u64),
}

/// Settings of the NetChannel engine that a run fixes for both sides, as people write them; the
/// device and what belongs to it are each side's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSettings {
    /// Channels between the two hosts for throughput streams.
    pub channels: u16,
    /// The same for latency streams.
    pub latency_channels: u16,
    /// Groups of throughput Channels.
    pub groups: u16,
    /// How streams are spread over Channels.
    pub policy: String,
    /// Congestion control of each Channel.
    pub congestion: String,
    /// Class of the streams: `latency` or `throughput`.
    pub class: String,
    /// Who polls.
    pub poller: String,
    /// Polling cores, if they poll.
    pub polling_cores: u16,
    /// What idle does.
    pub idle: String,
    /// Bytes of one stream's window; 0 chooses by device.
    pub window: usize,
}

impl EngineSettings {
    /// The settings in `config`, and a class for the streams.
    pub fn of(config: &Config, class: Class) -> Self {
        Self {
            channels: config.channels,
            latency_channels: config.latency_channels,
            groups: config.groups,
            policy: config.policy.to_string(),
            congestion: config.congestion.to_string(),
            class: class.to_string(),
            poller: config.poller.to_string(),
            polling_cores: config.polling_cores,
            idle: config.idle.to_string(),
            window: config.window,
        }
    }

    /// `config` with these settings in it.
    pub fn apply(&self, config: &Config) -> crate::Result<Config> {
        Ok(Config {
            channels: self.channels,
            latency_channels: self.latency_channels,
            groups: self.groups,
            policy: parse(&self.policy)?,
            congestion: parse(&self.congestion)?,
            poller: parse(&self.poller)?,
            polling_cores: self.polling_cores,
            idle: parse(&self.idle)?,
            window: self.window,
            ..config.clone()
        })
    }

    /// The class of the streams.
    pub fn class(&self) -> crate::Result<Class> {
        let named = |class: &Class| class.to_string() == self.class;
        let unknown = || Error::Invalid(format!("no class `{}`", self.class));
        Class::ALL.into_iter().find(named).ok_or_else(unknown)
    }
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self::of(&Config::default(), Class::default())
    }
}

fn parse<T: FromStr<Err: fmt::Display>>(text: &str) -> crate::Result<T> {
    text.parse().map_err(|error: T::Err| Error::Invalid(error.to_string()))
}

/// Settings of kernel TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpSettings {
    /// Congestion control, set on both sides: a machine's default may be far slower.
    pub congestion: String,
    /// Bytes of the send and of the receive buffer.
    pub buffer: usize,
    /// Busy polling: non-blocking calls in a loop instead of blocking ones.
    pub spin: bool,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self { congestion: "cubic".into(), buffer: DEFAULT_BUFFER, spin: false }
    }
}

impl Load {
    /// One stream that writes whole buffers, and no more than that.
    pub fn new(tool: Tool, size: usize, amount: Amount) -> Self {
        Self {
            tool,
            size,
            write_size: size,
            amount,
            streams: 1,
            weights: Vec::new(),
            verify: false,
            interval: Duration::ZERO,
            zero_copy: false,
            bulk: None,
            fail_channel_every: None,
        }
    }

    /// The weight of a stream.
    pub fn weight_of(&self, stream: u16) -> Weight {
        let weights = &self.weights;
        let own = weights.get(usize::from(stream) % weights.len().max(1));
        own.and_then(|weight| Weight::new(*weight)).unwrap_or_default()
    }

    /// Whether this load can be run at all.
    pub fn check(&self) -> crate::Result<()> {
        let bad = |text: &str| Err(Error::Invalid(text.into()));
        match self {
            Self { size: 0, .. } => bad("the size must be at least 1 byte"),
            Self { size, .. } if *size > 1 << 30 => bad("the size must be at most 1 GiB"),
            Self { streams: 0, .. } => bad("at least 1 stream is needed"),
            Self { weights, .. } if !weights.iter().all(|w| Weight::new(*w).is_some()) => {
                bad("weights are from 1 to 16")
            }
            Self { write_size: 0, .. } => bad("the write size must be at least 1 byte"),
            Self { tool: Tool::Bandwidth, bulk: Some(_), .. } => {
                bad("bulk streams run beside a latency run only")
            }
            Self { bulk: Some(Bulk { streams: 0, .. } | Bulk { size: 0, .. }), .. } => {
                bad("bulk streams need at least 1 stream and 1 byte")
            }
            Self { bulk: Some(Bulk { size, .. }), .. } if *size > 1 << 30 => {
                bad("the size of bulk writes must be at most 1 GiB")
            }
            Self { tool: Tool::Latency, zero_copy: true, .. } => {
                bad("zero copy is for bandwidth; small messages are copied in any case")
            }
            Self { amount: Amount::Iterations(0), .. } => bad("at least 1 iteration is needed"),
            Self { amount: Amount::Duration(Duration::ZERO), .. } => {
                bad("the duration must be longer than zero")
            }
            _ => Ok(()),
        }
    }
}
