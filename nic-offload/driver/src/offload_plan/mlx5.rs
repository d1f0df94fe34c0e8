//! What direct verbs of mlx5 offer, and what of it is used.

use netchannel_verbs::DeviceAttributes;
use netchannel_verbs::device::Offer;
use netchannel_verbs::device::mlx5::{
    CompletionCompression, DciStreams, DeviceClock, Mlx5Capabilities, MultiPacketSend,
    StridingReceive,
};

use super::{PlanRow, Worker, row};

/// The row "completion timestamps", of any device; the clock behind them is known of mlx5 only.
pub(super) fn timestamps(device: &DeviceAttributes) -> PlanRow {
    let can = device.capabilities.completion_timestamps;
    let (query, value) = match device.mlx5.as_ref().map(|mlx5| &mlx5.clock) {
        Ok(Ok(clock)) => (
            "ibv_query_device_ex: completion_timestamp_mask, mlx5dv_get_clock_info",
            format!("{can}, {}", clock_text(clock)),
        ),
        Ok(Err(why)) => (
            "ibv_query_device_ex: completion_timestamp_mask, mlx5dv_get_clock_info",
            format!("{can}, no clock: {why}"),
        ),
        Err(_) => ("ibv_query_device_ex: completion_timestamp_mask", can.to_string()),
    };
    let reason = "completion times are taken when the completion is polled, on every device alike";
    row("completion timestamps", Worker::Host, query, value, reason)
}

fn clock_text(clock: &DeviceClock) -> String {
    let kind = if clock.real_time { "free-running or wall clock" } else { "free-running" };
    format!("{} kHz, {kind}", clock.hertz.saturating_add(500) / 1000)
}

/// Rows that only devices with direct verbs have; one row that says why for the others.
pub(super) fn rows(device: &DeviceAttributes) -> Vec<PlanRow> {
    match &device.mlx5 {
        Ok(mlx5) => offered(mlx5),
        Err(why) => {
            let query = "mlx5dv_is_supported, mlx5dv_query_device";
            let reason = format!("{why}; nothing depends on it");
            vec![row("direct verbs", Worker::Nobody, query, "none", reason)]
        }
    }
}

/// A row about something that is offered or not, and used by nobody here.
fn unused<T>(
    function: &'static str,
    query: &'static str,
    offer: &Offer<T>,
    value: impl Fn(&T) -> String,
    reason: &str,
) -> PlanRow {
    match offer {
        Ok(offered) => {
            row(function, Worker::Nobody, query, value(offered), format!("not used: {reason}"))
        }
        Err(why) => row(function, Worker::Nobody, query, "not offered", why.to_string()),
    }
}

fn offered(mlx5: &Mlx5Capabilities) -> Vec<PlanRow> {
    vec![
        link_aggregation(mlx5),
        unused(
            "completion compression",
            "mlx5dv_query_device: cqe_comp_caps",
            &mlx5.completion_compression,
            compression_text,
            "only mlx5dv_create_cq asks for it, and few completions are signalled",
        ),
        unused(
            "multi-packet sends",
            "mlx5dv_query_device: flags",
            &mlx5.multi_packet_send,
            |kind| match kind {
                MultiPacketSend::Plain => "packets of one size".into(),
                MultiPacketSend::Enhanced => "any packets".into(),
            },
            "for raw Ethernet packets; connections segment messages by themselves",
        ),
        unused(
            "striding receive",
            "mlx5dv_query_device: striding_rq_caps",
            &mlx5.striding_receive,
            striding_text,
            "receives are slots of one size in a shared queue",
        ),
        unused(
            "packet-based credits",
            "mlx5dv_query_device: flags",
            &mlx5.packet_based_credits,
            |()| "yes".into(),
            "connections with a shared receive queue have no end-to-end credits",
        ),
        unused(
            "doorbell registers",
            "mlx5dv_query_device: max_dynamic_bfregs",
            &mlx5.dynamic_doorbells,
            |registers| format!("{registers} on request"),
            "queue pairs take those that the library hands out",
        ),
        unused(
            "DCI streams",
            "mlx5dv_query_device: dci_streams_caps",
            &mlx5.dci_streams,
            dci_text,
            "Channels are reliable connections, few per peer",
        ),
    ]
}

fn link_aggregation(mlx5: &Mlx5Capabilities) -> PlanRow {
    let function = "link aggregation";
    let query = "mlx5dv_query_device: num_lag_ports";
    match &mlx5.lag_ports {
        Ok(ports) => {
            let reason = "the device spreads queue pairs over the ports";
            row(function, Worker::Nic, query, format!("{ports} ports"), reason)
        }
        Err(why) => row(function, Worker::Nobody, query, "none", format!("no bond: {why}")),
    }
}

fn compression_text(offered: &CompletionCompression) -> String {
    let CompletionCompression { max, hash, checksum, stride } = *offered;
    let formats = [(hash, "hash"), (checksum, "checksum"), (stride, "checksum and stride")];
    let with: Vec<_> = formats.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect();
    format!("{max} in one, with {}", with.join(", "))
}

fn striding_text(offered: &StridingReceive) -> String {
    // Powers of two up to 2^63 as numbers; a device that says more gets the exponent.
    let power = |log: u32| match 1u64.checked_shl(log) {
        Some(number) => number.to_string(),
        None => format!("2^{log}"),
    };
    let StridingReceive { stride_log, strides_log, reliable_connection } = *offered;
    format!(
        "{} to {} strides of {} to {} B, {}",
        power(strides_log.0),
        power(strides_log.1),
        power(stride_log.0),
        power(stride_log.1),
        if reliable_connection { "connections too" } else { "raw packets only" }
    )
}

fn dci_text(offered: &DciStreams) -> String {
    format!("2^{} at a time, 2^{} in error", offered.concurrent_log, offered.errored_log)
}
