//! What a stack must offer to carry a workload.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netchannel::Weight;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::faults::Failures;
use crate::polling::Polling;

/// How long one side waits for the streams of the other.
pub const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// One end of a byte stream.
pub trait Connection: Read + Write + Send {
    /// Nothing more will be written; what was written arrives.
    fn finish(&mut self) -> io::Result<()>;

    /// Sends at most `len` bytes that `make` makes where the stack's device fetches them, in one or more
    /// pieces in their order; returns how many.
    fn send_in_place(
        &mut self,
        _len: usize,
        _make: &mut dyn FnMut(&mut [u8]),
    ) -> io::Result<usize> {
        Err(no_zero_copy())
    }

    /// Takes bytes where they arrived, without a copy unless somebody wants to `see` them; returns how many,
    /// 0 at the end.
    fn receive_in_place(&mut self, _see: Option<&mut dyn Write>) -> io::Result<usize> {
        Err(no_zero_copy())
    }

    /// Ends the stream in order.
    fn close(self: Box<Self>) -> io::Result<()>;
}

fn no_zero_copy() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this stack has no calls without a copy")
}

/// One end of a stack, for one run.
pub trait Transport {
    /// Listens on a free port of `ip` and tells the address.
    fn listen(&mut self, ip: IpAddr) -> Result<SocketAddr>;

    /// The next stream from a peer; waits for [`ACCEPT_TIMEOUT`] at most.
    fn accept(&mut self) -> Result<Box<dyn Connection>>;

    /// A stream to a listening peer.
    fn connect(&mut self, address: SocketAddr) -> Result<Box<dyn Connection>>;

    /// A stream of this weight; the same, for a stack that knows none.
    fn connect_weighted(
        &mut self,
        address: SocketAddr,
        _weight: Weight,
    ) -> Result<Box<dyn Connection>> {
        self.connect(address)
    }

    /// A stream for bulk bytes beside those of [`connect`](Self::connect); the same, for a stack
    /// that tells no classes apart.
    fn connect_bulk(&mut self, address: SocketAddr) -> Result<Box<dyn Connection>> {
        self.connect(address)
    }

    /// From now on breaks a Channel after `first` and then every `period`, until
    /// [`stop_faults`](Self::stop_faults). Stacks without Channels carry on.
    fn start_faults(&mut self, _first: Duration, _period: Duration) {}

    /// Breaks no more, and waits until what was broken is whole.
    fn stop_faults(&mut self) -> Result<()> {
        Ok(())
    }

    /// What the stack has counted so far. Both sides ask for this before either closes, because
    /// what Channels counted goes with their session.
    fn counters(&self) -> Counters;

    /// Ends this side of the stack, after all its connections.
    fn close(self: Box<Self>) -> Result<()>;
}

/// Reads a stream to its end.
pub(crate) fn drain(stream: &mut impl Read) -> io::Result<()> {
    let mut rest = [0; 4096];
    while stream.read(&mut rest)? > 0 {}
    Ok(())
}

/// What a stack counted in one run, on one side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// The device; empty for a stack without a choice.
    pub device: String,
    /// Why this device.
    pub reason: String,
    /// Bytes of the largest window of a stream; zero for a stack without windows.
    #[serde(default)]
    pub window: usize,
    /// What each Channel carried, in the order of their numbers.
    pub per_channel: Vec<ChannelBytes>,
    /// Payload bytes that cores copied on behalf of the stack, beside those of the next line.
    pub copied_bytes: u64,
    /// Payload bytes that posting moved into the peer's memory, where a NIC would have done it by DMA.
    #[serde(default)]
    pub moved_by_posting: u64,
    /// Chunks that were placed before some earlier byte of their stream.
    pub placed_out_of_order: u64,
    /// Times that a thread of the stack woke up from sleep.
    pub wakeups: u64,
    /// Who polled; nothing for a stack that does not poll, or where another process does.
    #[serde(default)]
    pub polling: Option<Box<Polling>>,
    /// What became of Channels that were broken or broke.
    #[serde(default)]
    pub failures: Failures,
}

/// Processor time of this process so far, all threads, in user space and in the kernel.
pub fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What one Channel carried away from this side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelBytes {
    /// The Channel's number.
    pub channel: u16,
    /// Stream bytes that the peer's engine confirmed.
    pub bytes: u64,
    /// All bytes that left, frames included, as send completions say.
    pub wire_bytes: u64,
    /// Messages that left.
    pub messages: u64,
}
