//! Counters.

use std::time::Duration;

use netchannel_units::{Bandwidth, Class};

/// Counters of a runtime since its start.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Counters of each Channel of the sessions alive.
    pub channels: Vec<ChannelStats>,
    /// Payload bytes that the stack copied in this process, on the way out and in.
    pub copied_bytes: u64,
    /// Payload bytes that posting moved from this process's memory into a peer's (devices that
    /// move bytes while posting; a NIC would do it by DMA).
    pub moved_by_posting: u64,
    /// Bytes placed in receive windows.
    pub placed_bytes: u64,
    /// Chunks placed while earlier bytes were missing.
    pub placed_out_of_order: u64,
    /// Eager chunks that peers refused for want of memory.
    pub refused: u64,
    /// Times that a thread of the stack, or an application's inside of the stack, returned from
    /// sleep.
    pub wakeups: u64,
    /// Poll passes of all engines.
    pub polls: u64,
    /// Queue pairs that died and were fenced.
    pub failovers: u64,
    /// Stream bytes that were lost with them and sent again.
    pub replayed_bytes: u64,
    /// For the last 1,024 of them through which bytes had arrived here: time from the last bytes
    /// that arrived through the dead queue pair to the first that arrived through any when both
    /// sides had fenced it. A pause of the sender counts.
    pub failover_gaps: Vec<Duration>,
    /// Streams alive.
    pub streams: usize,
    /// Sessions alive.
    pub sessions: usize,
    /// Counters of each Channel group; none in a process that is attached to another's engine.
    pub groups: Vec<GroupStats>,
    /// Counters of each polling core; as for groups.
    pub cores: Vec<CoreStats>,
    /// Times that a Channel group changed its polling core.
    pub moves: u64,
    /// The bulk budget of the port; none where nothing is bounded.
    pub bulk: Option<BulkStats>,
}

/// The bulk budget of a port.
#[derive(Clone, Copy, Debug)]
pub struct BulkStats {
    /// Bytes of throughput streams that may be outstanding.
    pub budget: u64,
    /// Bytes that are.
    pub outstanding: u64,
    /// Times that the port ran dry though bytes waited.
    pub dry: u64,
}

/// Counters of a Channel group.
#[derive(Clone, Debug)]
pub struct GroupStats {
    /// Its number in this runtime.
    pub id: u8,
    /// Its class.
    pub class: Class,
    /// The polling core that has it; none while applications' threads poll.
    pub core: Option<usize>,
    /// Streams on it.
    pub streams: u64,
    /// Sessions that use it.
    pub sessions: u64,
    /// Poll passes.
    pub polls: u64,
    /// Time that polling cores spent on it in passes that moved something.
    pub busy: Duration,
}

/// Counters of a polling core.
#[derive(Clone, Copy, Debug)]
pub struct CoreStats {
    /// Its number.
    pub number: usize,
    /// The processor that it is bound to, if it is to one.
    pub processor: Option<u16>,
    /// Passes over its groups.
    pub passes: u64,
    /// Time that it spent where something moved.
    pub busy: Duration,
}

/// Counters of a Channel.
#[derive(Clone, Debug)]
pub struct ChannelStats {
    /// Number of the session in this runtime.
    pub session: u32,
    /// Number of the Channel in its session.
    pub id: u16,
    /// Class of its group.
    pub class: Option<Class>,
    /// Number of the queue pair.
    pub queue_pair: u32,
    /// UDP source port of its packets, which decides their path; none where they are no UDP.
    pub source_port: Option<u16>,
    /// Stream bytes sent through it, as the peer's engine confirmed them.
    pub bytes_sent: u64,
    /// Stream bytes that arrived through it.
    pub bytes_received: u64,
    /// Bytes that have left, frames included, as the device's completions or the peer's acknowledgements
    /// say.
    pub bytes_completed: u64,
    /// Messages posted.
    pub messages_sent: u64,
    /// Messages that arrived.
    pub messages_received: u64,
    /// Smoothed time from post to completion, without this side's own queueing.
    pub completion_time: Option<Duration>,
    /// Measured delivery rate; zero if unknown.
    pub rate: Bandwidth,
}
