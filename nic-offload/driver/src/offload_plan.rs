//! The offload plan: what the device does and what the host does, and why (decision D13).

use netchannel_verbs::DeviceAttributes;
use netchannel_verbs::device::LinkLayer;

/// Who does a piece of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worker {
    /// The NIC.
    Nic,
    /// This host's processors.
    Host,
    /// Nobody: it is not done.
    Nobody,
}

/// One row of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRow {
    /// The piece of work.
    pub function: &'static str,
    /// Who does it.
    pub by: Worker,
    /// The query that the decision rests on.
    pub query: &'static str,
    /// What it answered.
    pub value: String,
    /// Why it is so.
    pub reason: String,
}

/// The plan for Channels over reliable connections of a device.
pub fn offload_plan(device: &DeviceAttributes) -> Vec<PlanRow> {
    let memory = device.port.link_layer == LinkLayer::Memory;
    let row = |function, by, query, value: String, reason: &str| PlanRow {
        function,
        by,
        query,
        value,
        reason: reason.to_owned(),
    };
    let wire_worker = if memory { Worker::Host } else { Worker::Nic };
    let capabilities = &device.capabilities;
    vec![
        row(
            "reliability",
            wire_worker,
            "service of the queue pair",
            "RC".into(),
            if memory {
                "memory loses nothing; the receiver's poll acknowledges"
            } else {
                "reliable connections retransmit in the NIC"
            },
        ),
        row(
            "segmentation",
            wire_worker,
            "ibv_query_port: active_mtu, max_msg_sz",
            format!("MTU {} B, messages to {} B", device.port.mtu, device.max_message),
            "one WRITE carries a whole chunk",
        ),
        row(
            "placement",
            wire_worker,
            "service of the queue pair",
            "WRITE".into(),
            if memory {
                "the sender's core copies straight into the receiver's window"
            } else {
                "WRITEs land in the receiver's window without its processors"
            },
        ),
        row(
            "pacing",
            Worker::Nobody,
            "ibv_query_device_ex: packet_pacing_caps",
            capabilities.rate_limit.to_string(),
            "no congestion control that paces is chosen; bytes outstanding are bounded instead",
        ),
        row(
            "congestion control",
            if memory { Worker::Nobody } else { Worker::Nic },
            "service of the queue pair",
            "off or fixed above RC".into(),
            if memory { "memory does not congest" } else { "the NIC's own (DCQCN where enabled)" },
        ),
        row(
            "completion timestamps",
            Worker::Host,
            "ibv_query_device_ex: completion_timestamp_mask",
            capabilities.completion_timestamps.to_string(),
            "completion times are taken when the completion is polled, on every device alike",
        ),
        row(
            "path entropy",
            Worker::Nobody,
            "mlx5dv_is_supported",
            capabilities.mlx5_direct_verbs.to_string(),
            "UDP source ports are the driver's choice; each Channel is a queue pair of its own",
        ),
        row(
            "inline data",
            wire_worker,
            "ibv_create_qp: max_inline_data",
            if device.moves_bytes_while_posting() {
                "any size".into()
            } else {
                format!("{} B", device.max_inline)
            },
            if device.moves_bytes_while_posting() {
                "posting moves the bytes, so they come straight from the application's buffer"
            } else {
                "small messages ride in the work request"
            },
        ),
        row(
            "receive queue sharing",
            if capabilities.shared_receive_queue { wire_worker } else { Worker::Nobody },
            "ibv_query_device: max_srq",
            capabilities.shared_receive_queue.to_string(),
            "one receive queue serves all Channels of a group",
        ),
    ]
}
