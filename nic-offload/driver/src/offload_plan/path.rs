//! How Channels spread over the paths of the network.

use netchannel_verbs::DeviceAttributes;
use netchannel_verbs::device::PathEntropy;

use super::{PlanRow, Worker, row};

/// The row "path entropy".
pub(super) fn entropy(device: &DeviceAttributes) -> PlanRow {
    let function = "path entropy";
    let label = "ibv_modify_qp: flow label";
    let port = "UDP source port per Channel";
    match (device.path_entropy, direct(device)) {
        (PathEntropy::NoNetwork, _) => {
            let reason = "memory has one path";
            row(function, Worker::Nobody, "link layer", "none", reason)
        }
        (PathEntropy::NoUdp, _) => {
            let reason = "packets are no UDP; the subnet manager routes by LID";
            row(function, Worker::Nobody, "ibv_query_port: link_layer", "none", reason)
        }
        (_, Ok(())) => {
            let reason = "set when a Channel is connected, distinct per Channel, by flow label and \
                          directly; firmware that refuses stays with the flow label";
            row(function, Worker::Nic, "mlx5dv_modify_qp_udp_sport", port, reason)
        }
        (PathEntropy::FlowLabel, Err(why)) => {
            let reason = format!(
                "distinct per Channel; the kernel driver derives it from the flow label; not set \
                 directly: {why}"
            );
            row(function, Worker::Nic, label, port, reason)
        }
        (PathEntropy::Unknown, Err(why)) => {
            let reason = format!(
                "the flow label is set, distinct per Channel, but this driver is not known to act \
                 on it; not set directly: {why}"
            );
            row(function, Worker::Nobody, label, "the driver's choice", reason)
        }
    }
}

/// Whether direct verbs can set it, or the first gate that is closed.
fn direct(device: &DeviceAttributes) -> Result<(), String> {
    let mlx5 = device.mlx5.as_ref().map_err(ToString::to_string)?;
    mlx5.source_port.clone().map_err(|why| why.to_string())
}
