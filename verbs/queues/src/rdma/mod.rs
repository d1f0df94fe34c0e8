//! The provider over libibverbs: SoftRoCE and every RoCE or InfiniBand NIC.
//!
//! The libraries are opened at run time, so a program that contains this provider builds and
//! starts without any RDMA package; [`devices`] then answers
//! [`Error::NoDevice`](crate::Error::NoDevice) with the reason.
//!
//! - `bindings`, `library`: the C interface, and opening it.
//! - `device_list`, `port`, `attributes`: which devices there are, and what they are;
//!   [`recorded`]: devices that are not here.
//! - `mlx5`: what direct verbs of mlx5 add.
//! - `device`, `context`: an opened device.
//! - `queue_pair`, `creation`, `connection`, `endpoint`: setting up connections; `address_handle`: the ways of
//!   datagrams.
//! - `datapath`, `work`: posting; `completion_queue`, `work_completion`: polling.
//! - `shared_receive_queue`, `memory`, `events`: the other objects.
//!
//! ```no_run
//! use netchannel_verbs::{Context as _, rdma};
//! let context = rdma::Context::open("mlx5_0", &rdma::OpenOptions::default())?;
//! println!("{}", context.attributes().port.reason);
//! # Ok::<(), netchannel_verbs::Error>(())
//! ```

mod address_handle;
mod attributes;
mod bindings;
mod completion_queue;
mod connection;
mod context;
mod creation;
mod datapath;
mod device;
mod device_list;
mod endpoint;
mod events;
mod library;
mod memory;
mod mlx5;
mod port;
mod queue_pair;
pub mod recorded;
mod shared_receive_queue;
mod work;
mod work_completion;

pub use address_handle::AddressHandle;
pub use completion_queue::CompletionQueue;
pub use context::{Context, OpenOptions, devices, devices_at};
pub use memory::MemoryRegion;
pub use queue_pair::QueuePair;
pub use shared_receive_queue::SharedReceiveQueue;

/// For [`fuzzing`](crate::fuzzing): an endpoint is refused, or encodes to the same bytes.
pub(crate) fn check_endpoint(endpoint: &crate::Endpoint) {
    if let Ok(parsed) = endpoint::RcEndpoint::parse(endpoint) {
        assert_eq!(parsed.encode(), *endpoint);
    }
}
