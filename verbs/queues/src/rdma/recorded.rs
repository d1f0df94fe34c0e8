//! NICs of the mlx5 family as a table of raw answers, for tests on machines that have none.
//!
//! [`devices`] passes the table through the code that interprets the answers of a device that is
//! there; from the answers on, nothing is made for the table alone.
//!
//! # Where the values come from
//! No device was asked by this project. Two kinds of values stand side by side:
//!
//! - **listed**: printed by `ibv_devinfo -v` on such a device and published by its owner:
//!   ConnectX-4 Lx, firmware 14.32.1010: github.com/spdk/spdk/issues/3116;
//!   ConnectX-5, firmware 16.23.1020: github.com/open-mpi/ompi/pull/6137, as a bond, firmware
//!   16.27.1016: github.com/openucx/ucx/issues/9830;
//!   ConnectX-7, firmware 28.42.1000: github.com/deepseek-ai/DeepEP/issues/38;
//!   limits of shared receive queues, on-demand paging and the mask of timestamps of the family:
//!   github.com/openucx/ucx/issues/10317 and 9976;
//!   rates of packet pacing and what they are for: github.com/openucx/ucx/issues/10430.
//! - **derived** from documentation and sources, since `ibv_devinfo` prints nothing of
//!   `mlx5dv_context`: which fields the kernel fills and with what constants
//!   (`mlx5_ib_query_device` in drivers/infiniband/hw/mlx5/main.c: strides, kinds of queue pairs,
//!   formats; `calc_dynamic_bfregs`: 1024), which bits libmlx5 answers (`_mlx5dv_query_device`),
//!   which generation has enhanced multi-packet sends and real-time timestamps (DPDK's guide of the
//!   mlx5 driver), part numbers (libmlx5's table). Where even those are silent (number of compressed
//!   completions, DCI streams, inline bytes) the value is **assumed**, to have one.
//!
//! `mlx5dv_context` and `ibv_device_attr` of a real device, as hex dumps, would replace the derived
//! part.

use netchannel_units::Bandwidth;

use super::attributes::{Answers, Driver};
use super::bindings::{
    self as sys, ibv_device_attr, ibv_device_attr_ex, mlx5dv_clock_info, mlx5dv_context,
};
use super::context::OpenOptions;
use super::endpoint::{ETHERNET, PathMtu};
use super::mlx5;
use super::port::{GidFacts, PortFacts};
use crate::device::{DeviceAttributes, WhyNot};

/// A row of the table. Comments name the kind of the value: listed, derived, assumed.
struct Row {
    name: &'static str,
    /// `vendor_part_id`: listed.
    part: u32,
    /// Listed, but for ConnectX-6 Dx.
    firmware: &'static str,
    /// `max_qp`: listed for ConnectX-4 Lx and 5; derived (the family's) for the others.
    queue_pairs: i32,
    /// Of a port: derived (data sheets).
    gigabits: u64,
    /// kHz of the clock: derived.
    clock_khz: u64,
    /// `flags`: derived.
    flags: u32,
    /// Formats of compressed completions: derived.
    compression: u32,
    /// Least strides of a buffer, as a power of two: derived.
    min_strides_log: u32,
    /// Ports of a bond: listed as one for ConnectX-5, otherwise without.
    lag_ports: u8,
    /// Concurrent streams of a DCI, as a power of two: assumed.
    dci_streams_log: u8,
}

const ANY_FORMAT: u32 = sys::MLX5DV_CQE_RES_FORMAT_HASH | sys::MLX5DV_CQE_RES_FORMAT_CSUM;
const MODERN: u32 = sys::MLX5DV_CONTEXT_FLAGS_CQE_V1
    | sys::MLX5DV_CONTEXT_FLAGS_MPW_ALLOWED
    | sys::MLX5DV_CONTEXT_FLAGS_ENHANCED_MPW
    | sys::MLX5DV_CONTEXT_FLAGS_PACKET_BASED_CREDIT_MODE;

