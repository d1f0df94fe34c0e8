//! `netchannel devices`.

use netchannel::{DeviceAttributes, PlanRow, Worker, devices, offload_plan};
use serde_json::{Value, json};

use crate::arguments::DevicesArgs;
use crate::output;
use crate::problem::Problem;

/// Lists devices: all, or the one of this name.
pub(crate) fn run(arguments: &DevicesArgs, device: Option<&str>) -> anyhow::Result<()> {
    let mut list = devices();
    if let Some(name) = device.filter(|name| *name != "auto") {
        let known: Vec<_> = list.devices.iter().map(|device| device.name.clone()).collect();
        list.devices.retain(|device| device.name == name);
        if list.devices.is_empty() {
            return Err(Problem::UnknownDevice { name: name.into(), known }.into());
        }
        list.unavailable.clear();
    }
    if arguments.json {
        let devices: Vec<Value> = list.devices.iter().map(as_json).collect();
        let unavailable: Vec<Value> = list
            .unavailable
            .iter()
            .map(|(provider, reason)| json!({"provider": provider.to_string(), "reason": reason}))
            .collect();
        return output::print_json(&json!({"devices": devices, "unavailable": unavailable}));
    }
    let mut text = String::new();
    for device in &list.devices {
        text += &as_text(device);
    }
    for (provider, reason) in &list.unavailable {
        text += &format!("{provider}: none ({reason})\n");
    }
    Ok(output::print(&text)?)
}

/// Abilities by name, in the order in which they are shown.
fn abilities(device: &DeviceAttributes) -> [(&'static str, bool); 9] {
    let can = &device.capabilities;
    [
        ("shared_receive_queue", can.shared_receive_queue),
        ("unreliable_datagram", can.unreliable_datagram),
        ("atomics", can.atomics),
        ("on_demand_paging", can.on_demand_paging),
        ("completion_timestamps", can.completion_timestamps),
        ("rate_limit", device.rate_limit.is_ok()),
        ("relaxed_ordering", can.relaxed_ordering),
        ("mlx5_direct_verbs", device.mlx5.is_ok()),
        ("memory_windows", can.memory_windows),
    ]
}

fn worker(row: &PlanRow) -> &'static str {
    match row.by {
        Worker::Nic => "nic",
        Worker::Host => "host",
        Worker::Nobody => "none",
    }
}

/// A GID as it is usually written.
fn gid(device: &DeviceAttributes) -> Option<String> {
    let gid = device.port.gid?;
    Some(format!("{} (index {})", std::net::Ipv6Addr::from(gid.value), gid.index))
}

fn link_layer(device: &DeviceAttributes) -> String {
    format!("{:?}", device.port.link_layer).to_lowercase()
}

/// A limit, or nothing where there is none.
fn limit<T: PartialEq + Into<u64>>(value: T, none: T) -> Option<u64> {
    (value != none).then(|| value.into())
}

fn as_json(device: &DeviceAttributes) -> Value {
    let port = &device.port;
    let plan: Vec<Value> = offload_plan(device)
        .iter()
        .map(|row| {
            json!({
                "function": row.function,
                "by": worker(row),
                "query": row.query,
                "value": row.value,
                "reason": row.reason,
            })
        })
        .collect();
    let abilities: serde_json::Map<_, _> =
        abilities(device).into_iter().map(|(name, can)| (name.to_owned(), json!(can))).collect();
    json!({
        "name": device.name,
        "provider": device.provider.to_string(),
        "description": device.description,
        "port": {
            "number": port.number,
            "active": port.active,
            "mtu": port.mtu,
            "gbps": (port.rate.bits_per_second() > 0).then(|| port.rate.gbps()),
            "link_layer": link_layer(device),
            "gid": gid(device),
            "interface": port.interface,
            "reason": port.reason,
        },
        "limits": {
            "queue_pairs": device.max_queue_pairs,
            "work_requests": device.max_work_requests,
            "completions": device.max_completions,
            "shared_receives": device.max_shared_receives,
            "slices": device.max_slices,
            "region_bytes": device.max_region,
            "message_bytes": device.max_message,
            "inline_bytes": limit(device.max_inline, u32::MAX),
        },
        "capabilities": abilities,
        "offload_plan": plan,
    })
}

fn as_text(device: &DeviceAttributes) -> String {
    let port = &device.port;
    let mut text = format!("{} ({}): {}\n", device.name, device.provider, device.description);
    text += &format!(
        "  port {}: {}, {}, MTU {} bytes",
        port.number,
        if port.active { "active" } else { "down" },
        link_layer(device),
        port.mtu
    );
    if port.rate.bits_per_second() > 0 {
        text += &format!(", {}", port.rate);
    }
    if let Some(interface) = &port.interface {
        text += &format!(", interface {interface}");
    }
    if let Some(gid) = gid(device) {
        text += &format!(", GID {gid}");
    }
    text += &format!("\n  chosen: {}\n", port.reason);
    let inline = limit(device.max_inline, u32::MAX).map_or("any".into(), |bytes| bytes.to_string());
    text += &format!(
        "  limits: {} queue pairs, {} work requests, {} completions, messages to {} bytes, inline \
         {inline} bytes\n",
        device.max_queue_pairs,
        device.max_work_requests,
        device.max_completions,
        device.max_message
    );
    let can: Vec<String> = abilities(device)
        .into_iter()
        .filter(|(_, can)| *can)
        .map(|(name, _)| name.replace('_', " "))
        .collect();
    text += &format!(
        "  can: {}\n",
        if can.is_empty() { "nothing beyond the basics".into() } else { can.join(", ") }
    );
    let head = ["  offload plan", "by", "value", "reason (query)"].map(String::from).to_vec();
    let rows = offload_plan(device).into_iter().map(|row| {
        let by = worker(&row).to_owned();
        vec![
            format!("  {}", row.function),
            by,
            row.value,
            format!("{} ({})", row.reason, row.query),
        ]
    });
    text + &output::left_table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()) + "\n"
}
