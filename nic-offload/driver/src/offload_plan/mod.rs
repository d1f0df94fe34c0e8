//! The offload plan: what the device does and what the host does, and why (decision D13).

mod mlx5;
mod path;
#[cfg(test)]
mod tests;

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

/// What the rows have in common.
fn row(
    function: &'static str,
    by: Worker,
    query: &'static str,
    value: impl Into<String>,
    reason: impl Into<String>,
) -> PlanRow {
    PlanRow { function, by, query, value: value.into(), reason: reason.into() }
}

/// The plan for Channels over reliable connections of a device.
pub fn offload_plan(device: &DeviceAttributes) -> Vec<PlanRow> {
    let memory = device.port.link_layer == LinkLayer::Memory;
    let wire_worker = if memory { Worker::Host } else { Worker::Nic };
    let mut plan = wire_rows(device, memory, wire_worker);
    plan.extend([
        pacing(device),
        congestion_control(memory),
        mlx5::timestamps(device),
        path::entropy(device),
        inline_data(device, wire_worker),
        row(
            "receive queue sharing",
            if device.capabilities.shared_receive_queue { wire_worker } else { Worker::Nobody },
            "ibv_query_device: max_srq",
            device.capabilities.shared_receive_queue.to_string(),
            "one receive queue serves all Channels of a group",
        ),
    ]);
    plan.extend(mlx5::rows(device));
    plan
}

/// What carries the bytes.
fn wire_rows(device: &DeviceAttributes, memory: bool, worker: Worker) -> Vec<PlanRow> {
    let service = "service of the queue pair";
    vec![
        row(
            "reliability",
            worker,
            service,
            "RC",
            if memory {
                "memory loses nothing; the receiver's poll acknowledges"
            } else {
                "reliable connections retransmit in the NIC"
            },
        ),
        row(
            "segmentation",
            worker,
            "ibv_query_port: active_mtu, max_msg_sz",
            format!("MTU {} B, messages to {} B", device.port.mtu, device.max_message),
            "one WRITE carries a whole chunk",
        ),
        row(
            "placement",
            worker,
            service,
            "WRITE",
            if memory {
                "the sender's core copies straight into the receiver's window"
            } else {
                "WRITEs land in the receiver's window without its processors"
            },
        ),
    ]
}

fn pacing(device: &DeviceAttributes) -> PlanRow {
    let (value, offered) = match &device.rate_limit {
        Ok(limit) => (format!("{} to {}", limit.min, limit.max), String::new()),
        Err(why) => ("no".to_owned(), format!(" ({why})")),
    };
    let reason =
        "no congestion control that paces is chosen; bytes outstanding are bounded instead";
    row(
        "pacing",
        Worker::Nobody,
        "ibv_query_device_ex: packet_pacing_caps",
        value,
        format!("{reason}{offered}"),
    )
}

fn congestion_control(memory: bool) -> PlanRow {
    row(
        "congestion control",
        if memory { Worker::Nobody } else { Worker::Nic },
        "service of the queue pair",
        "off or fixed above RC",
        if memory { "memory does not congest" } else { "the NIC's own (DCQCN where enabled)" },
    )
}

fn inline_data(device: &DeviceAttributes, worker: Worker) -> PlanRow {
    let any = device.moves_bytes_while_posting();
    row(
        "inline data",
        worker,
        "ibv_create_qp: max_inline_data",
        if any { "any size".into() } else { format!("{} B", device.max_inline) },
        if any {
            "posting moves the bytes, so they come straight from the application's buffer"
        } else {
            "small messages ride in the work request"
        },
    )
}