const ROWS: [Row; 4] = [
    Row {
        name: "ConnectX-4 Lx",
        part: 4117,
        firmware: "14.32.1010",
        queue_pairs: 131_072,
        gigabits: 25,
        clock_khz: 156_250,
        flags: sys::MLX5DV_CONTEXT_FLAGS_CQE_V1 | sys::MLX5DV_CONTEXT_FLAGS_MPW_ALLOWED,
        compression: ANY_FORMAT,
        min_strides_log: 9,
        lag_ports: 0,
        dci_streams_log: 0,
    },
    Row {
        name: "ConnectX-5",
        part: 4119,
        firmware: "16.27.1016",
        queue_pairs: 262_144,
        gigabits: 100,
        clock_khz: 156_250,
        flags: MODERN,
        compression: ANY_FORMAT,
        min_strides_log: 9,
        lag_ports: 2,
        dci_streams_log: 0,
    },
    Row {
        name: "ConnectX-6 Dx",
        part: 4125,
        firmware: "22.35.1012",
        queue_pairs: 131_072,
        gigabits: 100,
        clock_khz: 1_000_000,
        flags: MODERN | sys::MLX5DV_CONTEXT_FLAGS_REAL_TIME_TS,
        compression: ANY_FORMAT | sys::MLX5DV_CQE_RES_FORMAT_CSUM_STRIDX,
        min_strides_log: 3,
        lag_ports: 0,
        dci_streams_log: 0,
    },
    Row {
        name: "ConnectX-7",
        part: 4129,
        firmware: "28.42.1000",
        queue_pairs: 131_072,
        gigabits: 400,
        clock_khz: 1_000_000,
        flags: MODERN | sys::MLX5DV_CONTEXT_FLAGS_REAL_TIME_TS,
        compression: ANY_FORMAT | sys::MLX5DV_CQE_RES_FORMAT_CSUM_STRIDX,
        min_strides_log: 3,
        lag_ports: 0,
        dci_streams_log: 8,
    },
];

/// The devices of the table, by model, as this provider would describe them: with a libmlx5 that
/// has every function, and an IPv4 address on the port.
pub fn devices() -> Vec<(&'static str, DeviceAttributes)> {
    ROWS.iter().map(|row| (row.name, interpret(row.answers()))).collect()
}

/// The ConnectX-5 of the table where libmlx5 is not there.
pub fn without_direct_verbs() -> DeviceAttributes {
    let reason = "libmlx5.so.1 cannot be used: no such file".into();
    interpret(Answers { mlx5: Err(WhyNot::NoLibrary(reason)), ..ROWS[1].answers() })
}

/// The ConnectX-6 Dx of the table with the libmlx5 of rdma-core 22: no UDP source port, and the
/// newer fields unanswered.
pub fn with_an_old_library() -> DeviceAttributes {
    let mut answers = ROWS[2].answers();
    if let Ok(mlx5) = &mut answers.mlx5 {
        mlx5.source_port = Err(WhyNot::NoFunction {
            library: mlx5::LIBRARY,
            function: "mlx5dv_modify_qp_udp_sport",
            since: "33",
        });
        let newer = sys::MLX5DV_CONTEXT_MASK_NUM_LAG_PORTS | sys::MLX5DV_CONTEXT_MASK_DCI_STREAMS;
        mlx5.device.comp_mask &= !u64::from(newer);
    }
    interpret(answers)
}

fn interpret(answers: Answers) -> DeviceAttributes {
    let (attributes, _) =
        answers.interpret(&OpenOptions::default()).expect("the table has ports and addresses");
    attributes
}

impl Row {
    fn answers(&self) -> Answers {
        Answers {
            // No device has this name, so nothing of this machine gets in.
            name: format!("recorded:{}", self.name),
            driver: Driver { name: Some("mlx5_core".into()), rxe_parent: None },
            basic: self.basic(),
            extended: extended(),
            ports: vec![self.port()],
            // Assumed.
            max_inline: 928,
            mlx5: Ok(mlx5::Answers {
                device: self.context(),
                clock: Ok(self.clock()),
                source_port: Ok(()),
            }),
        }
    }

