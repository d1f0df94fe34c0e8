//! What a run is. Travels to the other side of a run as JSON.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bytes of the kernel's socket buffers, and of the application's buffers by default: 1 MB on both
/// sides, so that kernel TCP is not held back by its small defaults.
pub const DEFAULT_BUFFER: usize = 1_000_000;

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
    /// Whether the receiver compares every byte.
    pub verify: bool,
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

/// Settings of the NetChannel engine that a run fixes for both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSettings {
    /// Channels between the two hosts.
    pub channels: u16,
    /// Name of the scheduling policy.
    pub policy: String,
    /// `off` or `fixed:BYTES`.
    pub congestion: String,
    /// `latency` or `throughput`.
    pub class: String,
    /// Who polls.
    pub poller: Poller,
    /// What idle does.
    pub idle: Idle,
    /// Bytes of one stream's receive window, a power of two.
    pub window: usize,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            channels: 4,
            policy: "least-delay".into(),
            congestion: "off".into(),
            class: "throughput".into(),
            poller: Poller::Inline,
            idle: Idle::Spin,
            window: 4 << 20,
        }
    }
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

/// Declares an enum that is written in lower case on the command line, in files and in JSON.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every name, as written by people.
            pub const NAMES: &[&str] = &[$($text),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),+ })
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("`{text}` is none of {}", Self::NAMES.join(", "))),
                }
            }
        }
    };
}

named! {
    /// Who polls the engine.
    Poller {
        /// The application's threads, inside their own calls.
        Inline = "inline",
        /// A polling core.
        Dedicated = "dedicated",
    }
}

named! {
    /// What an engine with nothing to do does.
    Idle {
        /// Polls on.
        Spin = "spin",
        /// Arms completion events and sleeps.
        Sleep = "sleep",
    }
}

impl Load {
    /// Whether this load can be run at all.
    pub fn check(&self) -> crate::Result<()> {
        let bad = |text: &str| Err(crate::Error::Invalid(text.into()));
        match self {
            Self { size: 0, .. } => bad("the size must be at least 1 byte"),
            Self { size, .. } if *size > 1 << 30 => bad("the size must be at most 1 GiB"),
            Self { streams: 0, .. } => bad("at least 1 stream is needed"),
            Self { write_size: 0, .. } => bad("the write size must be at least 1 byte"),
            Self { amount: Amount::Iterations(0), .. } => bad("at least 1 iteration is needed"),
            Self { amount: Amount::Duration(Duration::ZERO), .. } => {
                bad("the duration must be longer than zero")
            }
            _ => Ok(()),
        }
    }
}
