//! What a stack must offer to carry a workload.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Result;

/// How long one side waits for the streams of the other.
pub const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// One end of a byte stream.
pub trait Connection: Read + Write + Send {
    /// Nothing more will be written; what was written arrives.
    fn finish(&mut self) -> io::Result<()>;

    /// Ends the stream in order.
    fn close(self: Box<Self>) -> io::Result<()>;
}

/// One end of a stack, for one run.
pub trait Transport {
    /// Listens on a free port of `ip` and tells the address.
    fn listen(&mut self, ip: IpAddr) -> Result<SocketAddr>;

    /// The next stream from a peer; waits for [`ACCEPT_TIMEOUT`] at most.
    fn accept(&mut self) -> Result<Box<dyn Connection>>;

    /// A stream to a listening peer.
    fn connect(&mut self, address: SocketAddr) -> Result<Box<dyn Connection>>;

    /// Ends this side of the stack, after all its connections, and tells what it counted.
    fn close(self: Box<Self>) -> Result<Counters>;
}

/// What a stack counted in one run, on one side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Device and why it was chosen; empty for a stack without a choice.
    pub device: String,
    /// Bytes by Channel, in the order of their numbers.
    pub per_channel: Vec<ChannelBytes>,
    /// Bytes that the stack copied with a core.
    pub copied_bytes: u64,
    /// Bytes that were placed before some earlier byte of their stream.
    pub placed_out_of_order: u64,
    /// Times that a thread of the stack woke up from sleep.
    pub wakeups: u64,
}

/// The application's bytes that one Channel carried, from completions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelBytes {
    /// The Channel's number.
    pub channel: u16,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}