    /// `ibv_query_device`: listed, with the family's values where the listing of a model is cut.
    fn basic(&self) -> ibv_device_attr {
        let mut attr = ibv_device_attr {
            vendor_id: 0x02c9,
            vendor_part_id: self.part,
            max_mr_size: u64::MAX,
            max_qp: self.queue_pairs,
            max_qp_wr: 32_768,
            max_sge: 30,
            max_cqe: 4_194_303,
            max_srq: 8_388_608,
            max_srq_wr: 32_767,
            max_srq_sge: 31,
            max_qp_rd_atom: 16,
            max_qp_init_rd_atom: 16,
            atomic_cap: sys::IBV_ATOMIC_HCA,
            phys_port_cnt: 1,
            ..ibv_device_attr::default()
        };
        for (to, from) in attr.fw_ver.iter_mut().zip(self.firmware.bytes()) {
            *to = from as _;
        }
        attr
    }

    fn port(&self) -> PortFacts {
        PortFacts {
            number: 1,
            active: true,
            link_layer: ETHERNET,
            lid: 0,
            // 4096 listed for ConnectX-7; 1024, for an Ethernet MTU of 1500, for the others.
            mtu: if self.part == 4129 {
                PathMtu::from_code(5).unwrap_or(PathMtu::DEFAULT)
            } else {
                PathMtu::DEFAULT
            },
            rate: Bandwidth::from_bits_per_second(self.gigabits * 1_000_000_000),
            // Listed: max_msg_sz 0x40000000.
            max_message: 0x4000_0000,
            global_route: true,
            gids: vec![GidFacts {
                index: 3,
                value: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1],
                kind: sys::IBV_GID_TYPE_ROCE_V2,
            }],
        }
    }

    fn context(&self) -> mlx5dv_context {
        let mut mask = sys::MLX5DV_CONTEXT_MASK_CQE_COMPRESION
            | sys::MLX5DV_CONTEXT_MASK_STRIDING_RQ
            | sys::MLX5DV_CONTEXT_MASK_DYN_BFREGS
            | sys::MLX5DV_CONTEXT_MASK_CLOCK_INFO_UPDATE
            | sys::MLX5DV_CONTEXT_MASK_DCI_STREAMS;
        // libmlx5 leaves the bit out where there is no bond.
        if self.lag_ports > 0 {
            mask |= sys::MLX5DV_CONTEXT_MASK_NUM_LAG_PORTS;
        }
        let mut context = mlx5dv_context {
            flags: self.flags.into(),
            comp_mask: mask.into(),
            max_dynamic_bfregs: 1024,
            // Assumed: mlx5_core renews the translation several times in the period of the counter.
            max_clock_info_update_nsec: 1_000_000_000,
            num_lag_ports: self.lag_ports,
            ..mlx5dv_context::default()
        };
        // Assumed number.
        context.cqe_comp_caps.max_num = 64;
        context.cqe_comp_caps.supported_format = self.compression;
        let strides = &mut context.striding_rq_caps;
        strides.min_single_stride_log_num_of_bytes = 6;
        strides.max_single_stride_log_num_of_bytes = 13;
        strides.min_single_wqe_log_num_of_strides = self.min_strides_log;
        strides.max_single_wqe_log_num_of_strides = 16;
        strides.supported_qpts = 1 << sys::IBV_QPT_RAW_PACKET;
        context.dci_streams_caps.max_log_num_concurent = self.dci_streams_log;
        context.dci_streams_caps.max_log_num_errored = self.dci_streams_log;
        context
    }

    /// What `clocks_calc_mult_shift` of the kernel makes of the frequency, in essence.
    fn clock(&self) -> mlx5dv_clock_info {
        let shift = 24;
        let mult = (1_000_000u64 << shift) / self.clock_khz;
        mlx5dv_clock_info {
            mult: u32::try_from(mult).unwrap_or(u32::MAX),
            shift,
            mask: (1 << 41) - 1,
            ..mlx5dv_clock_info::default()
        }
    }
}

