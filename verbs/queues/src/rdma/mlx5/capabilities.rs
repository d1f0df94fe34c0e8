//! What the answers of libmlx5 mean.

use std::time::Duration;

use super::super::bindings::{
    self as sys, mlx5dv_clock_info, mlx5dv_context, mlx5dv_context_comp_mask, mlx5dv_context_flags,
};
use super::Answers;
use crate::device::mlx5::{
    CompletionCompression, DciStreams, DeviceClock, Mlx5Capabilities, MultiPacketSend,
    StridingReceive,
};
use crate::device::{Offer, WhyNot};

/// Pure: from what was answered to what can be used.
pub(in crate::rdma) fn capabilities(answers: &Answers) -> Mlx5Capabilities {
    let device = &answers.device;
    Mlx5Capabilities {
        source_port: answers.source_port.clone(),
        lag_ports: lag_ports(device),
        clock: clock(answers),
        completion_compression: completion_compression(device),
        multi_packet_send: multi_packet_send(device),
        striding_receive: striding_receive(device),
        packet_based_credits: packet_based_credits(device),
        dynamic_doorbells: dynamic_doorbells(device),
        dci_streams: dci_streams(device),
    }
}

/// The field gate.
fn answered(
    device: &mlx5dv_context,
    bit: mlx5dv_context_comp_mask,
    field: &'static str,
) -> Offer<()> {
    if device.comp_mask & u64::from(bit) == 0 {
        return Err(WhyNot::NotAnswered { field });
    }
    Ok(())
}

/// Flags are answered always.
fn flag(device: &mlx5dv_context, flag: mlx5dv_context_flags) -> bool {
    device.flags & u64::from(flag) != 0
}

fn declined<T>(answer: &str) -> Offer<T> {
    Err(WhyNot::Declined(answer.to_owned()))
}

fn lag_ports(device: &mlx5dv_context) -> Offer<u8> {
    // The bit is also missing where the device says 0.
    let field = "MLX5DV_CONTEXT_MASK_NUM_LAG_PORTS";
    answered(device, sys::MLX5DV_CONTEXT_MASK_NUM_LAG_PORTS, field)?;
    match device.num_lag_ports {
        0 | 1 => declined("num_lag_ports: one port, no aggregation"),
        ports => Ok(ports),
    }
}

fn clock(answers: &Answers) -> Offer<DeviceClock> {
    let mlx5dv_clock_info { mult, shift, mask, .. } = answers.clock.clone()?;
    // Nanoseconds = ticks x mult / 2^shift.
    let hertz = (1_000_000_000u128).checked_shl(shift).unwrap_or(0) / u128::from(mult.max(1));
    if mult == 0 || mask == 0 || hertz == 0 || shift >= 64 {
        return declined("mlx5dv_get_clock_info: the clock stands still");
    }
    let device = &answers.device;
    let field = "MLX5DV_CONTEXT_MASK_CLOCK_INFO_UPDATE";
    let told = answered(device, sys::MLX5DV_CONTEXT_MASK_CLOCK_INFO_UPDATE, field).is_ok();
    Ok(DeviceClock {
        hertz: u64::try_from(hertz).unwrap_or(u64::MAX),
        mask,
        valid_for: Duration::from_nanos(if told { device.max_clock_info_update_nsec } else { 0 }),
        real_time: flag(device, sys::MLX5DV_CONTEXT_FLAGS_REAL_TIME_TS),
    })
}

fn completion_compression(device: &mlx5dv_context) -> Offer<CompletionCompression> {
    let field = "MLX5DV_CONTEXT_MASK_CQE_COMPRESION";
    answered(device, sys::MLX5DV_CONTEXT_MASK_CQE_COMPRESION, field)?;
    let caps = device.cqe_comp_caps;
    if caps.max_num == 0 {
        return declined("cqe_comp_caps: none");
    }
    let format = |bit| caps.supported_format & bit != 0;
    Ok(CompletionCompression {
        max: caps.max_num,
        hash: format(sys::MLX5DV_CQE_RES_FORMAT_HASH),
        checksum: format(sys::MLX5DV_CQE_RES_FORMAT_CSUM),
        stride: format(sys::MLX5DV_CQE_RES_FORMAT_CSUM_STRIDX),
    })
}

fn multi_packet_send(device: &mlx5dv_context) -> Offer<MultiPacketSend> {
    if flag(device, sys::MLX5DV_CONTEXT_FLAGS_ENHANCED_MPW) {
        Ok(MultiPacketSend::Enhanced)
    } else if flag(device, sys::MLX5DV_CONTEXT_FLAGS_MPW_ALLOWED) {
        Ok(MultiPacketSend::Plain)
    } else {
        declined("flags: neither MPW_ALLOWED nor ENHANCED_MPW")
    }
}

fn striding_receive(device: &mlx5dv_context) -> Offer<StridingReceive> {
    let field = "MLX5DV_CONTEXT_MASK_STRIDING_RQ";
    answered(device, sys::MLX5DV_CONTEXT_MASK_STRIDING_RQ, field)?;
    let caps = device.striding_rq_caps;
    if caps.supported_qpts == 0 {
        return declined("striding_rq_caps: for no kind of queue pair");
    }
    Ok(StridingReceive {
        stride_log: (
            caps.min_single_stride_log_num_of_bytes,
            caps.max_single_stride_log_num_of_bytes,
        ),
        strides_log: (
            caps.min_single_wqe_log_num_of_strides,
            caps.max_single_wqe_log_num_of_strides,
        ),
        reliable_connection: caps.supported_qpts & 1 << sys::IBV_QPT_RC != 0,
    })
}

fn packet_based_credits(device: &mlx5dv_context) -> Offer<()> {
    if flag(device, sys::MLX5DV_CONTEXT_FLAGS_PACKET_BASED_CREDIT_MODE) {
        Ok(())
    } else {
        declined("flags: no PACKET_BASED_CREDIT_MODE")
    }
}

fn dynamic_doorbells(device: &mlx5dv_context) -> Offer<u32> {
    let field = "MLX5DV_CONTEXT_MASK_DYN_BFREGS";
    answered(device, sys::MLX5DV_CONTEXT_MASK_DYN_BFREGS, field)?;
    match device.max_dynamic_bfregs {
        0 => declined("max_dynamic_bfregs: none"),
        registers => Ok(registers),
    }
}

fn dci_streams(device: &mlx5dv_context) -> Offer<DciStreams> {
    let field = "MLX5DV_CONTEXT_MASK_DCI_STREAMS";
    answered(device, sys::MLX5DV_CONTEXT_MASK_DCI_STREAMS, field)?;
    let caps = device.dci_streams_caps;
    if caps.max_log_num_concurent == 0 {
        return declined("dci_streams_caps: none");
    }
    Ok(DciStreams {
        concurrent_log: caps.max_log_num_concurent,
        errored_log: caps.max_log_num_errored,
    })
}
