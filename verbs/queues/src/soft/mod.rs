//! The NIC in memory: queue pairs between threads and between processes of one host, without any
//! device. No thread plays the NIC: the poster's core moves the bytes, and the receiver's poll
//! matches them with its receives. Semantics, error semantics too, are those of a real NIC.
//!
//! - [`context`]: the device, opened; [`options`]: how it is opened; [`clock`]: its time.
//! - `queue_pair`: the handles, `connected` those of connections; `connection`: their state machine
//!   over `send` (executes requests; `send_queue`: what waits and what ended) and `receive` (matches
//!   them).
//! - `datagram`: the same for datagrams; `neighbours`: the devices that they go to.
//! - `wire_ring`: one direction of a queue pair in shared memory; `arm`: waking sleepers.
//! - `region`: registered memory and its keys; `peer`, `remote_access`: reaching a peer's memory.
//! - `completion_queue`, `shared_receive`: the queues.
//! - [`link`], `deferred`: what a real wire and a real NIC do with time.
//! - `service`: the set-up thread, and `protocol`: what it says to those of other devices; `meeting`:
//!   what a queue pair says to the peer's when it connects.
//!
//! Objects that share a completion queue are meant to be used by one thread at a time. They are sound
//! when they are not: each queue pair's private state is behind an uncontended `lock`.

pub mod clock;
pub mod context;
pub mod link;
pub mod options;

mod anonymous;
mod arm;
mod completion_queue;
mod connected;
mod connection;
mod datagram;
mod deferred;
mod device;
mod gather;
#[cfg(test)]
mod hostile;
mod lock;
mod meeting;
mod neighbours;
mod peer;
mod protocol;
mod queue_pair;
mod random;
mod receive;
mod region;
mod remote_access;
mod send;
mod send_queue;
mod service;
mod shared_receive;
mod wire_ring;

pub use clock::Clock;
pub use completion_queue::CompletionQueue;
pub use context::{Context, attributes};
pub use datagram::{AddressHandle, DatagramStatistics};
pub use link::{LinkModel, LinkStatistics};
pub use options::SoftOptions;
pub use queue_pair::QueuePair;
pub use region::MemoryRegion;
pub use shared_receive::SharedReceiveQueue;

use crate::error::Error;

/// For `map_err`: `operation` failed in the shared-memory layer.
fn shared_memory_failed(
    operation: &'static str,
) -> impl Fn(netchannel_shared_memory::Error) -> Error + Copy {
    move |error| Error::Os { operation, source: std::io::Error::other(error), hint: "" }
}

/// For [`fuzzing`](crate::fuzzing): an endpoint and what comes over the sockets of other devices is
/// refused, or encodes to the same bytes.
pub(crate) fn check_messages(endpoint: &crate::Endpoint) {
    let bytes = &endpoint.0;
    if let Ok(address) = protocol::Address::from_endpoint(endpoint) {
        assert_eq!(address.to_endpoint(), *endpoint);
    }
    if let Some((sequence, request)) = protocol::Request::decode(bytes) {
        assert_eq!(request.encode(sequence), *bytes);
    }
    if let Some(reply) = protocol::Reply::decode(bytes) {
        assert_eq!(reply.encode(), *bytes);
    }
}