/// `ibv_query_device_ex`: listed.
fn extended() -> ibv_device_attr_ex {
    let mut attr = ibv_device_attr_ex {
        completion_timestamp_mask: 0x7fff_ffff_ffff_ffff,
        ..ibv_device_attr_ex::default()
    };
    attr.odp_caps.general_caps = u64::from(sys::IBV_ODP_SUPPORT | sys::IBV_ODP_SUPPORT_IMPLICIT);
    attr.packet_pacing_caps.qp_rate_limit_min = 1;
    attr.packet_pacing_caps.qp_rate_limit_max = 100_000_000;
    attr.packet_pacing_caps.supported_qpts = 1 << sys::IBV_QPT_RAW_PACKET;
    attr
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::mlx5::{DeviceClock, MultiPacketSend};
    use crate::device::{Mover, PathEntropy};

    fn device(name: &str) -> DeviceAttributes {
        devices().into_iter().find(|(model, _)| *model == name).unwrap().1
    }

    #[test]
    fn every_model_is_described() {
        for (model, device) in devices() {
            assert!(device.description.contains("mlx5_core, 02c9:10"), "{model}: {device:?}");
            assert!(device.max_work_requests == 32_768 && device.max_slices == 30, "{model}");
            assert!(device.capabilities.completion_timestamps && device.capabilities.atomics);
            assert!(device.capabilities.on_demand_paging && device.capabilities.relaxed_ordering);
            assert_eq!(device.path_entropy, PathEntropy::FlowLabel);
            assert_eq!(device.mover, Mover::Nic);
            assert_eq!(device.mlx5.unwrap().source_port, Ok(()));
            // All of them pace raw packets only.
            let why = device.rate_limit.unwrap_err().to_string();
            assert!(why.contains("not for reliable connections"), "{why}");
        }
        assert!(device("ConnectX-7").description.contains("firmware 28.42.1000"));
    }

    #[test]
    fn generations_differ() {
        let [old, five, six, seven] =
            ["ConnectX-4 Lx", "ConnectX-5", "ConnectX-6 Dx", "ConnectX-7"]
                .map(|name| device(name).mlx5.unwrap());
        assert_eq!(old.multi_packet_send, Ok(MultiPacketSend::Plain));
        assert_eq!(five.multi_packet_send, Ok(MultiPacketSend::Enhanced));
        assert!(old.packet_based_credits.is_err() && five.packet_based_credits.is_ok());
        assert_eq!(five.lag_ports, Ok(2));
        assert!(matches!(six.lag_ports, Err(WhyNot::NotAnswered { .. })));
        assert!(!five.completion_compression.unwrap().stride);
        assert!(six.completion_compression.unwrap().stride);
        assert_eq!(old.striding_receive.unwrap().strides_log, (9, 16));
        let strides = six.striding_receive.unwrap();
        assert!(strides.strides_log == (3, 16) && !strides.reliable_connection);
        assert!(matches!(six.dci_streams, Err(WhyNot::Declined(_))));
        assert_eq!(seven.dci_streams.unwrap().concurrent_log, 8);
        assert_eq!(seven.dynamic_doorbells, Ok(1024));
        let near = |clock: DeviceClock, hertz: u64| clock.hertz.abs_diff(hertz) * 1000 < hertz;
        assert!(
            near(old.clock.clone().unwrap(), 156_250_000)
                && near(six.clock.clone().unwrap(), 1_000_000_000)
        );
        assert!(!old.clock.unwrap().real_time && six.clock.unwrap().real_time);
    }

    #[test]
    fn closed_gates_leave_the_rest_as_it_is() {
        let without = without_direct_verbs();
        assert!(matches!(without.mlx5, Err(WhyNot::NoLibrary(_))));
        assert!(!without.capabilities.relaxed_ordering);
        assert_eq!(without.path_entropy, PathEntropy::FlowLabel);
        assert_eq!(without.max_queue_pairs, device("ConnectX-5").max_queue_pairs);

        let old = with_an_old_library().mlx5.unwrap();
        let why = old.source_port.unwrap_err().to_string();
        assert!(
            why.contains("mlx5dv_modify_qp_udp_sport") && why.contains("rdma-core 33"),
            "{why}"
        );
        assert!(matches!(old.dci_streams, Err(WhyNot::NotAnswered { .. })));
        assert!(old.completion_compression.is_ok());
    }
}
