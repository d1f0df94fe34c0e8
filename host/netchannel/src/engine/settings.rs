//! Sizes and times that the engine derives from the configuration and the device.

use netchannel_channel::{AckPolicy, ChannelConfig};
use netchannel_driver::GroupConfig;
use netchannel_scheduler::SchedulerConfig;
use netchannel_units::{Class, Duration};
use netchannel_verbs::queue_pair::ConnectOptions;
use netchannel_verbs::{Context, DeviceAttributes, Mover};
use netchannel_vns::streams::StreamsConfig;
use netchannel_wire::frame::MessageHeader;

use crate::config::Config;
use crate::engine::Engine;
use crate::engine::terms::SessionTerms;
use crate::error::Error;

/// Bytes that a stream may send before it has a window: a receive slot's worth or two, a round
/// trip at low rates.
pub(crate) const EAGER_CREDIT: u64 = 16_384;
/// Channels that an engine has room for, over all sessions.
const MAX_CHANNELS: u32 = 256;
/// The same of a latency group, where a session has one or two.
const MAX_LATENCY_CHANNELS: u32 = 128;

/// Sizes of a group of this class. Latency streams have few and short messages in flight.
pub(super) fn group_config(class: Class) -> GroupConfig {
    match class {
        Class::Latency => GroupConfig {
            channels: MAX_LATENCY_CHANNELS,
            send_slots: 32,
            send_depth: 128,
            ..GroupConfig::default()
        },
        Class::Throughput => GroupConfig { channels: MAX_CHANNELS, ..GroupConfig::default() },
    }
}

/// Most bytes of a chunk, unless the port's rate asks for less.
pub(crate) fn largest_chunk(config: &Config, device: &DeviceAttributes) -> u64 {
    let window = config.window_on(device) as u64;
    match (config.chunk, device.mover) {
        // A chunk has left when it is posted, so large ones hold up nobody, and two are to be on their way
        // while a third begins: 256 KiB of a window of 1 MiB cost 5 % without copies, 512 KiB half
        // of what a sleeping polling core moves.
        (0, Mover::Poster) => (window / 8 * 3).min(384 << 10),
        // Each message costs SoftRoCE system calls and packets of its own.
        (0, Mover::Kernel) => (window / 2).min(512 << 10),
        // Chunks on their way fill the window, and each Channel is to have one behind the one that it
        // sends: one stream over four links of 25 Gb/s gets 72 Gb/s with a quarter of the window per chunk,
        // 85 with an eighth, 97 with a sixteenth (virtual time). One more message per 32 packets.
        (0, Mover::Nic) => (window / 8).min(256 << 10),
        (bytes, _) => bytes as u64,
    }
}

impl<C: Context> Engine<C> {
    pub(super) fn streams_config(&self, terms: &SessionTerms) -> StreamsConfig {
        let direct = self.context.attributes().moves_bytes_while_posting();
        let slot = self.group.config().slot_bytes.min(terms.peer_slot_bytes) as u64;
        let overhead = (MessageHeader::LEN + netchannel_wire::encode::DATA_OVERHEAD) as u64;
        StreamsConfig {
            role: terms.role,
            eager_credit: EAGER_CREDIT,
            peer_eager_credit: terms.peer_eager_credit,
            window_log2: self.config.window.trailing_zeros() as u8,
            eager_chunk: slot - overhead,
            // A WRITE and its announcement are two packets and two requests; the soft NIC makes
            // up for that with every copy saved, a real one only above a packet.
            bulk_min: if direct { 1_024 } else { 4_096 },
            // A message of credit, its acknowledgement and the packets of both cost a processor as much
            // as half a page of payload; elsewhere the sender is to hear early.
            credits_per_window: if self.is_software() { 2 } else { 4 },
        }
    }

    fn is_software(&self) -> bool {
        self.context.attributes().is_played_by_kernel()
    }

    /// An acknowledgement of its own costs a NIC a message and three packets, so it waits longer for
    /// company there than where it costs a cache line.
    fn ack_delay(&self) -> Duration {
        if self.context.attributes().moves_bytes_while_posting() {
            AckPolicy::default().delay
        } else if self.is_software() {
            // A chunk takes about as long there.
            Duration::from_millis(1)
        } else {
            Duration::from_micros(200)
        }
    }

    pub(super) fn channel_config(&self, peer_slots: u32) -> Result<ChannelConfig, Error> {
        let config = ChannelConfig {
            receive_slots: self.group.config().receive_slots,
            peer_slots,
            send_queue: self.group.config().send_slots,
            acks: AckPolicy { delay: self.ack_delay(), ..AckPolicy::default() },
        };
        config.check().map_err(|e| Error::Config { reason: e.to_string() })?;
        Ok(config)
    }

    /// SoftRoCE sends packets with a processor that other work shares, at times an emulated one:
    /// its queue takes longer than the timeout that suits a NIC, and what is sent again comes on
    /// top. Dead peers are the keepalive's business there.
    pub(super) fn connect_options(&self) -> ConnectOptions {
        let ack_timeout =
            if self.is_software() { Some(Duration::from_micros(1_073_741)) } else { None };
        let default = ConnectOptions::default();
        let path = self.config.path_of(self.shared.class);
        ConnectOptions {
            ack_timeout: ack_timeout.unwrap_or(default.ack_timeout),
            traffic_class: path.traffic_class,
            service_level: path.service_level,
            ..default
        }
    }

    pub(super) fn scheduler_config(&self) -> SchedulerConfig {
        let direct = self.context.attributes().moves_bytes_while_posting();
        let chunk = largest_chunk(&self.config, self.context.attributes());
        self.fit_to_port(SchedulerConfig {
            policy: self.config.policy,
            chunk,
            // A peer that loses its processor for a time slice makes a Channel look slow; work for
            // a millisecond keeps the others going until it is measured again.
            target_delay: Some(Duration::from_millis(1)),
            // Packets per byte stay near those of plain WRITEs however slow a Channel looks.
            min_chunk: if direct { chunk / 2 } else { chunk },
            gather: match self.config.gather {
                Some(bytes) => bytes as u64,
                None if direct => 0,
                // With whole chunks a window of 1 MiB would not keep four Channels busy.
                None => chunk / 2,
            },
            ..SchedulerConfig::default()
        })
    }
}
