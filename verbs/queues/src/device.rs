//! Device attributes and the list of devices.

use std::fmt;
use std::net::IpAddr;

use netchannel_units::Bandwidth;

pub mod mlx5;
mod offer;

pub use offer::{Offer, WhyNot};

/// Who drives the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// libibverbs.
    Rdma,
    /// The NIC in memory.
    Soft,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rdma => "rdma",
            Self::Soft => "soft",
        })
    }
}

/// What moves the bytes of a posted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover {
    /// A NIC, while the poster does something else.
    Nic,
    /// The kernel in the place of a NIC (rxe), mostly within the call that posts. When that returns most
    /// bytes have left, so a completion says little about how busy the path is, and the port's nominal
    /// rate is that of the interface, not of the processor that sends.
    Kernel,
    /// The posting core itself.
    Poster,
}

/// What a device is and can do. Every figure comes from the query named with it.
#[derive(Clone, Debug)]
pub struct DeviceAttributes {
    /// Its name, unique over all providers (`soft`, `mlx5_0`, `rxe0`).
    pub name: String,
    /// Who drives it.
    pub provider: Provider,
    /// Driver or model and firmware, for people.
    pub description: String,
    /// Queue pairs that may exist (`ibv_query_device: max_qp`).
    pub max_queue_pairs: u32,
    /// Outstanding requests per queue (`max_qp_wr`).
    pub max_work_requests: u32,
    /// Completions per completion queue (`max_cqe`).
    pub max_completions: u32,
    /// Requests per shared receive queue (`max_srq_wr`); 0 if there are none.
    pub max_shared_receives: u32,
    /// Slices per request (`max_sge`).
    pub max_slices: u32,
    /// Largest registered region in bytes (`max_mr_size`).
    pub max_region: u64,
    /// Largest message in bytes (`ibv_query_port: max_msg_sz`).
    pub max_message: u32,
    /// Inline bytes that a queue pair got when probed; `u32::MAX` where posting moves the bytes.
    pub max_inline: u32,
    /// Who does what was posted.
    pub mover: Mover,
    /// Optional abilities.
    pub capabilities: Capabilities,
    /// Rate limit per reliable connection (`ibv_query_device_ex: packet_pacing_caps`).
    pub rate_limit: Offer<RateLimit>,
    /// How the paths of connections through the network are told apart.
    pub path_entropy: PathEntropy,
    /// What direct verbs of mlx5 add.
    pub mlx5: Offer<mlx5::Mlx5Capabilities>,
    /// The port in use.
    pub port: PortAttributes,
}

impl DeviceAttributes {
    /// Whether the posting core itself moves the bytes of an inline request of any size, so that
    /// they may come straight out of an application's buffer, without registration.
    pub fn moves_bytes_while_posting(&self) -> bool {
        self.mover == Mover::Poster
    }

    /// Whether the kernel plays the NIC: packets, messages and wake-ups cost a processor's time.
    pub fn is_played_by_kernel(&self) -> bool {
        self.mover == Mover::Kernel
    }
}

/// Optional abilities of a device; each `false` means that the host does it or that it is not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Shared receive queues (`max_srq > 0`).
    pub shared_receive_queue: bool,
    /// UD queue pairs usable through this interface.
    pub unreliable_datagram: bool,
    /// Atomic operations (`atomic_cap`).
    pub atomics: bool,
    /// On-demand paging (`ibv_query_device_ex: odp_caps`).
    pub on_demand_paging: bool,
    /// Completion timestamps (`completion_timestamp_mask`).
    pub completion_timestamps: bool,
    /// Relaxed ordering of the PCI writes (`IBV_ACCESS_RELAXED_ORDERING`).
    pub relaxed_ordering: bool,
    /// Memory windows with bounds that the device enforces.
    pub memory_windows: bool,
}

/// The range of a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Lowest.
    pub min: Bandwidth,
    /// Highest.
    pub max: Bandwidth,
}

/// Who turns the [`SourcePort`](crate::source_port::SourcePort) of a connection into that of its
/// packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathEntropy {
    /// The kernel driver, from the flow label of the address vector.
    FlowLabel,
    /// Nobody knows: the flow label is set, but this driver is not known to act on it.
    Unknown,
    /// Packets are not UDP (InfiniBand).
    NoUdp,
    /// There is no network.
    NoNetwork,
}

/// The port of a device.
#[derive(Clone, Debug)]
pub struct PortAttributes {
    /// Number, from 1.
    pub number: u8,
    /// Whether it can carry traffic now.
    pub active: bool,
    /// Path MTU in bytes.
    pub mtu: u32,
    /// Nominal rate of the link; zero if the device does not say.
    pub rate: Bandwidth,
    /// Kind of link.
    pub link_layer: LinkLayer,
    /// Index in the GID table, and the GID, that connections use.
    pub gid: Option<Gid>,
    /// Why this port, GID and MTU were chosen, in one line.
    pub reason: String,
    /// The network interface under the device, if there is one.
    pub interface: Option<String>,
}

/// A RoCE or InfiniBand address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gid {
    /// Index in the port's table.
    pub index: u32,
    /// The address.
    pub value: [u8; 16],
}

impl Gid {
    /// The IP address that it is, over RoCE.
    pub fn address(&self) -> IpAddr {
        IpAddr::from(self.value).to_canonical()
    }
}

/// Kind of link under a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// RoCE.
    Ethernet,
    /// InfiniBand.
    InfiniBand,
    /// This host's memory.
    Memory,
    /// Any other, as the device numbered it.
    Unknown(u32),
}
