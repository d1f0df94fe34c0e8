//! What the direct verbs of mlx5 tell about a NIC beyond libibverbs.

use std::time::Duration;

use super::Offer;

/// What `mlx5dv_query_device` and its neighbours answered. Each field is an [`Offer`] of its own,
/// since every one depends on the versions of library, kernel and firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mlx5Capabilities {
    /// The UDP source port of a connected queue pair can be set (`mlx5dv_modify_qp_udp_sport`).
    /// There is no query for it: firmware may still refuse when a queue pair asks.
    pub source_port: Offer<()>,
    /// Physical ports under the device, two or more (`num_lag_ports`).
    pub lag_ports: Offer<u8>,
    /// The clock of completion timestamps (`mlx5dv_get_clock_info`).
    pub clock: Offer<DeviceClock>,
    /// Several completions in one entry (`cqe_comp_caps`).
    pub completion_compression: Offer<CompletionCompression>,
    /// Several packets in one send request (`MLX5DV_CONTEXT_FLAGS_MPW_ALLOWED`, `ENHANCED_MPW`).
    pub multi_packet_send: Offer<MultiPacketSend>,
    /// One receive buffer for several messages (`striding_rq_caps`).
    pub striding_receive: Offer<StridingReceive>,
    /// End-to-end credits of reliable connections that count packets
    /// (`MLX5DV_CONTEXT_FLAGS_PACKET_BASED_CREDIT_MODE`).
    pub packet_based_credits: Offer<()>,
    /// Doorbell registers that can be had on request (`max_dynamic_bfregs`).
    pub dynamic_doorbells: Offer<u32>,
    /// Parallel streams within one dynamically connected initiator (`dci_streams_caps`).
    pub dci_streams: Offer<DciStreams>,
}

/// The free-running counter that stamps completions, and how the kernel translates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceClock {
    /// Ticks per second.
    pub hertz: u64,
    /// Valid bits of a timestamp.
    pub mask: u64,
    /// A translation older than this is wrong (`max_clock_info_update_nsec`); zero if not told.
    pub valid_for: Duration,
    /// Timestamps can come as wall-clock time (`MLX5DV_CONTEXT_FLAGS_REAL_TIME_TS`).
    pub real_time: bool,
}

/// What compressed completions carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletionCompression {
    /// Completions per entry, at most.
    pub max: u32,
    /// With the receive hash (`MLX5DV_CQE_RES_FORMAT_HASH`).
    pub hash: bool,
    /// With the checksum (`MLX5DV_CQE_RES_FORMAT_CSUM`).
    pub checksum: bool,
    /// With checksum and stride index (`MLX5DV_CQE_RES_FORMAT_CSUM_STRIDX`).
    pub stride: bool,
}

/// How several packets go into one send request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultiPacketSend {
    /// Packets of one size.
    Plain,
    /// Packets of any size, inline or not.
    Enhanced,
}

/// Sizes of a striding receive queue, as powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StridingReceive {
    /// Bytes of a stride: least and most.
    pub stride_log: (u32, u32),
    /// Strides of a buffer: least and most.
    pub strides_log: (u32, u32),
    /// Whether queue pairs of reliable connections may have one.
    pub reliable_connection: bool,
}

/// Streams of one dynamically connected initiator, as powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DciStreams {
    /// At the same time.
    pub concurrent_log: u8,
    /// In error before the whole initiator is.
    pub errored_log: u8,
}
