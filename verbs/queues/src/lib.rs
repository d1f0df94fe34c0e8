//! One interface to queue pairs, completion queues and registered memory, over several providers.
//!
//! The vocabulary is that of the InfiniBand Architecture Specification, volume 1, and of
//! libibverbs; so is the behaviour, errors included. A provider implements [`Context`] and its
//! five associated types; code above is generic over `Context` and so calls the hot functions
//! ([`QueuePair::post_send`], [`SharedReceiveQueue::post_receive`], [`CompletionQueue::poll`])
//! directly.
//!
//! - [`context`]: an opened device and what it makes ([`Context`]).
//! - [`device`]: device attributes and the list of devices of all providers.
//! - [`queue_pair`], [`completion`], [`memory`]: the objects.
//! - [`work`]: work requests and work completions.
//! - [`source_port`]: what spreads connections over the paths of a network.
//! - [`datagram`], [`grh`]: queue pairs that talk to many, address handles, and the header in front of
//!   what they receive.
//! - [`error`]: what can go wrong.
//! - [`rdma`]: the provider over libibverbs. [`soft`]: the NIC in memory.
//! - [`conformance`]: what every provider must do, as a suite of checks. [`fuzzing`]: what must hold
//!   whatever a peer sends.
//!
//! # Who may touch a buffer when
//!
//! | buffer | from | to | meanwhile |
//! |---|---|---|---|
//! | source of a posted SEND or WRITE | `post_send` | its completion, or that of a later signalled request of the same queue pair | read only |
//! | source of an *inline* request | - | `post_send` returns | the caller's again at once |
//! | an address handle | `post_datagrams` | as the source | not closed |
//! | destination of a posted receive or READ | post | its completion | the NIC's alone |
//! | memory with [`Access::REMOTE_WRITE`](memory::Access) | its key is given to a peer | the region is closed, or every queue pair that could write it is in error and drained | no `&[u8]` and no `&mut [u8]` over it, ever: raw copies only |

pub mod completion;
pub mod conformance;
pub mod context;
pub mod datagram;
pub mod device;
pub mod error;
pub mod fuzzing;
pub mod grh;
pub mod memory;
pub mod queue_pair;
pub mod rdma;
pub mod soft;
pub mod source_port;
pub mod work;

pub use completion::CompletionQueue;
pub use context::Context;
pub use datagram::{AddressHandle, AddressVector, Datagram};
pub use device::{DeviceAttributes, Mover};
pub use error::{Error, PostError};
pub use grh::{Ecn, Grh};
pub use memory::{Access, MemoryRegion, RemoteKey};
pub use queue_pair::{Endpoint, QueuePair, SharedReceiveQueue};
pub use source_port::SourcePort;
pub use work::{LocalSlice, ReceiveRequest, SendRequest, WorkCompletion};
